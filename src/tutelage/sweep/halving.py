"""How far each setting goes before the better part of them goes on: successive halving.

After Jamieson and Talwalkar 2016 ("Non-stochastic best arm identification and hyperparameter optimization",
arXiv:1502.07943): all settings are trained for a share of their steps, the better part goes on. Each has the learning
rates of its full length from the first step, so a run that goes on is the run that it would have been alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

EARLIEST = 9
"""No setting is left behind before this part of its steps: one ninth."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A place at which runs are compared."""

    share: float
    """Of a run's steps."""
    settings: int
    """How many settings come this far."""

    def step(self, steps: int, warmup: int) -> int:
        """Of a run of so many steps; while the learning rate still rises, nothing can be told."""
        return min(steps, max(1, round(self.share * steps), warmup + 1))


def rungs(settings: int, halving: int | None) -> list[Rung]:
    """The places, the last at the end of the run. With `halving` one part in so many goes on from each."""
    depth = 0
    if halving is not None:
        while halving ** (depth + 1) <= min(settings, EARLIEST):
            depth += 1
    parts = [(halving or 1) ** place for place in range(depth + 1)]
    return [Rung(part / parts[-1], math.ceil(settings / part)) for part in parts]
