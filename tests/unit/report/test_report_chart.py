"""Charts hold whatever numbers a run can leave: none, one, a hundred thousand, and those that are not numbers."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.report.chart import BANDS, LINE_POINTS, Series, draw, interval, round_ticks

Values = Sequence[float | None]


def chart(values: Values, *more: Series, zero: bool = False) -> ET.Element:
    series = [Series("training loss", list(enumerate(values, 1))), *more]
    return ET.fromstring(draw(series, title="Loss", unit="nats per token", width=940, height=330, zero=zero))


def coordinates(root: ET.Element) -> list[tuple[float, float]]:
    """Every point of every line, outline and dot."""
    found = []
    for element in [*root.iter("polyline"), *root.iter("polygon")]:
        found += [tuple(map(float, pair.split(","))) for pair in element.attrib["points"].split()]
    found += [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter("circle")]
    return found


def labels(root: ET.Element) -> list[str]:
    return ["".join(element.itertext()) for element in root.iter("text")]


def titles(root: ET.Element) -> list[str]:
    return [str(element.text) for element in root.iter("title")]


def test_a_line_goes_down_when_the_values_do() -> None:
    points = coordinates(chart([3.0, 2.0, 1.0]))
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points)


def test_axes_have_round_numbers_and_names() -> None:
    shown = labels(chart([2.31, 1.94, 1.62, 1.55]))
    assert {"nats per token", "optimizer step", "1.4", "2.0", "2.4"} <= set(shown)


def test_each_step_can_be_read_by_pointing() -> None:
    root = chart([2.5, None, 1.5], Series("held-out loss", [(0, 2.6), (3, 1.75)], "dots"))
    assert titles(root) == [
        "step 0\nheld-out loss 2.6",
        "step 1\ntraining loss 2.5",
        "step 3\ntraining loss 1.5\nheld-out loss 1.75",
    ]
    assert {"training loss", "held-out loss"} <= set(labels(root))


def test_missing_values_break_the_line() -> None:
    root = chart([1.0, 2.0, None, math.nan, math.inf, 3.0, 4.0, -math.inf, 5.0])
    assert len(list(root.iter("polyline"))) == 2
    assert len(list(root.iter("circle"))) == 1


@pytest.mark.parametrize("values", [[], [None], [math.nan, math.inf, None]])
def test_nothing_to_draw_is_said(values: Values) -> None:
    drawing = draw([Series("loss", list(enumerate(values)))], title="<Loss>", unit="", width=300, height=200)
    assert drawing == '<p class="empty">&lt;Loss&gt;: nothing measured yet.</p>'


def test_one_point_is_a_dot() -> None:
    assert len(coordinates(chart([2.0]))) == 1


def test_a_long_run_is_thinned_and_keeps_its_spikes() -> None:
    values = [1.0 + 0.001 * (step % 7) for step in range(100_000)]
    values[31_415] = 3.0
    values[27_182] = 0.5
    root = chart(values)
    points = coordinates(root)
    assert len(points) <= LINE_POINTS + BANDS
    flat = coordinates(chart([0.5, 3.0]))
    assert {y for _, y in flat} == {max(y for _, y in points), min(y for _, y in points)}
    assert len(titles(root)) <= BANDS
    assert sum("3" in title.split("training loss")[1] for title in titles(root)) >= 1


def test_a_few_huge_values_do_not_flatten_the_rest() -> None:
    root = chart([2.0] * 50 + [1e9] + [1.0] * 50)
    assert any("log scale" in label for label in labels(root))
    heights = {y for _, y in coordinates(root)}
    assert len(heights) == 3


def test_names_are_escaped() -> None:
    drawing = draw([Series("<b>", [(1, 1.0)])], title='"><script>', unit="<i>", width=300, height=200)
    assert "<script>" not in drawing
    assert "<i>" not in drawing
    assert "<b>" not in drawing


number = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(number, max_size=40), st.booleans())
def test_any_numbers_stay_inside_the_chart(values: Values, zero: bool) -> None:
    drawing = draw([Series("s", list(enumerate(values)))], title="t", unit="u", width=940, height=330, zero=zero)
    assert "nan" not in drawing
    assert "inf" not in drawing
    root = ET.fromstring(drawing)
    assert all(0 <= x <= 940 and 0 <= y <= 330 for x, y in coordinates(root))


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12), st.booleans())
def test_ticks_are_round_and_cover_the_range(low: float, span: float, whole: bool) -> None:
    high = low + max(span, abs(low) * 1e-6)
    ticks = round_ticks(low, high, whole=whole)
    gap = (ticks[-1] - ticks[0]) / max(1, len(ticks) - 1)
    slack = gap * 1e-3
    assert len(ticks) <= 9
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    first = f"{gap:.0e}"[0]
    assert first in "125"


def test_an_interval_shows_on_which_side_of_zero_it_lies() -> None:
    root = ET.fromstring(interval(-0.41, -0.48, -0.34))
    (dot,) = root.iter("circle")
    assert float(dot.attrib["cx"]) < 120
    assert "−0.41" in root.attrib["aria-label"]


@pytest.mark.parametrize("bounds", [(0, 0, 0), (1e-300, 0, 1e-300), (5, -3, 9)])
def test_any_interval_fits(bounds: tuple[float, float, float]) -> None:
    root = ET.fromstring(interval(*bounds))
    (dot,) = root.iter("circle")
    assert 0 <= float(dot.attrib["cx"]) <= 240


def test_an_interval_that_is_not_finite_is_left_out() -> None:
    assert interval(math.nan, 0, 1) == ""


@pytest.mark.parametrize(
    "values", [[0.0, 5e-324], [5e-324, 5e-324, 1.0], [1e-310, 2e-310], [1e99, -1e99], [1e15, 1e15 + 1]]
)
def test_the_ends_of_the_number_line_are_drawn(values: Values) -> None:
    assert all(0 <= y <= 330 for _, y in coordinates(chart(values)))


def test_steps_are_told_to_the_last_digit() -> None:
    root = ET.fromstring(draw([Series("s", [(1_234_567, 1.0)])], title="t", unit="u", width=300, height=200))
    assert titles(root) == ["step 1,234,567\ns 1"]
