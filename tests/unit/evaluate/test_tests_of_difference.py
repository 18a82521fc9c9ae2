"""Tests, corrections and what n can show: against published values and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tutelage.evaluate.statistics import (
    detectable,
    holm,
    many_note,
    mcnemar,
    paired_proportions,
    rows_needed,
    student,
    student_tail,
    wins,
)


@pytest.mark.parametrize(
    ("p", "freedom", "value"),
    [
        (0.975, 1, 12.706205),
        (0.975, 2, 4.302653),
        (0.975, 9, 2.262157),
        (0.995, 10, 3.169273),
        (0.975, 120, 1.979930),
        (0.95, 4, 2.131847),
        (0.025, 9, -2.262157),
        (0.975, 5000, 1.960439),
    ],
)
def test_student_as_in_the_tables(p, freedom, value):
    assert student(p, freedom) == pytest.approx(value, abs=2e-6)
    assert student_tail(value, freedom) == pytest.approx(2 * min(p, 1 - p), abs=1e-6)


@pytest.mark.parametrize(
    ("won", "lost", "chance"),
    [(0, 0, 1.0), (1, 0, 1.0), (6, 0, 0.03125), (0, 6, 0.03125), (8, 1, 0.0390625), (5, 5, 1.0), (15, 5, 0.0413895)],
)
def test_mcnemar_is_a_fair_coin(won, lost, chance):
    assert mcnemar(won, lost) == pytest.approx(chance, abs=1e-6)


def test_mcnemar_of_many_rows_goes_on_as_it_began():
    """Beyond a thousand rows it is computed by logarithms; the two ways meet."""
    assert mcnemar(530, 470) == pytest.approx(2 * sum(math.comb(1000, k) for k in range(471)) / 2**1000)
    exact = 2 * sum(math.comb(1001, k) for k in range(471)) / 2**1001
    assert mcnemar(531, 470) == pytest.approx(exact, rel=1e-9)
    assert 0.0 <= mcnemar(30000, 0) < 1e-300


def test_mcnemar_seldom_finds_what_is_not_there():
    rng = np.random.default_rng(0)
    found = [mcnemar(k, 60 - k) < 0.05 for k in rng.binomial(60, 0.5, 3000)]
    assert 0.01 <= np.mean(found) <= 0.05


def test_proportions_by_hand():
    """Of 20 rows 6 won and 1 lost: 7/22 - 2/22, and its variance (9/22 - (5/22)^2) / 22."""
    low, high = paired_proportions(6, 1, 20, 0.95)
    half = 1.959964 * math.sqrt((9 / 22 - (5 / 22) ** 2) / 22)
    assert (low, high) == pytest.approx((5 / 22 - half, 5 / 22 + half), abs=1e-6)
    low, high = paired_proportions(0, 0, 20, 0.95)
    assert low == -high < 0


def test_holm_by_hand():
    """Three chances: the smallest times three, the next times two, and none smaller than the one before."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert list(holm({"b": 0.5, "a": 0.9})) == ["b", "a"]
    assert holm({"b": 0.5, "a": 0.9}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}


def test_the_note_on_many_tasks():
    assert many_note({"a": 0.01}, 0.95) == ""
    assert many_note({"a": 0.2, "b": 0.6}, 0.95).endswith("None does.")
    assert "0.1 of them" in many_note({"a": 0.2, "b": 0.6}, 0.95)
    assert many_note({"a": 0.04, "b": 0.6}, 0.95).endswith("By Holm's correction a cannot be told from noise any more.")
    assert many_note({"a": 0.001, "b": 0.6}, 0.95).endswith("By Holm's correction a still does.")
    assert many_note({"a": 0.001, "b": 0.002, "c": 1}, 0.95).endswith("By Holm's correction a and b still do.")


def test_what_is_detectable_is_detected_four_times_out_of_five():
    rng = np.random.default_rng(3)
    n, least = 40, detectable(1.0, 40, 0.95)
    found = 0
    for _ in range(2000):
        rows = rng.normal(least, 1.0, n)
        found += student_tail(rows.mean() / (rows.std(ddof=1) / n**0.5), n - 1) < 0.05
    assert 0.77 <= found / 2000 <= 0.83
    assert detectable(1.0, 1, 0.95) == math.inf


def test_rows_needed_undoes_detectable():
    for n in (5, 40, 333):
        assert rows_needed(2.0, detectable(2.0, n, 0.95), 0.95) == n
    with pytest.raises(ValueError, match="nothing"):
        rows_needed(1.0, 0.0, 0.95)


def test_wins_and_losses_by_row():
    base, tuned = np.array([0.0, 1.0, 1.0, 0.5, 0.0]), np.array([1.0, 0.0, 1.0, 0.2, 0.5])
    found = wins(base, tuned)
    assert (found.won, found.lost, found.tied) == ((0, 4), (1, 3), 1)
    other = wins(base, tuned, lower_is_better=True)
    assert (other.won, other.lost) == ((1, 3), (0, 4))
    assert wins(base, tuned, least=0.4).lost == (1,)
