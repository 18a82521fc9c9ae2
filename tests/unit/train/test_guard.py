"""Counting steps that are not finite."""

from __future__ import annotations

import math

import pytest

from tutelage.errors import DivergedError
from tutelage.train.guard import LIMIT, Guard
from tutelage.types import Origin

ROWS = [Origin("a.jsonl", n) for n in range(1, 31)]


@pytest.mark.parametrize("loss", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("side", ["loss", "gradient"])
def test_what_is_not_finite_is_not_sound(loss, side):
    guard = Guard()
    values = (loss, 1.0) if side == "loss" else (1.0, loss)
    assert not guard.step_is_sound(*values, ROWS)
    assert (guard.skipped, guard.in_a_row) == (1, 1)


@pytest.mark.parametrize(("loss", "norm"), [(0.0, 0.0), (1e30, 1e30), (-3.0, 5.0)])
def test_what_is_finite_is(loss, norm):
    guard = Guard()
    assert guard.step_is_sound(loss, norm, ROWS)
    assert guard.skipped == 0


def test_a_sound_step_begins_the_count_again():
    guard = Guard()
    for _ in range(3):
        for _ in range(LIMIT - 1):
            assert not guard.step_is_sound(math.nan, 1.0, ROWS)
        assert guard.step_is_sound(1.0, 1.0, ROWS)
    assert guard.skipped == 3 * (LIMIT - 1)
    assert guard.in_a_row == 0


def test_the_tenth_in_a_row_names_the_rows_and_the_numbers():
    guard = Guard()
    for _ in range(LIMIT - 1):
        guard.step_is_sound(math.nan, 1.0, ROWS)
    with pytest.raises(DivergedError) as caught:
        guard.step_is_sound(math.inf, 2.0, ROWS)
    said = str(caught.value)
    assert "10 steps in a row" in said
    assert "loss inf, gradient norm 2.0" in said
    assert "a.jsonl:1, a.jsonl:2" in said
    assert "a.jsonl:16" in said
    assert "a.jsonl:17" not in said
    assert guard.rows == ROWS
