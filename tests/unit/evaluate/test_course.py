"""Which step is best, and when training has been in vain: decided from paired differences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tutelage.evaluate.course import Course, standard_error
from tutelage.evaluate.heldout import HeldoutLoss
from tutelage.recipe import EvaluateOptions

ROWS = 50


def course(*, patience: int | None = None, margin: float = 1.0, until: int | None = None) -> Course:
    options = EvaluateOptions(patience=patience, margin=margin)
    return Course([], np.arange(ROWS), options, 100, {20, 40, 60, 80, 100}, until)


def loss(mean: float, noise: float = 0.0, seed: int = 0) -> HeldoutLoss:
    """`ROWS` examples of four tokens; the same seed gives the same noise."""
    drawn = np.random.default_rng(seed).normal(size=ROWS)
    drawn -= drawn.mean()
    return HeldoutLoss(4 * (mean + noise * drawn), np.full(ROWS, 4.0), 4 * ROWS)


def measured(one: Course, *means: float) -> Course:
    for step, mean in zip((0, 20, 40, 60, 80, 100), means, strict=False):
        one.measured[step] = loss(mean)
    return one


def test_the_lowest_loss_is_the_best_and_the_base_model_never_is() -> None:
    assert measured(course(), 1.0, 2.0, 1.5, 1.7).best == 40
    assert measured(course(), 1.0, 2.0, 2.0).best == 20, "the earlier one of equals"
    assert measured(course(), 1.0).best is None
    assert measured(course(), 1.0, math.nan, 3.0).best == 40


def test_an_earlier_step_counts_only_when_it_is_clearly_better() -> None:
    one = measured(course(margin=1.0), 3.0, 2.0)
    one.measured[100] = loss(2.01, noise=0.1, seed=1)  # standard error of the difference: 0.1 / 7
    assert one.better_than(100) is None
    one.measured[100] = loss(2.02, noise=0.1, seed=1)
    assert one.better_than(100) == 20
    one.options = EvaluateOptions(margin=2.0)
    assert one.better_than(100) is None


def test_a_loss_that_is_no_number_is_worse_than_any() -> None:
    one = measured(course(), 3.0, 2.0)
    one.measured[100] = loss(math.nan)
    assert one.better_than(100) == 20


def test_patience_counts_measurements_without_a_better_loss() -> None:
    one = measured(course(patience=2), 3.0, 2.0, 2.1)
    assert not one.in_vain(40)
    measured(one, 3.0, 2.0, 2.1, 2.0)
    assert one.in_vain(60), "an equal loss is not better"
    measured(one, 3.0, 2.0, 2.1, 1.9)
    assert not one.in_vain(60), "a better one begins the count again"


def test_slow_progress_is_progress_once_it_adds_up() -> None:
    one = course(patience=3, margin=1.0)
    for place, step in enumerate((0, 20, 40, 60)):
        one.measured[step] = loss(2.0 - 0.012 * place, noise=0.1, seed=place)
    assert not one.in_vain(60), "compared with the best before, not with the one before"


def test_training_that_never_helps_is_seen() -> None:
    one = measured(course(patience=2), 1.0, 1.5, 1.4)
    assert one.in_vain(40)


def test_it_ends_only_at_a_point_and_never_at_the_last_step() -> None:
    one = measured(course(patience=1), 1.0, 1.5, 1.6, 1.7, 1.8, 1.9)
    assert not one.in_vain(100)
    assert not one.in_vain(50)
    assert one.in_vain(80)
    assert not measured(course(), 1.0, 1.5).in_vain(20), "without patience nothing ends"


def test_a_pause_is_a_point_of_its_own() -> None:
    one = course(until=30)
    assert one.asks_for(30)
    assert one.pauses_at(30)
    assert one.pauses_at(31)
    assert not one.pauses_at(29)
    assert not one.pauses_at(100), "the last step is the end"
    one.add(30, loss(1.0))
    assert not one.asks_for(30)


def test_what_a_pause_measured_decides_nothing() -> None:
    one = measured(course(patience=2, until=30), 3.0, 2.0)
    one.add(30, loss(1.0))
    one.measured[40] = loss(1.9)
    assert one.best == 40, "as if it had not been stopped"
    assert one.nll_at(30) is None, "so the checkpoint of the best step is the one that stays"
    assert not one.in_vain(40)
    one.points.add(30)
    assert one.best == 30, "unless it is a point by now"
    again = course(patience=2)
    again.restore([{"step": 30, "model": "step 30", "sums": [4.0] * ROWS, "pause": True}])
    assert again.best is None


def test_one_row_alone_ends_nothing() -> None:
    one = measured(course(patience=1), 1.0, 1.5, 1.6)
    one.rows = np.zeros(ROWS, dtype=np.int64)
    assert not one.in_vain(40), "nothing can be told from one row"
    one.options = EvaluateOptions(patience=1, margin=0.0)
    assert one.in_vain(40)
    measured(one, 1.0, 0.9, 0.8)
    assert not one.in_vain(40), "without a margin any lower loss is better"


def test_what_was_written_down_is_taken_up() -> None:
    one = course()
    lines = [
        {"step": 0, "model": "base", "sums": [8.0] * ROWS},
        {"step": 20, "model": "step 20", "sums": [4.0] * (ROWS - 1) + [None]},
        {"step": 20, "model": "tuned", "sums": [1.0] * ROWS},
    ]
    one.heldout = []
    one.restore(lines)
    assert sorted(one.measured) == [0, 20]
    assert one.measured[0].sums[0] == 8.0
    assert math.isnan(one.measured[20].sums[-1]), "what is no number is null in the file"
    assert one.measured[20].sums[0] == 4.0, "the finished model is measured anew"
    one.forget_after(10)
    assert sorted(one.measured) == [0]


def test_the_standard_error_is_that_of_a_mean_of_rows() -> None:
    sums = np.array([1.0, 2.0, 4.0, 9.0])
    ones = np.ones(4)
    assert standard_error(sums, ones, np.arange(4)) == pytest.approx(np.std(sums, ddof=1) / 2)
    paired = standard_error(np.repeat(sums, 2) / 2, np.full(8, 0.5), np.repeat(np.arange(4), 2))
    assert paired == pytest.approx(np.std(sums, ddof=1) / 2), "two examples of a row are one draw"
    assert standard_error(np.ones(2), np.ones(2), np.zeros(2)) == math.inf
