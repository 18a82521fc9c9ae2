"""Paired differences: a case worked by hand, coverage by simulation, and intervals of proportions as published."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tutelage.evaluate import compare
from tutelage.evaluate.compare import Difference, loss_sentence, paired_ratio, wilson


def test_two_rows_by_hand():
    """Of two rows a draw holds (a, a), (a, b), (b, a) or (b, b): -1, -0.5, -0.5 and -0.25 in tokens' mean."""
    base, tuned, weights = np.array([2.0, 4.0]), np.array([1.0, 3.5]), np.array([1.0, 2.0])
    found = paired_ratio(base, tuned, weights, confidence=0.95)
    assert (found.base, found.tuned) == (2.0, 1.5)
    assert found.difference == pytest.approx(-0.5)
    assert found.interval == pytest.approx((-1.0, -0.25))


def test_three_rows_against_every_draw():
    """The 27 draws of three rows, each as likely: their quantiles are the interval's ends."""
    change, weights = np.array([-3.0, 1.0, 0.5]), np.array([4.0, 2.0, 1.0])
    draws = [change[list(i)].sum() / weights[list(i)].sum() for i in itertools.product(range(3), repeat=3)]
    found = paired_ratio(np.zeros(3), change, weights, confidence=0.8)
    assert found.interval == pytest.approx(tuple(np.percentile(draws, [10, 90])), abs=0.06)


def test_examples_are_drawn_not_tokens():
    """One long example that got worse outweighs many short ones, and the interval knows that it is one."""
    weights = np.array([1000.0, *[1.0] * 50])
    change = np.array([500.0, *[-0.1] * 50])
    found = paired_ratio(np.zeros(51), change, weights, confidence=0.95)
    assert found.difference > 0
    assert found.interval[0] < 0 < found.interval[1]
    assert found.verdict(lower_is_better=True) == "no difference"


def test_coverage_is_what_it_says(monkeypatch):
    """400 sets of 100 rows with lengths and effects drawn anew: 93 to 97 % of the intervals hold the truth."""
    monkeypatch.setattr(compare, "DRAWS", 1000)
    rng = np.random.default_rng(1)
    truth, held = -0.1, 0
    for _ in range(400):
        weights = rng.integers(5, 60, 100).astype(float)
        base = weights * rng.gamma(4.0, 0.5, 100)
        tuned = base + weights * (truth + rng.normal(0.0, 0.4, 100))
        low, high = paired_ratio(base, tuned, weights, confidence=0.95).interval
        held += low <= truth <= high
    assert 0.93 <= held / 400 <= 0.97


def test_without_an_effect_it_seldom_finds_one(monkeypatch):
    monkeypatch.setattr(compare, "DRAWS", 1000)
    rng = np.random.default_rng(2)
    verdicts = []
    for _ in range(200):
        change = rng.normal(0.0, 1.0, 60)
        found = paired_ratio(np.zeros(60), change, np.ones(60), confidence=0.95)
        verdicts.append(found.verdict(lower_is_better=True))
    assert 1 <= sum(v != "no difference" for v in verdicts) <= 22
    assert {"better", "worse"} <= set(verdicts)


def test_the_same_input_gives_the_same_interval():
    base, tuned, weights = np.arange(9.0), np.arange(9.0) * 0.9, np.ones(9)
    one, two = (paired_ratio(base, tuned, weights, confidence=0.9) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_examples_never_make_a_verdict(n):
    """Five rows that all go one way do so by chance in one of sixteen cases."""
    found = paired_ratio(np.full(n, 2.0), np.full(n, 1.0), np.ones(n), confidence=0.95)
    assert found.verdict(lower_is_better=True) == "no difference"
    assert loss_sentence(found, n).startswith("Too few held-out examples")
    assert found.interval == (-1.0, -1.0)


def test_six_may():
    found = paired_ratio(np.full(6, 2.0), np.full(6, 1.0), np.ones(6), confidence=0.95)
    assert found.verdict(lower_is_better=True) == "better"
    assert found.verdict(lower_is_better=False) == "worse"


@pytest.mark.parametrize(
    ("interval", "verdict", "words"),
    [
        ((-0.3, -0.1), "better", "The tuned model is better on held-out rows: held-out loss 2.000 -> 1.800"),
        ((0.1, 0.3), "worse", "The tuned model is worse on held-out rows"),
        ((-0.3, 0.1), "no difference", "No difference that can be told from noise"),
        ((0.0, 0.3), "no difference", "No difference that can be told from noise"),
    ],
)
def test_the_sentence_says_the_verdict(interval, verdict, words):
    loss = Difference(2.0, 1.8, -0.2, interval, 0.95, 50)
    assert loss.verdict(lower_is_better=True) == verdict
    assert loss_sentence(loss, 1234).startswith(words)
    assert loss_sentence(loss, 1234).endswith("50 examples, 1,234 tokens).")
    assert "95% interval" in loss_sentence(loss, 1234)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(successes, n, low, high):
    """Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3."""
    assert wilson(successes, n, 0.95) == pytest.approx((low, high), abs=5e-5)


def test_wilson_stays_inside_and_is_symmetric():
    for n in (1, 2, 50):
        for k in range(n + 1):
            low, high = wilson(k, n, 0.95)
            assert 0.0 <= low <= k / n <= high <= 1.0
            assert wilson(n - k, n, 0.95) == pytest.approx((1 - high, 1 - low))
