"""Is it better? Paired differences with intervals, and the sentence that says what they mean.

What is drawn anew in another set of rows is an example, or a whole conversation, never a token: tokens of one answer
are not independent. Base and tuned are measured on the same examples, so that what is hard for both falls out.

The interval of a mean is the hull of three, because each fails somewhere by itself: Student's, which is too short for
skewed scores; Hall's, which corrects it for skewness (Hall 1992, "On the removal of skewness by transformation",
J. R. Stat. Soc. B 54) and is too short on the other side; and percentiles of resampled means (Efron and Tibshirani
1993, chapter 13), which see that one long example decides a ratio, and hold the truth in 91 % of all cases with ten
examples where they say 95. Shares of right answers have an interval of their own, and no verdict without McNemar's
test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluate.statistics import (
    Wins,
    detectable,
    mcnemar,
    paired_proportions,
    student,
    student_tail,
)

DRAWS = 2000
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
    """Examples, or conversations where several examples come from one."""
    chance: float | None = None
    """How likely a difference so far from nothing is where there is none: McNemar's test, or Student's."""
    detectable: float | None = None
    """The smallest true difference that so many rows would show four times out of five; None where it is unknown."""

    @property
    def enough(self) -> bool:
        """Whether so few examples can tell anything: without an effect, n go to one side in 2^(1-n) of all cases."""
        return 2.0 ** (1 - self.n) <= 1 - self.confidence

    def verdict(self, *, lower_is_better: bool) -> Verdict:
        """What the interval allows to be said."""
        low, high = self.interval
        if not (math.isfinite(self.base) and math.isfinite(self.tuned)):
            sound = math.isfinite(self.tuned) - math.isfinite(self.base)  # What is no number is worse than any.
            return "better" if sound > 0 else "worse" if sound < 0 else "no difference"
        by_chance = self.chance is not None and self.chance > 1 - self.confidence
        if low <= 0.0 <= high or by_chance or not self.enough:
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
    """Difference of sum(tuned) / sum(weights) and sum(base) / sum(weights), each example a draw of its own.

    Shapes: (examples,) each. With weights of 1 it is a difference of means; with answers that are right (1) or wrong
    (0), of shares.
    """
    n = len(weights)
    assert n > 0, "bug: nothing to compare"
    total = weights.sum()
    if not (np.isfinite(base).all() and np.isfinite(tuned).all()):
        return _no_number(float(base.sum() / total), float(tuned.sum() / total), confidence, n)
    difference = float((tuned - base).sum() / total)
    if _right_or_wrong(base, tuned, weights):
        won, lost = int((tuned > base).sum()), int((tuned < base).sum())
        interval = paired_proportions(won, lost, n, confidence)
        chance = mcnemar(won, lost)
        deviation = math.sqrt(max((won + lost + 2) / (n + 2) - difference**2, 0.0))
    else:
        # What each example adds to the ratio's error, to first order.
        errors = (tuned - base - difference * weights) / (total / n)
        interval, chance = _interval(difference, errors, confidence)
        low, high = _resampled(tuned - base, weights, confidence, seed)
        interval = (min(interval[0], low), max(interval[1], high))
        deviation = float(errors.std(ddof=1)) if n > 1 else math.inf
    least = detectable(deviation, n, confidence)
    return Difference(
        base=float(base.sum() / total),
        tuned=float(tuned.sum() / total),
        difference=difference,
        interval=interval,
        confidence=confidence,
        n=n,
        chance=chance,
        detectable=least if math.isfinite(least) else None,
    )


def _no_number(base: float, tuned: float, confidence: float, n: int) -> Difference:
    """Of a loss that is no number, which no chance explains where the other one is."""
    chance = 0.0 if math.isfinite(base) != math.isfinite(tuned) else 1.0
    return Difference(base, tuned, math.nan, (math.nan, math.nan), confidence, n, chance)


def paired_means(
    base: Sequence[float] | NDArray[np.float64],
    tuned: Sequence[float] | NDArray[np.float64],
    *,
    confidence: float,
    clusters: Sequence[object] | None = None,
) -> Difference:
    """Difference of the rows' mean scores. Rows of one cluster, such as a conversation, count as one draw."""
    one, other = np.asarray(base, dtype=float), np.asarray(tuned, dtype=float)
    weights = np.ones(len(one))
    if clusters is not None:
        names = list(dict.fromkeys(clusters))
        place = {name: number for number, name in enumerate(names)}
        owner = np.array([place[name] for name in clusters], dtype=np.int64)
        one, other = np.bincount(owner, weights=one), np.bincount(owner, weights=other)
        weights = np.bincount(owner).astype(float)
    return paired_ratio(one, other, weights, confidence=confidence)


def _right_or_wrong(base: NDArray[np.float64], tuned: NDArray[np.float64], weights: NDArray[np.float64]) -> bool:
    scores = np.concatenate([base, tuned])
    return bool((weights == 1).all() and ((scores == 0) | (scores == 1)).all())


def _interval(difference: float, errors: NDArray[np.float64], confidence: float) -> tuple[tuple[float, float], float]:
    """The interval around a difference, and its chance; of no width where all examples say the same."""
    n = len(errors)
    scale = float(np.abs(errors).max())
    # Errors of rounding alone are none.
    if n < 2 or scale <= 1e-12 * max(abs(difference), 1e-300):
        return (difference, difference), 1.0 if difference == 0 or n < 2 else 0.0
    deviation = float(errors.std(ddof=1))
    standard = deviation / math.sqrt(n)
    reach = student(0.5 + confidence / 2, n - 1)
    skewness = float((errors**3).mean()) / float((errors**2).mean()) ** 1.5
    low = max(reach, _unskewed(reach, skewness, n))
    high = min(-reach, _unskewed(-reach, skewness, n))
    chance = student_tail(difference / standard, n - 1)
    return (difference - low * standard, difference - high * standard), chance


def _unskewed(reach: float, skewness: float, n: int) -> float:
    """The t value that Hall's cubic transformation takes to `reach`."""
    third, root = skewness / 3, math.sqrt(n)
    if abs(third) < 1e-9:
        return reach
    return float(root / third * (np.cbrt(1 + 3 * third * (reach - skewness / (6 * root)) / root) - 1))


def _resampled(
    change: NDArray[np.float64], weights: NDArray[np.float64], confidence: float, seed: int
) -> tuple[float, float]:
    """Percentiles of the ratio over examples drawn with replacement; equal arguments give equal ones."""
    n = len(weights)
    rng = np.random.Generator(np.random.PCG64([seed, n]))
    draws = []
    per_round = max(1, _AT_ONCE // n)
    for start in range(0, DRAWS, per_round):
        chosen = rng.integers(n, size=(min(per_round, DRAWS - start), n))
        draws.append(change[chosen].sum(axis=1) / weights[chosen].sum(axis=1))
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.concatenate(draws), [tail, 100 - tail])
    return float(low), float(high)


def score_sentence(
    name: str, score: Difference, *, lower_is_better: bool = False, share: bool = True, tally: Wins | None = None
) -> str:
    """The verdict on a task, in words. `share`: the scores are shares, and are shown in percent."""
    low, high = score.interval

    def shown(value: float, signed: bool = False) -> str:
        sign = "+" if signed else ""
        return f"{100 * value:{sign}.1f}" if share else f"{value:{sign}.3f}"

    unit = " points" if share else ""
    numbers = (
        f"{shown(score.base)}{' %' if share else ''} -> {shown(score.tuned)}{' %' if share else ''} "
        f"({shown(score.difference, True)}{unit}, {score.confidence:.0%} interval {shown(low, True)} to "
        f"{shown(high, True)}; n = {score.n:,}"
    )
    if tally is not None:
        numbers += f"; {len(tally.won):,} won, {len(tally.lost):,} lost, {tally.tied:,} the same"
    numbers += ")"
    verdict = score.verdict(lower_is_better=lower_is_better)
    if not score.enough:
        return f"{name}: too few rows to tell a difference from noise: {numbers}."
    if verdict == "no difference":
        least = f" So many rows show a difference of {shown(score.detectable)}{unit}." if score.detectable else ""
        return f"{name}: no difference that can be told from noise: {numbers}.{least}"
    return f"{name}: the tuned model is {verdict}: {numbers}."


def loss_sentence(loss: Difference, tokens: int) -> str:
    """The verdict on held-out loss, in words."""
    low, high = loss.interval
    numbers = (
        f"held-out loss {loss.base:.3f} -> {loss.tuned:.3f} nats per token "
        f"({loss.difference:+.3f}, {loss.confidence:.0%} interval {low:+.3f} to {high:+.3f}; "
        f"{loss.n:,} examples, {tokens:,} tokens)"
    )
    verdict = loss.verdict(lower_is_better=True)
    if not math.isfinite(loss.tuned):
        return f"The held-out loss of the tuned model is no number ({loss.base:.3f} before; {loss.n:,} examples)."
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
