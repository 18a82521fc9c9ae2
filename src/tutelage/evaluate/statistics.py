"""What can be said of paired scores: right against wrong, many comparisons at once, and what n can show at all."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

POWER = 0.8
"""How often a difference of the smallest size that counts as detectable would be found."""


@dataclass(frozen=True, slots=True)
class Wins:
    """Rows by who does better on them; the numbers are places in what was compared."""

    won: tuple[int, ...]
    """Rows on which the tuned model does better, the largest gain first."""
    lost: tuple[int, ...]
    """Rows on which it does worse, the largest loss first."""
    tied: int


def wins(
    base: NDArray[np.float64], tuned: NDArray[np.float64], *, lower_is_better: bool = False, least: float = 0.0
) -> Wins:
    """Who does better on each row; a difference of `least` or less is a tie."""
    gain = (base - tuned) if lower_is_better else (tuned - base)
    order = np.argsort(-gain, kind="stable")
    won = tuple(int(row) for row in order if gain[row] > least)
    lost = tuple(int(row) for row in order[::-1] if gain[row] < -least)
    return Wins(won, lost, len(gain) - len(won) - len(lost))


def mcnemar(won: int, lost: int) -> float:
    """The probability of rows that differ falling this unevenly, or more so, if neither model were better.

    Exact and two-sided: each row on which one is right and the other wrong is a fair coin (McNemar 1947).
    """
    n, fewer = won + lost, min(won, lost)
    if n <= 1000:
        return float(min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n))
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)]
    top = max(logs)
    return min(1.0, 2 * math.exp(top - n * math.log(2)) * sum(math.exp(value - top) for value in logs))


def paired_proportions(won: int, lost: int, n: int, confidence: float) -> tuple[float, float]:
    """The interval of a difference of two shares on the same rows (Bonett and Price 2012, formula 6).

    One row is added to those won and one to those lost. It covers what it says from a few rows on, also where all
    rows agree, where an interval from resampling has no width.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    more, fewer = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    middle = more - fewer
    half = z * math.sqrt((more + fewer - middle * middle) / (n + 2))
    return max(-1.0, middle - half), min(1.0, middle + half)


@functools.cache
def student(p: float, freedom: int) -> float:
    """The quantile of Student's t distribution, by bisection of its distribution function."""
    if p < 0.5:
        return -student(1 - p, freedom)
    low, high = 0.0, 1.0
    while _student_below(high, freedom) < p:
        high *= 2
        if high > 1e12:
            return high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_below(middle, freedom) < p else (low, middle)
    return (low + high) / 2


def student_tail(t: float, freedom: int) -> float:
    """The probability of a value at least so far from 0, on either side."""
    return min(1.0, 2 * (1 - _student_below(abs(t), freedom)))


def _student_below(t: float, freedom: int) -> float:
    """The distribution function at t >= 0: finite sums (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    if freedom > 2000:  # what is left of the difference to the normal distribution, to first order (26.7.8)
        return NormalDist().cdf(t * (1 - 1 / (4 * freedom)) / math.sqrt(1 + t * t / (2 * freedom)))
    angle = math.atan2(t, math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    if freedom % 2:
        term, total = math.cos(angle), 0.0
        for k in range(3, freedom + 1, 2):
            total += term
            term *= square * (k - 1) / k
        return 0.5 + (angle + sine * total) / math.pi
    term, total = 1.0, 0.0
    for k in range(2, freedom + 1, 2):
        total += term
        term *= square * (k - 1) / k
    return 0.5 + sine * total / 2


def holm(chances: Mapping[str, float]) -> dict[str, float]:
    """Each chance, adjusted for how many there are (Holm 1979): compare with 1 - confidence as if it were alone.

    The chance that any of the tasks without an effect seems to have one is then at most 1 - confidence.
    """
    adjusted, reached = {}, 0.0
    for place, (name, chance) in enumerate(sorted(chances.items(), key=lambda item: item[1])):
        reached = max(reached, min(1.0, chance * (len(chances) - place)))
        adjusted[name] = reached
    return {name: adjusted[name] for name in chances}


def detectable(deviation: float, n: int, confidence: float) -> float:
    """The smallest true difference that so many rows would show four times out of five.

    `deviation` is the standard deviation of the rows' differences.
    """
    if n < 2:
        return math.inf
    reach = student(0.5 + confidence / 2, n - 1) + student(POWER, n - 1)
    return reach * deviation / math.sqrt(n)


def rows_needed(deviation: float, difference: float, confidence: float) -> int:
    """How many rows would show a true difference of this size four times out of five."""
    if difference == 0 or not math.isfinite(difference):
        raise ValueError("a difference of nothing is never shown")
    n = 2
    while detectable(deviation, n, confidence) > abs(difference):
        n = max(n + 1, int(n * 1.1))
    while n > 2 and detectable(deviation, n - 1, confidence) <= abs(difference):
        n -= 1
    return n


def many_note(verdicts: Mapping[str, float], confidence: float) -> str:
    """What to say where several tasks are compared at once; empty for one task.

    `verdicts` gives each task's chance, as `mcnemar` or a t test has it.
    """
    if len(verdicts) < 2:
        return ""
    alone = [name for name, chance in verdicts.items() if chance < 1 - confidence]
    together = [name for name, chance in holm(verdicts).items() if chance < 1 - confidence]
    lost = [name for name in alone if name not in together]
    expected = len(verdicts) * (1 - confidence)
    text = (
        f"{len(verdicts)} tasks are compared: without any effect, {expected:.2g} of them would seem to have one at "
        f"{confidence:.0%}. "
    )
    if not alone:
        return text + "None does."
    if lost:
        return text + f"By Holm's correction {_listed(lost)} cannot be told from noise any more."
    return text + f"By Holm's correction {_listed(together)} still {'does' if len(together) == 1 else 'do'}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
