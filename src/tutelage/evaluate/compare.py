"""Is it better? Paired differences with bootstrap intervals, and the sentence that says what they mean.

The bootstrap draws examples, not tokens: tokens of one answer are not independent (Efron and Tibshirani 1993,
chapter 8). Base and tuned are measured on the same examples, so each draw holds both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

DRAWS = 4000
_AT_ONCE = 1_000_000

Verdict = Literal["better", "worse", "no difference"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Tuned minus base, in the unit of what is compared, with the ends of its interval."""

    base: float
    tuned: float
    difference: float
    interval: tuple[float, float]
    confidence: float
    n: int

    @property
    def enough(self) -> bool:
        """Whether so few examples can tell anything: without an effect, n go to one side in 2^(1-n) of all cases."""
        return 2.0 ** (1 - self.n) <= 1 - self.confidence

    def verdict(self, *, lower_is_better: bool) -> Verdict:
        """What the interval allows to be said."""
        low, high = self.interval
        if low <= 0.0 <= high or not self.enough:
            return "no difference"
        return "better" if (high < 0.0) == lower_is_better else "worse"


def paired_ratio(
    base: NDArray[np.float64],
    tuned: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    confidence: float,
    seed: int = 0,
) -> Difference:
    """Difference of sum(tuned) / sum(weights) and sum(base) / sum(weights), resampling examples.

    Shapes: (examples,) each. With weights of 1 it is a difference of means.
    """
    n = len(weights)
    assert n > 0, "bug: nothing to compare"
    total = weights.sum()
    change = tuned - base
    rng = np.random.Generator(np.random.PCG64([seed, n]))
    draws = []
    per_round = max(1, _AT_ONCE // n)
    for start in range(0, DRAWS, per_round):
        chosen = rng.integers(n, size=(min(per_round, DRAWS - start), n))
        draws.append(change[chosen].sum(axis=1) / weights[chosen].sum(axis=1))
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.concatenate(draws), [tail, 100 - tail])
    return Difference(
        base=float(base.sum() / total),
        tuned=float(tuned.sum() / total),
        difference=float(change.sum() / total),
        interval=(float(low), float(high)),
        confidence=confidence,
        n=n,
    )


def loss_sentence(loss: Difference, tokens: int) -> str:
    """The verdict on held-out loss, in words."""
    low, high = loss.interval
    numbers = (
        f"held-out loss {loss.base:.3f} -> {loss.tuned:.3f} nats per token "
        f"({loss.difference:+.3f}, {loss.confidence:.0%} interval {low:+.3f} to {high:+.3f}; "
        f"{loss.n:,} examples, {tokens:,} tokens)"
    )
    verdict = loss.verdict(lower_is_better=True)
    if not loss.enough:
        return f"Too few held-out examples to tell a difference from noise: {numbers}."
    if verdict == "no difference":
        return f"No difference that can be told from noise: {numbers}."
    return f"The tuned model is {verdict} on held-out rows: {numbers}."


def wilson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927), which stays inside 0 and 1 and is honest at 0 and n."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * ((share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5)
    return max(0.0, middle - half), min(1.0, middle + half)
