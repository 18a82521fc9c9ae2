"""Paired differences: a case worked by hand, coverage by simulation, and intervals of proportions as published."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tutelage.evaluate import compare
from tutelage.evaluate.compare import Difference, loss_sentence, paired_means, paired_ratio, score_sentence, wilson
from tutelage.evaluate.statistics import wins


def test_four_rows_by_hand():
    """Changes of -1, 0, 1 and 4 have mean 1, deviation 2.160 and standard error 1.080; t for 3 degrees is 3.182.

    Hall's interval reaches further up, because they are skewed to the right; Student's reaches further down.
    """
    change = np.array([-1.0, 0.0, 1.0, 4.0])
    found = paired_ratio(np.full(4, 2.0), change + 2.0, np.ones(4), confidence=0.95)
    assert (found.base, found.tuned, found.difference, found.n) == (2.0, 3.0, 1.0, 4)
    assert found.interval[0] == pytest.approx(1 - 3.18245 * 1.08012, abs=1e-4)
    assert found.interval[1] > 1 + 3.18245 * 1.08012 + 0.5
    assert found.chance == pytest.approx(0.4228, abs=1e-4)


def test_symmetric_changes_have_students_interval():
    change = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    low, high = paired_ratio(np.zeros(5), change, np.ones(5), confidence=0.95).interval
    assert (low, high) == pytest.approx((-2.7764 * 1.5811 / 5**0.5, 2.7764 * 1.5811 / 5**0.5), abs=1e-3)


def test_two_rows_against_every_draw():
    """Of two rows a draw holds (a, a), (a, b), (b, a) or (b, b): -1, -0.5, -0.5 and -0.25 in tokens' mean."""
    change, weights = np.array([-1.0, -0.5]), np.array([1.0, 2.0])
    assert compare._resampled(change, weights, 0.95, 0) == pytest.approx((-1.0, -0.25))
    found = paired_ratio(np.array([2.0, 4.0]), np.array([1.0, 3.5]), weights, confidence=0.95)
    assert (found.base, found.tuned) == (2.0, 1.5)
    assert found.difference == pytest.approx(-0.5)


def test_three_rows_against_every_draw():
    """The 27 draws of three rows, each as likely: their quantiles are the resampled interval's ends."""
    change, weights = np.array([-3.0, 1.0, 0.5]), np.array([4.0, 2.0, 1.0])
    draws = [change[list(i)].sum() / weights[list(i)].sum() for i in itertools.product(range(3), repeat=3)]
    assert compare._resampled(change, weights, 0.8, 0) == pytest.approx(tuple(np.percentile(draws, [10, 90])), abs=0.06)


def test_examples_are_drawn_not_tokens():
    """One long example that got worse outweighs many short ones, and the interval knows that it is one."""
    weights = np.array([1000.0, *[1.0] * 50])
    change = np.array([500.0, *[-0.1] * 50])
    found = paired_ratio(np.zeros(51), change, weights, confidence=0.95)
    assert found.difference > 0
    assert found.interval[0] < 0 < found.interval[1]
    assert found.verdict(lower_is_better=True) == "no difference"


def normal(rng, n):
    return rng.normal(0.2, 1.0, n), np.ones(n), 0.2


def skewed(rng, n):
    return rng.exponential(1.0, n) - 0.8, np.ones(n), 0.2


def ratio(rng, n):
    weights = rng.integers(5, 60, n).astype(float)
    return weights * (rng.normal(-0.1, 0.4, n)), weights, -0.1


def conversations(rng, n):
    """One to five rows each, which have more in common with each other than with other conversations."""
    sizes = rng.integers(1, 6, n)
    return sizes * rng.normal(0.1, 0.5, n) + rng.normal(0.0, 0.5, n) * np.sqrt(sizes), sizes.astype(float), 0.1


@pytest.mark.parametrize("made", [normal, skewed, ratio, conversations])
@pytest.mark.parametrize("n", [10, 20, 100, 500])
def test_coverage_is_what_it_says(made, n, monkeypatch):
    """Of 1,500 sets of rows drawn anew, 93 to 97 % of the intervals hold the truth, but for chance."""
    monkeypatch.setattr(compare, "DRAWS", 200)
    rng = np.random.default_rng([1, n])
    held, sets = 0, 1500 if n < 100 else 400
    for _ in range(sets):
        change, weights, truth = made(rng, n)
        low, high = paired_ratio(np.zeros(n), change, weights, confidence=0.95).interval
        held += low <= truth <= high
    noise = 2 * (0.95 * 0.05 / sets) ** 0.5
    assert 0.93 - noise <= held / sets <= 0.97 + noise


@pytest.mark.parametrize("n", [10, 20, 50, 200, 500])
@pytest.mark.parametrize(("base", "tuned"), [(0.3, 0.5), (0.5, 0.5), (0.8, 0.9)])
def test_coverage_of_shares_is_what_it_says(base, tuned, n):
    """Right or wrong, with rows that are hard for both; intervals of whole numbers may hold it more often."""
    rng = np.random.default_rng([2, n])
    held, sets = 0, 2000
    for _ in range(sets):
        one = rng.random(n)
        other = np.where(rng.random(n) < 0.4, one, rng.random(n))
        found = paired_ratio((one < base).astype(float), (other < tuned).astype(float), np.ones(n), confidence=0.95)
        low, high = found.interval
        held += low <= tuned - base <= high
    assert held / sets >= 0.935
    if n >= 50:
        assert held / sets <= 0.975


def test_rows_of_one_conversation_are_one_draw():
    """Ten conversations of ten equal rows each know no more than ten rows."""
    rng = np.random.default_rng(5)
    alone = rng.normal(0.3, 1.0, 10)
    once = paired_means(np.zeros(10), alone, confidence=0.95)
    rows = np.repeat(alone, 10)
    clusters = np.repeat(np.arange(10), 10).tolist()
    found = paired_means(np.zeros(100), rows, confidence=0.95, clusters=clusters)
    assert found.n == 10
    assert found.interval == pytest.approx(once.interval)
    apart = paired_means(np.zeros(100), rows, confidence=0.95)
    assert apart.interval[1] - apart.interval[0] < 0.5 * (found.interval[1] - found.interval[0])


def test_right_and_wrong_need_mcnemar():
    """Five won and none lost happen by chance in one of sixteen cases, however narrow the interval is."""
    base, tuned = np.zeros(40), np.zeros(40)
    tuned[:5] = 1
    found = paired_ratio(base, tuned, np.ones(40), confidence=0.95)
    assert found.interval[0] > 0
    assert found.chance == pytest.approx(0.0625)
    assert found.verdict(lower_is_better=False) == "no difference"
    tuned[5] = 1
    found = paired_ratio(base, tuned, np.ones(40), confidence=0.95)
    assert found.chance == pytest.approx(0.03125)
    assert found.verdict(lower_is_better=False) == "better"


def test_the_sentence_of_a_task():
    base, tuned = np.array([0.0] * 20 + [1.0] * 20), np.ones(40)
    tuned[-1] = 0
    found = paired_means(base, tuned, confidence=0.95)
    said = score_sentence("gsm8k", found, tally=wins(base, tuned))
    assert said.startswith("gsm8k: the tuned model is better: 50.0 % -> 97.5 % (+47.5 points, 95% interval +")
    assert said.endswith("n = 40; 20 won, 1 lost, 19 the same).")
    same = score_sentence("gsm8k", paired_means(base, base, confidence=0.95))
    assert same.startswith("gsm8k: no difference that can be told from noise: 50.0 % -> 50.0 % (+0.0 points")
    assert "So many rows show a difference of " in same
    few = score_sentence("rouge", paired_means([0.5] * 3, [0.75] * 3, confidence=0.95), share=False)
    assert few.startswith("rouge: too few rows to tell a difference from noise: 0.500 -> 0.750 (+0.250, ")


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
