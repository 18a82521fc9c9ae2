"""When a run is measured, and what follows from its held-out losses: which step is best, and whether to go on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluate.heldout import HeldoutLoss
from tutelage.recipe import EvaluateOptions, ExportOptions
from tutelage.types import Example


@dataclass
class Course:
    """The measurements of a run, by step; step 0 is the base model."""

    heldout: Sequence[Example]
    rows: NDArray[np.int64]
    """The row of each held-out example; the examples of one row are one draw."""
    options: EvaluateOptions
    steps: int
    """Of the whole run."""
    points: set[int]
    """Steps after which the loss is measured; none where nothing is held out."""
    until: int | None = None
    """The step after which the run stops, to be continued later; the loss is measured there, too."""
    export: ExportOptions = field(default_factory=ExportOptions)
    measured: dict[int, HeldoutLoss] = field(default_factory=dict)
    pauses: set[int] = field(default_factory=set)
    """Steps that were measured only because the run stopped there; they decide nothing."""

    def restore(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Take up what earlier processes wrote into `heldout.jsonl`."""
        weights = np.array([float(example.weights.sum(dtype=np.float64)) for example in self.heldout])
        tokens = sum(example.supervised for example in self.heldout)
        for line in lines:
            if line["model"] != "tuned":
                if line.get("pause"):
                    self.pauses.add(int(line["step"]))
                self.measured[int(line["step"])] = HeldoutLoss(np.array(line["sums"], dtype=float), weights, tokens)

    def forget_after(self, step: int) -> None:
        """Leave out what was measured later, when the run has gone back to before it."""
        self.measured = {at: loss for at, loss in self.measured.items() if at <= step}

    def pauses_at(self, step: int) -> bool:
        """Whether the run stops after this step, although there are more."""
        return self.until is not None and self.until <= step < self.steps

    def asks_for(self, step: int) -> bool:
        """Whether the loss after this step is still to be measured."""
        point = step in self.points or (bool(self.points) and self.pauses_at(step))
        return point and step not in self.measured

    def saves(self, step: int) -> bool:
        """Whether the step has a checkpoint whatever `checkpoint.every` says."""
        return step in self.points or step in (self.export.named, self.steps)

    def add(self, step: int, loss: HeldoutLoss) -> None:
        """One more measurement."""
        self.measured[step] = loss
        if self.is_pause(step):
            self.pauses.add(step)

    def is_pause(self, step: int) -> bool:
        """Whether a step is measured only because the run stops there."""
        return step > 0 and step not in self.points

    @property
    def planned(self) -> dict[int, HeldoutLoss]:
        """What was measured whether or not the run ever stopped, the base model included."""
        return {step: loss for step, loss in self.measured.items() if step in self.points or step not in self.pauses}

    def nll_at(self, step: int) -> float | None:
        """Nats per token after a step; None where it was not measured, or only because the run stopped there."""
        return self.planned[step].nll if step > 0 and step in self.planned else None

    @property
    def best(self) -> int | None:
        """The step after which the loss was lowest, the earlier one of equals; None where no step was measured."""
        steps = [step for step in self.planned if step > 0 and math.isfinite(self.measured[step].nll)]
        return min(steps, key=lambda step: (self.measured[step].nll, step), default=None)

    def better_than(self, step: int) -> int | None:
        """The best step, where it is clearly better than another: by more than `margin` standard errors."""
        best = self.best
        if best is None or best == step or step not in self.measured:
            return None
        unsound = not math.isfinite(self.measured[step].nll)
        return best if unsound or self._is_better(self.measured[best], self.measured[step]) else None

    def exported(self, done: int) -> int:
        """The step whose weights are exported, after so many steps."""
        if self.export.step == "last":
            return done
        return self.export.named or self.better_than(done) or done

    def in_vain(self, step: int) -> bool:
        """Whether the run ends after this step: the last `patience` measurements brought nothing better.

        Better is lower by more than `margin` standard errors of the paired difference. The base model counts as the
        first measurement, so that training which never helps is seen too. One row alone tells nothing and ends nothing.
        """
        if self.options.patience is None or step not in self.points or step >= self.steps:
            return False
        if step < (self.export.named or 0):
            return False
        if self.options.margin and len(np.unique(self.rows)) < 2:
            return False
        best: HeldoutLoss | None = None
        count = 0
        for loss in (self.measured[at] for at in sorted(self.planned)):
            if best is None or self._is_better(loss, best):
                best, count = loss, 0
            else:
                count += 1
        return count >= self.options.patience

    @cached_property
    def digest(self) -> str:
        """Of what is measured on, in short."""
        whole = hashlib.blake2b(digest_size=8)
        for example in self.heldout:
            whole.update(example.input_ids.tobytes())
            whole.update(example.weights.tobytes())
        return whole.hexdigest()

    @property
    def reason(self) -> str:
        """Why the run ends early."""
        times = self.options.patience
        return f"the held-out loss has not become better in the last {times} measurements (evaluate.patience={times})"

    def _is_better(self, loss: HeldoutLoss, best: HeldoutLoss) -> bool:
        change = loss.nll - best.nll
        if not change < 0:  # also where it is not a number
            return not math.isfinite(best.nll) and math.isfinite(loss.nll)
        margin = self.options.margin  # Of one row the standard error is infinite.
        return not margin or -change > margin * standard_error(loss.sums - best.sums, loss.weights, self.rows)


def standard_error(sums: NDArray[np.float64], weights: NDArray[np.float64], rows: NDArray[np.int64]) -> float:
    """Of sum(sums) / sum(weights) over rows that are drawn whole, to first order (Cochran 1977, section 2.11).

    Infinite for a single row, from which nothing can be said.
    """
    _, row = np.unique(rows, return_inverse=True)
    each, size = np.bincount(row, weights=sums), np.bincount(row, weights=weights)
    n = len(each)
    if n < 2:
        return math.inf
    errors = (each - each.sum() / size.sum() * size) / (size.sum() / n)
    return float(errors.std(ddof=1) / math.sqrt(n))
