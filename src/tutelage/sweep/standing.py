"""Which setting is best, by how much, and whether so few held-out rows and seeds can tell.

Settings are compared on the same held-out rows, at a place that both came to: one that was left behind at a third of
its steps with what the winner was at a third of its own. A difference counts as told where chance would make one so
far from nothing too rarely, by the rows and, where there are several seeds, by the seeds as well, among all settings
together (Holm).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluate.compare import Difference, paired_ratio
from tutelage.evaluate.statistics import POWER, holm, rows_needed, student_tail
from tutelage.sweep.trial import Losses, Name

MOST_ROWS = 10_000_000
"""No one holds out more; what would take more is said to."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a setting was measured as at one place: the mean over its seeds, by held-out row."""

    names: tuple[Name, ...]
    places: tuple[Name, ...]
    sums: NDArray[np.float64]
    weights: NDArray[np.float64]
    seeds: tuple[float, ...]
    """The loss with each seed."""

    @property
    def nll(self) -> float:
        """Nats per token."""
        return float(self.sums.sum() / self.weights.sum())

    @property
    def variance(self) -> float | None:
        """Over seeds."""
        if len(self.seeds) < 2:
            return None
        middle = fmean(self.seeds)
        return sum((loss - middle) ** 2 for loss in self.seeds) / (len(self.seeds) - 1)


def mark(losses: Sequence[Losses]) -> Mark:
    """Of the runs of one setting, which were measured on the same rows."""
    first = losses[0]
    assert all(one.names == first.names for one in losses), "bug: seeds of one setting with other held-out rows"
    sums = np.mean([one.sums for one in losses], axis=0)
    return Mark(first.names, first.places, sums, first.weights, tuple(one.nll for one in losses))


@dataclass(frozen=True, slots=True)
class Gap:
    """A setting against the winner, where both were measured."""

    rows: Difference
    """By the held-out rows: the winner is the base, the other one the tuned."""
    by_seeds: float | None
    """The chance of such a difference between seeds alone; None where there is one seed."""
    needed: int | None
    """Held-out rows that would tell it; None where there is no difference, or where it would be too many."""

    @property
    def chance(self) -> float:
        """The larger one of both."""
        by_rows = 1.0 if self.rows.chance is None or not self.rows.enough else self.rows.chance
        return max(by_rows, self.by_seeds or 0.0)


def gap(winner: Mark, other: Mark, *, confidence: float, variances: Sequence[float] = ()) -> Gap | None:
    """The other one minus the winner; None where they share no held-out row.

    `variances` over seeds, of every setting at this place, are taken together: two seeds alone say little.
    """
    base, tuned, weights = _paired(winner, other)
    if not len(weights):
        return None
    rows = paired_ratio(base, tuned, weights, confidence=confidence)
    by_seeds = None
    if len(winner.seeds) > 1 and len(other.seeds) > 1 and variances:
        freedom = len(variances) * (len(winner.seeds) - 1)
        error = math.sqrt(fmean(variances) * (1 / len(winner.seeds) + 1 / len(other.seeds)))
        by_seeds = student_tail(rows.difference / error, freedom) if error > 0 else 0.0
    return Gap(rows, by_seeds, _needed(base, tuned, weights, rows))


def _paired(one: Mark, other: Mark) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Sums of both and weights of the rows that both have; examples of one conversation are added up."""
    place = {name: number for number, name in enumerate(other.names)}
    both = [(mine, place[name]) for mine, name in enumerate(one.names) if name in place]
    mine, theirs = (np.array([pair[side] for pair in both], dtype=np.int64) for side in (0, 1))
    same = np.isclose(one.weights[mine], other.weights[theirs])
    mine, theirs = mine[same], theirs[same]
    number: dict[Name, int] = {}
    owner = np.array([number.setdefault(one.places[at], len(number)) for at in mine], dtype=np.int64)

    def added(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(owner, weights=values).astype(np.float64)

    return added(one.sums[mine]), added(other.sums[theirs]), added(one.weights[mine])


def _needed(
    base: NDArray[np.float64], tuned: NDArray[np.float64], weights: NDArray[np.float64], found: Difference
) -> int | None:
    n = len(weights)
    if n < 2 or found.difference == 0 or not math.isfinite(found.difference):
        return None
    errors = (tuned - base - found.difference * weights) / (weights.sum() / n)
    deviation = float(errors.std(ddof=1))
    normal = NormalDist()
    errors_apart = normal.inv_cdf(0.5 + found.confidence / 2) + normal.inv_cdf(POWER)
    about = (errors_apart * deviation / found.difference) ** 2
    if about > MOST_ROWS:
        return None
    # Of so many rows Student's distribution is the normal one, and counting to them takes long.
    return math.ceil(about) if about > 1000 else rows_needed(deviation, found.difference, found.confidence)


def told(gaps: dict[str, Gap], confidence: float) -> dict[str, float]:
    """The chance of each difference among all of them (Holm); told are those below 1 - confidence."""
    return holm({name: one.chance for name, one in gaps.items()})
