"""Keeps a run from learning nothing, or nonsense, in silence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import nn

from tutelage.errors import DivergedError, ModelError, Problem
from tutelage.recipe import GuardOptions
from tutelage.train.ranks import ALONE, Ranks

WINDOW = 50
"""Sound steps that a loss is compared with."""
ENOUGH = 16
"""Sound steps before which no loss is called a spike."""


class RollBack(Exception):
    """The run shall go back to before a step and pass over that step's rows."""

    def __init__(self, step: int, why: str, rows: str = "") -> None:
        super().__init__(why)
        self.step = step
        self.rows = rows


@dataclass(slots=True)
class Guard:
    """Judges steps; everything that it remembers is in the checkpoint."""

    options: GuardOptions = field(default_factory=GuardOptions)
    skipped: int = 0
    in_a_row: int = 0
    passed_over: list[int] = field(default_factory=list)
    """Steps that are made without their rows, after the run went back to before them."""
    losses: list[float] = field(default_factory=list)
    """Of the last sound steps. Only those enter, so that no spike can teach it that spikes are usual."""
    go_on_from: Callable[[], str] = lambda: ""
    """Where the run can be continued, in words."""

    @property
    def goes_back(self) -> bool:
        """Whether a step can send the run back."""
        return "rollback" in (self.options.non_finite, self.options.spikes)

    @property
    def ceiling(self) -> float:
        """The loss above which the next step is a spike."""
        if self.options.spikes == "ignore" or len(self.losses) < ENOUGH:
            return math.inf
        middle = statistics.median(self.losses)
        spread = 1.4826 * statistics.median(abs(loss - middle) for loss in self.losses)
        return middle + max(10 * spread, 0.5 * abs(middle))

    def judge(self, step: int, loss: float, grad_norm: float, rows: str, *, made: bool) -> None:
        """Remember a step; one whose update was not made, because it is not sound, is counted, and its rows are named.

        Raises:
            DivergedError: train/diverged, with the rows of the step, when there were too many or the first is enough.
            RollBack: when the run shall go back.
        """
        finite = math.isfinite(loss) and math.isfinite(grad_norm)
        if made:
            self.in_a_row = 0
            self.losses = [*self.losses[1 - WINDOW :], loss]
            return
        policy = self.options.spikes if finite else self.options.non_finite
        if policy == "rollback" and len(self.passed_over) < self.options.limit:
            raise RollBack(step, f"loss {loss:.4g}, gradient norm {grad_norm:.4g}", rows)
        self.skipped += 1
        self.in_a_row += 1
        if policy != "skip" or self.in_a_row >= self.options.limit:
            raise self._diverged(step, loss, grad_norm, rows, finite=finite)

    def refuse_state(self, step: int, name: str) -> None:
        """What would be saved is not finite, so no later step can mend it.

        Raises:
            RollBack: when the run shall go back.
            DivergedError: train/diverged.
        """
        if self.goes_back and step > 0 and len(self.passed_over) < self.options.limit:
            raise RollBack(step, f"`{name}` holds values that are not finite")
        raise DivergedError(
            Problem(
                "train/diverged",
                f"`{name}` holds values that are not finite; the run stopped",
                found=f"at step {step}",
                why="every later step would be computed from them, and they are never saved",
                fix=f"lower train.learning_rate{self.go_on_from()}",
            )
        )

    def refuse_to_go_back(self, back: RollBack) -> NoReturn:
        """There is no checkpoint before the step.

        Raises:
            DivergedError: train/diverged.
        """
        what = f"step {back.step} is not sound ({back}), and there is no checkpoint to go back to; the run stopped"
        raise DivergedError(Problem("train/diverged", what, fix="begin another run with output=runs/NAME")) from back

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        known = {"skipped": self.skipped, "in_a_row": self.in_a_row}
        return {**known, "passed_over": list(self.passed_over), "losses": list(self.losses)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's; steps passed over since then stay so."""
        self.skipped, self.in_a_row = int(state["skipped"]), int(state["in_a_row"])
        self.passed_over = sorted({*self.passed_over, *(int(step) for step in state["passed_over"])})
        self.losses = [float(loss) for loss in state["losses"]]

    def _diverged(self, step: int, loss: float, grad_norm: float, rows: str, *, finite: bool) -> DivergedError:
        what = "a loss far above those before it" if finite else "a loss or gradient that is not finite"
        many = f"{self.in_a_row} steps in a row" if self.in_a_row > 1 else f"step {step}"
        if len(self.passed_over) >= self.options.limit:
            many = f"after {len(self.passed_over)} steps that were passed over, step {step}"
        return DivergedError(
            Problem(
                "train/diverged",
                f"{many} had {what}; the run stopped",
                where=rows,
                found=f"step {step}: loss {loss}, gradient norm {grad_norm}",
                why="the rows of the last of these steps are named; none of these steps changed the weights",
                fix=f"look at the rows with `tutelage preview`, or lower train.learning_rate{self.go_on_from()}",
            )
        )


def check_gradients(parameters: Mapping[str, nn.Parameter], ranks: Ranks = ALONE) -> None:
    """Every trained tensor received a gradient with something in it, on one process at least.

    Called after the first backward pass.

    LoRA's first matrices are the exception: their gradient is zero while the second ones are.

    Raises:
        ModelError: model/no-gradient, naming the tensors.
    """
    heard = [
        parameter.grad is not None and ("lora_A" in name or bool(parameter.grad.any()))
        for name, parameter in parameters.items()
    ]
    anywhere = ranks.sum(torch.tensor(heard, dtype=torch.float32, device=ranks.device)).tolist()
    silent = [name for name, count in zip(parameters, anywhere, strict=True) if not count]
    if silent:
        raise ModelError(
            Problem(
                "model/no-gradient",
                f"{len(silent):,} of {len(parameters):,} trained tensors receive no gradient",
                where=", ".join(silent[:5]),
                why="training would leave them as they are",
                fix="please report this with the model's name; nothing was trained",
            )
        )
