"""The learning rate, against numbers worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.recipe import Schedule
from tutelage.train.schedule import learning_rate, warmup_steps


def rates(steps: int, **options: object) -> list[float]:
    schedule = Schedule(**options)
    return [learning_rate(step, steps=steps, peak=12.0, schedule=schedule) for step in range(1, steps + 1)]


def test_linear():
    """Two of ten steps rise by thirds; the other eight fall by eighths, and the last is not wasted at zero."""
    assert rates(10, kind="linear", warmup=0.2) == pytest.approx([4, 8, 12, 10.5, 9, 7.5, 6, 4.5, 3, 1.5])


def test_cosine():
    """12 * (1 + cos(pi * k / 4)) / 2 for k = 0, 1, 2, 3."""
    assert rates(4, kind="cosine", warmup=0) == pytest.approx([12, 10.242641, 6, 1.757359], rel=1e-6)


def test_constant():
    assert rates(4, kind="constant", warmup=2) == pytest.approx([4, 8, 12, 12])


def test_a_number_of_steps_and_a_share():
    assert warmup_steps(100, Schedule(warmup=7)) == 7
    assert warmup_steps(100, Schedule(warmup=0.07)) == 7
    assert warmup_steps(3, Schedule(warmup=7)) == 3
    assert warmup_steps(3, Schedule(warmup=0.05)) == 0
    assert warmup_steps(3, Schedule(warmup=1)) == 1


def test_a_run_of_one_step_learns():
    assert rates(1) == [12.0]


@given(
    st.integers(1, 400),
    st.sampled_from(["cosine", "linear", "constant"]),
    st.integers(0, 500) | st.floats(0, 0.99),
)
def test_it_rises_once_falls_once_and_is_never_zero(steps, kind, warmup):
    found = rates(steps, kind=kind, warmup=warmup)
    top = min(warmup_steps(steps, Schedule(warmup=warmup)), steps - 1)
    assert all(0 < rate <= 12.0 for rate in found)
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
