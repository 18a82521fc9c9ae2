"""Is the model learning its rows by heart? Training rows against held-out rows, pass by pass.

The loss of a training row is known from each step that trained on it; the held-out loss from the measurements. They are
compared as of the same step: what a row cost at step s against the held-out loss just before s, between two
measurements on the straight line. Otherwise the first pass, whose losses are from before anything was learned, would
look like a gap, and every second pass like memorising.

Memorising means that three things hold:

    rows were repeated       a row that was seen once cannot have been learned by repeating it
    the gap widened          from their first pass to their last, training rows gained more than held-out rows
    and nothing came of it   since its best, held-out loss has risen while training loss kept falling;
                             or a whole pass and more since its best has only widened the gap;
                             or it is no better than after the first pass

each of them told from noise, with intervals over examples. A gap alone is no harm: it widens in every run of several
passes, in most of which held-out rows gain as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tutelage.evaluate.compare import Difference, paired_ratio
from tutelage.evaluate.curve import Curve, Measurement
from tutelage.evaluate.passes import Ints, Passes

MOST = 5000
"""Training examples from which intervals are made; an even choice of more says the same."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch, in nats per token."""

    epoch: int
    """Counted from 1."""
    train_nll: float
    """Of its examples, each as it was just before it was trained on."""
    heldout_nll: float
    """As of the same steps."""
    gap: float
    """How much lower the loss of training rows is."""
    heldout_end_nll: float
    """At its end."""


@dataclass(frozen=True, slots=True)
class Memorising:
    """What can be said."""

    verdict: bool
    sentence: str
    epochs: tuple[Epoch, ...] = ()
    best_step: int | None = None
    """With the lowest held-out loss of all that were measured; 0 is the base model."""
    learned: bool = False
    """Whether the model was at its best better than the base, as far as can be told from noise."""
    widened: tuple[float, float, float] | None = None
    """By how much the gap is wider at the last pass than at the first, with its interval."""
    risen: tuple[float, float, float] | None = None
    """By how much the held-out loss is higher at the end than at its best, with its interval."""

    def as_json(self) -> dict[str, Any]:
        """As `result.json` holds it."""
        return {**asdict(self), "epochs": [asdict(epoch) for epoch in self.epochs]}


def memorising(
    passes: Passes,
    heldout: Sequence[Measurement],
    *,
    confidence: float = 0.95,
    rows: Ints | None = None,
) -> Memorising:
    """Whether the run has memorised its rows.

    `heldout` are the measurements of the run, in any order; step 0 is the base model. `rows` names the row of each
    held-out example: those of one row are one draw.
    """
    curve = Curve.of(heldout, rows)
    if curve is None:
        return Memorising(False, "Whether rows were memorised was not measured: no rows are held out.")
    if not len(passes):
        return Memorising(False, "Whether rows were memorised was not measured: no step was made.")
    epochs = tuple(_epoch(passes, curve, int(epoch)) for epoch in np.unique(passes.epoch))
    best = int(np.argmin(curve.nll))
    # The best was chosen among all measurements, so each comparison must be that much surer.
    surer = 1 - (1 - confidence) / max(1, len(curve.steps) - 1)
    risen = curve.change(curve.sums[best], curve.sums[-1], surer) if best < len(curve.steps) - 1 else None
    learned = best > 0 and curve.change(curve.sums[0], curve.sums[best], surer).verdict(lower_is_better=True)
    known = {"epochs": epochs, "best_step": int(curve.steps[best]), "learned": learned == "better"}
    known["risen"] = None if risen is None else (risen.difference, *risen.interval)
    first, last = passes.ends
    if not len(first):
        return Memorising(False, _once(risen, known["best_step"]), **known)
    gap = _gap(passes, curve, first, last, confidence)
    helped = curve.change(curve.sums[curve.soon_after(int(passes.step[first].max()))], curve.sums[-1], confidence)
    since = _gap(passes, curve, *_since(passes, known["best_step"]), confidence)
    told = _Told(gap, since, risen, helped, known["best_step"], float(curve.nll[best]), epochs[-1])
    return Memorising(told.verdict, told.sentence, widened=gap.widened if gap else None, **known)


@dataclass(frozen=True, slots=True)
class _Gap:
    """How much more training rows gained than held-out rows, from one of their passes to another."""

    widened: tuple[float, float, float]
    """With its interval."""
    train: Difference
    heldout: Difference

    @property
    def enough(self) -> bool:
        return self.train.enough and self.heldout.enough

    @property
    def sure(self) -> bool:
        """Whether it is told from noise."""
        return self.enough and self.widened[1] > 0

    @property
    def fell(self) -> bool:
        """Whether the loss of training rows did."""
        return self.train.verdict(lower_is_better=True) == "better"


@dataclass(frozen=True, slots=True)
class _Told:
    """What the verdict is made from."""

    gap: _Gap
    """From the first pass to the last."""
    since: _Gap | None
    """From the pass at the best step to the last, where a whole pass lies between."""
    risen: Difference | None
    helped: Difference
    best_step: int
    best_nll: float
    last: Epoch

    @property
    def up(self) -> bool:
        worse = self.risen is not None and self.risen.verdict(lower_is_better=True) == "worse"
        return worse and (self.since is None or self.since.fell)

    @property
    def only_by_heart(self) -> bool:
        return self.since is not None and self.since.sure and self.since.fell

    @property
    def verdict(self) -> bool:
        helped = self.helped.verdict(lower_is_better=True) == "better"
        return self.gap.sure and (self.up or self.only_by_heart or not helped)

    @property
    def lowest(self) -> str:
        return f"after step {self.best_step:,}" if self.best_step else "before the first step"

    @property
    def sentence(self) -> str:
        more, low, high = self.gap.widened
        gained = f"{more:.3f} nats per token ({self.helped.confidence:.0%} interval {low:.3f} to {high:.3f})"
        if not self.gap.enough:
            return f"Too few examples to tell memorising from noise: the gap changed by {more:+.3f} nats per token."
        if not self.gap.sure:
            return (
                f"No memorising that can be told from noise: from the first pass to the last, training rows gained "
                f"{more:+.3f} nats per token more than held-out rows (interval {low:+.3f} to {high:+.3f})."
            )
        if self.verdict and self.up and self.risen is not None:
            low, high = self.risen.interval
            return (
                f"The model memorises its rows: the held-out loss was lowest {self.lowest} "
                f"({self.best_nll:.3f}) and has risen by {self.risen.difference:.3f} since (interval {low:.3f} to "
                f"{high:.3f}), while that of training rows fell to {self.last.train_nll:.3f}."
            )
        if self.only_by_heart and self.since is not None:
            return (
                f"The model memorises its rows: the held-out loss was lowest {self.lowest} "
                f"({self.best_nll:.3f}) and has not improved since, while training rows gained another "
                f"{-self.since.train.difference:.3f} nats per token, down to {self.last.train_nll:.3f}."
            )
        if self.verdict:
            return (
                f"The model memorises its rows: from the first pass to the last, training rows gained {gained} more "
                f"than held-out rows, which have gained nothing that can be told from noise since the first pass."
            )
        return (
            f"Training rows gained {gained} more than held-out rows, which gained too since the first pass "
            f"({self.helped.difference:+.3f}): not memorising alone."
        )


def _epoch(passes: Passes, curve: Curve, epoch: int) -> Epoch:
    mine = passes.epoch == epoch
    weights = passes.weight[mine]
    train = float(passes.nll[mine].sum() / weights.sum())
    total = curve.weights.sum()
    heldout = float(curve.mean(passes.step[mine] - 1, weights).sum() / total)
    end = float(curve.at(passes.step[mine].max()).sum() / total)
    return Epoch(epoch, train, heldout, heldout - train, end)


def _gap(passes: Passes, curve: Curve, first: Ints, last: Ints, confidence: float) -> _Gap | None:
    """How the gap changed between two passes of the same examples; None without any.

    Training and held-out examples are two samples: the interval of the difference of their changes is put together
    from the two by the method of variance estimates recovery (Zou and Donner 2008, Statistics in Medicine 27).
    """
    if not len(first):
        return None
    chosen = np.unique(np.linspace(0, len(first) - 1, MOST).astype(np.int64))
    first, last = first[chosen], last[chosen]
    weights = (passes.weight[first] + passes.weight[last]) / 2  # Renderings may differ.
    before, after = (passes.loss[end] * weights for end in (first, last))
    train = paired_ratio(before, after, weights, confidence=confidence)
    references = [curve.mean(passes.step[end] - 1, weights) for end in (first, last)]
    heldout = curve.change(references[0], references[1], confidence)
    change = heldout.difference - train.difference
    low = change - math.hypot(heldout.difference - heldout.interval[0], train.interval[1] - train.difference)
    high = change + math.hypot(heldout.interval[1] - heldout.difference, train.difference - train.interval[0])
    return _Gap((change, low, high), train, heldout)


def _since(passes: Passes, best_step: int) -> tuple[Ints, Ints]:
    """Where the pass at the best step and the last one stand of each example; nothing without a whole pass since."""
    nothing = np.zeros(0, dtype=np.int64)
    steps_of_epoch = max(len(np.unique(passes.step[passes.epoch == epoch])) for epoch in np.unique(passes.epoch))
    if int(passes.step.max()) - best_step < steps_of_epoch:
        return nothing, nothing
    first, last = passes.ends
    order = np.lexsort((np.arange(len(passes)), passes.example))
    until = order[passes.step[order] <= best_step]
    newest = dict(zip(passes.example[until].tolist(), until.tolist(), strict=True))  # the last one of each stays
    at_best = np.array([newest.get(int(passes.example[place]), int(place)) for place in first], dtype=np.int64)
    return at_best, last


def _once(risen: Difference | None, best_step: int) -> str:
    """The sentence for a run that saw each row once."""
    text = "Each row was trained on once, so none can have been learned by repeating it."
    if risen is not None and risen.verdict(lower_is_better=True) == "worse":
        text += f" The held-out loss has risen by {risen.difference:.3f} nats per token since step {best_step:,}."
    return text
