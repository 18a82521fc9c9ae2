"""The held-out loss of a run by step, between two measurements on the straight line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluate.compare import Difference, paired_ratio
from tutelage.evaluate.passes import Floats, Ints

Measurement = tuple[int, Floats, Floats]
"""(step, sums, weights): of each held-out example the weighted sum of nll, and the sum of its weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The held-out loss by step."""

    steps: Ints
    sums: Floats
    """(measurements, rows), in nats."""
    weights: Floats

    @staticmethod
    def of(heldout: Sequence[Measurement], rows: Ints | None) -> Curve | None:
        """From the measurements of a run, in any order; None without any. `rows` names the row of each example."""
        known: dict[int, Measurement] = {}
        for one in sorted(heldout, key=lambda one: one[0]):
            if len(one[1]) and np.isfinite(one[1]).all():
                known.setdefault(one[0], one)
        if not known:
            return None
        weights = next(iter(known.values()))[2]
        owner = np.arange(len(weights)) if rows is None else np.unique(rows, return_inverse=True)[1]
        sums = np.array([np.bincount(owner, weights=one[1]) for one in known.values()])
        return Curve(np.array(list(known), dtype=np.int64), sums, np.bincount(owner, weights=weights))

    @property
    def nll(self) -> Floats:
        """Of each measurement, in nats per token."""
        found: Floats = self.sums.sum(axis=1) / self.weights.sum()
        return found

    def at(self, step: float) -> Floats:
        """The sums after so many steps, on a straight line between two measurements."""
        return self.mean(np.array([step], dtype=np.float64), np.ones(1))

    def soon_after(self, step: int) -> int:
        """Which measurement is the first that is not before a step, the last one aside; else the one before that."""
        place = int(np.searchsorted(self.steps, step))
        return min(place, max(0, len(self.steps) - 2))

    def mean(self, steps: NDArray[Any], weights: Floats) -> Floats:
        """The weighted mean of the sums after these numbers of steps."""
        place = np.interp(steps, self.steps, np.arange(len(self.steps)))
        below = np.floor(place).astype(np.int64)
        above, part = np.minimum(below + 1, len(self.steps) - 1), place - below
        shares = np.zeros(len(self.steps))
        np.add.at(shares, below, weights * (1 - part))
        np.add.at(shares, above, weights * part)
        found: Floats = shares @ self.sums / weights.sum()
        return found

    def change(self, before: Floats, after: Floats, confidence: float) -> Difference:
        """From one set of sums to another."""
        return paired_ratio(before, after, self.weights, confidence=confidence)
