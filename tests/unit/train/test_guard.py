"""Judging steps: what is counted, what ends a run, what sends it back, and what a spike is."""

from __future__ import annotations

import math

import pytest

from tutelage.errors import DivergedError
from tutelage.recipe import GuardOptions
from tutelage.train.guard import ENOUGH, WINDOW, Guard, RollBack

ROWS = "a.jsonl:1, 2, 3"


def judge(guard: Guard, loss: float, norm: float = 1.0, step: int = 7) -> bool:
    """As the loop does: the optimizer makes the update where all is finite and below the ceiling."""
    made = math.isfinite(loss) and math.isfinite(norm) and loss <= guard.ceiling
    guard.judge(step, loss, norm, ROWS, made=made)
    return made


def steady(options: GuardOptions, steps: int = WINDOW) -> Guard:
    """A guard that saw losses around 2."""
    guard = Guard(options)
    for step in range(steps):
        assert judge(guard, 2.0 + 0.05 * (-1) ** step)
    return guard


@pytest.mark.parametrize("loss", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("side", ["loss", "gradient"])
def test_what_is_not_finite_is_counted(loss, side):
    guard = Guard()
    assert not judge(guard, *((loss, 1.0) if side == "loss" else (1.0, loss)))
    assert (guard.skipped, guard.in_a_row, guard.losses) == (1, 1, [])


@pytest.mark.parametrize(("loss", "norm"), [(0.0, 0.0), (1e30, 1e30), (-3.0, 5.0)])
def test_what_is_finite_is_sound(loss, norm):
    guard = Guard()
    assert judge(guard, loss, norm)
    assert (guard.skipped, guard.losses) == (0, [loss])


def test_a_sound_step_begins_the_count_again():
    guard = Guard()
    for _ in range(3):
        for _ in range(9):
            assert not judge(guard, math.nan)
        assert judge(guard, 1.0)
    assert (guard.skipped, guard.in_a_row) == (27, 0)


def test_the_tenth_in_a_row_names_the_rows_and_the_numbers():
    guard = Guard(go_on_from=lambda: "; here it goes on")
    for _ in range(9):
        judge(guard, math.nan)
    with pytest.raises(DivergedError) as caught:
        judge(guard, math.inf, 2.0)
    said = str(caught.value)
    assert "10 steps in a row had a loss or gradient that is not finite" in said
    assert "step 7: loss inf, gradient norm 2.0" in said
    assert "where a.jsonl:1, 2, 3" in said
    assert said.endswith("; here it goes on")


def test_to_stop_is_to_stop_at_the_first():
    with pytest.raises(DivergedError, match="step 7 had a loss or gradient that is not finite"):
        judge(Guard(GuardOptions(non_finite="stop")), math.nan)


def test_to_roll_back_names_the_step_until_there_were_too_many():
    guard = Guard(GuardOptions(non_finite="rollback", limit=2))
    for step in (5, 6):
        with pytest.raises(RollBack) as caught:
            judge(guard, math.nan, step=step)
        assert (caught.value.step, caught.value.rows) == (step, ROWS)
        guard.passed_over.append(step)
    with pytest.raises(DivergedError, match="after 2 steps that were passed over, step 9 had"):
        judge(guard, math.nan, step=9)


@pytest.mark.parametrize("times", [10, 100])
def test_a_loss_far_above_those_before_is_a_spike(times):
    assert judge(steady(GuardOptions()), 2.0 * times)  # ignored unless asked for
    guard = steady(GuardOptions(spikes="skip"))
    assert not judge(guard, 2.0 * times)
    assert judge(guard, 2.5)
    with pytest.raises(DivergedError, match="a loss far above those before it"):
        judge(steady(GuardOptions(spikes="stop")), 2.0 * times)
    with pytest.raises(RollBack):
        judge(steady(GuardOptions(spikes="rollback")), 2.0 * times)


def test_nothing_is_a_spike_before_there_is_something_to_compare_with():
    assert steady(GuardOptions(spikes="skip"), ENOUGH - 1).ceiling == math.inf
    assert steady(GuardOptions(spikes="skip"), ENOUGH).ceiling < 3.5


def test_spikes_do_not_teach_it_that_spikes_are_usual():
    guard = steady(GuardOptions(spikes="skip", limit=1000))
    ceiling = guard.ceiling
    for _ in range(200):
        assert not judge(guard, 50.0)
    assert guard.ceiling == ceiling
    assert judge(guard, 2.0)


def test_what_it_remembers_goes_through_a_checkpoint():
    guard = steady(GuardOptions(spikes="skip"))
    judge(guard, 90.0)
    other = Guard(guard.options, passed_over=[3])
    other.load_state({**guard.state(), "passed_over": [8]})
    assert (other.skipped, other.in_a_row, other.ceiling) == (1, 1, guard.ceiling)
    assert other.passed_over == [3, 8]
