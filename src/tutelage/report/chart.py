"""Numbers to inline SVG: lines over optimizer steps, and an interval beside zero.

A chart is text made here once, drawn by the browser without a script. Colours are class names that the page's
style sheet fills in, so one drawing serves light, dark and paper. However long the run, a line has at most
`LINE_POINTS` points (the highest and the lowest of each stretch, so that no spike is lost), and the chart at most
`BANDS` invisible columns whose titles are read by pointing at them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeGuard

from markupsafe import Markup

from tutelage.report.axis import BOTTOM, LEFT, RIGHT, TOP, Axis, grid, round_ticks
from tutelage.report.text import brief, count

LINE_POINTS = 800
BANDS = 120
LARGEST, SMALLEST = 1e100, 1e-100
"""Numbers beyond the one are treated as infinite, differences below the other as none: no axis could show them."""
LETTER = 9
"""Room for one letter, at the largest size that the style sheet gives to a chart's text."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One measured quantity: (step, value) in order of step; None, or a value not finite, leaves a gap."""

    label: str
    points: Sequence[tuple[float, float | None]]
    kind: Literal["line", "dots"] = "line"
    errors: Sequence[float | None] = ()
    """The standard error of each point, where it is known."""
    run: int = 0
    """0 for the run that the page is about, from 1 on for those drawn beside it."""

    @property
    def name(self) -> str:
        """Its class in the style sheet."""
        return f"{self.kind} r{self.run}" if self.run else self.kind

    def bars(self) -> list[tuple[float, float, float]]:
        """(step, low, high): one standard error to either side."""
        pairs = zip(self.points, self.errors, strict=False)
        return [(x, y - e, y + e) for (x, y), e in pairs if drawable(y) and drawable(e)]

    def finite(self) -> list[Point]:
        """The points that can be drawn."""
        return [(x, y) for x, y in self.points if drawable(y)]


def drawable(value: float | None) -> TypeGuard[float]:
    """Whether it is a number that an axis can show."""
    return value is not None and abs(value) < LARGEST


def draw(
    series: Sequence[Series],
    *,
    title: str,
    unit: str,
    width: int,
    height: int,
    zero: bool = False,
    marks: Sequence[tuple[float, str]] = (),
) -> Markup:
    """The chart as an SVG element; a paragraph that says so when there is nothing to draw.

    `zero` makes the vertical axis begin at 0. It is logarithmic when a few values dwarf the others. `marks` are steps
    with a word about each.
    """
    values = sorted(
        [y for one in series for _, y in one.finite()] + [y for one in series for bar in one.bars() for y in bar[1:]]
    )
    if not values:
        return Markup('<p class="empty">{}: nothing measured yet.</p>').format(title)
    steps = [x for one in series for x, _ in one.points]
    x = _steps_axis(min(steps), max(steps), LEFT, width - RIGHT)
    y = _value_axis(values, height - BOTTOM, TOP, zero=zero)
    parts = [
        *grid(x, y, unit + (", log scale" if y.log else ""), "optimizer step"),
        *_legend([one for one in series if not one.run], LETTER * len(unit) + 24),
        *_marks([mark for mark in marks if x.low <= mark[0] <= x.high], x, y),
    ]
    for one in sorted(series, key=lambda one: -one.run):
        parts += _line(one, x, y) if one.kind == "line" else _dots(one, x, y)
    parts += _bands(series, x, y)
    summary = "; ".join(_summary(one) for one in series if one.finite())
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, f"{title}. {summary}", Markup("\n").join(parts)
    )


def interval(difference: float, low: float, high: float, reach: float | None = None) -> Markup:
    """A difference and its interval on a short line, with a mark at zero; `reach` to either side of it, when given."""
    if not all(abs(value) < LARGEST for value in (difference, low, high)):
        return Markup("")
    reach = 1.15 * (reach or max(abs(low), abs(high), abs(difference))) or 1.0
    axis = Axis(-reach, reach, 8, 232, ())
    return Markup(
        '<svg class="interval" viewBox="0 0 240 34" role="img" aria-label="{}"><title>{}</title>'
        '<line class="axis" x1="8" y1="13" x2="232" y2="13"/>'
        '<line class="zero" x1="120" y1="3" x2="120" y2="23"/>'
        '<line class="span" x1="{:.1f}" y1="13" x2="{:.1f}" y2="13"/><circle cx="{:.1f}" cy="13" r="5"/>'
        '<text x="120" y="33" text-anchor="middle">0</text></svg>'
    ).format(
        *[f"Difference {brief(difference)}, interval {brief(low)} to {brief(high)}"] * 2,
        *map(axis, (low, high, difference)),
    )


def mean(values: Sequence[float]) -> float:
    """Of some values, none of which is infinite."""
    return sum(values) / len(values)


def stretches(points: Sequence[Any], number: int) -> Iterator[Sequence[Any]]:
    """The points cut into at most `number` runs of nearly one length; none is empty."""
    number = min(number, len(points))
    for i in range(number):
        yield points[i * len(points) // number : (i + 1) * len(points) // number]


def _steps_axis(low: float, high: float, start: float, end: float) -> Axis:
    if high == low:
        low, high = low - 1, high + 1
    ticks = round_ticks(low, high, at_most=max(3, int((end - start) / 90)), whole=True)
    return Axis(low, high, start, end, tuple(tick for tick in ticks if low <= tick <= high))


def _value_axis(values: Sequence[float], start: float, end: float, *, zero: bool) -> Axis:
    low, high, middle = values[0], values[-1], values[len(values) // 2]
    if low > SMALLEST and high > 100 * middle:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        stride = len(powers) // 6 + 1
        return Axis(10.0 ** powers[0], 10.0 ** powers[-1], start, end, tuple(10.0**p for p in powers[::stride]), True)
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), SMALLEST):
        room = abs(high) * 0.1 if abs(high) > SMALLEST else 1.0
        low, high = low - room, high + room
    ticks = round_ticks(low, high, at_most=5)
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def _legend(series: Sequence[Series], left: float) -> Iterator[Markup]:
    """A sample of each line and its name, from `left` on; one line alone needs none."""
    for one in series if len(series) > 1 else ():
        yield Markup('<line class="{}" x1="{}" x2="{}" y1="10" y2="10"/>').format(one.kind, left, left + 22)
        if one.kind == "dots":
            yield Markup('<circle class="dots" cx="{}" cy="10" r="4.5"/>').format(left + 11)
        yield Markup('<text x="{}" y="14">{}</text>').format(left + 29, one.label)
        left += 29 + LETTER * len(one.label) + 20


def _marks(marks: Sequence[tuple[float, str]], x: Axis, y: Axis) -> Iterator[Markup]:
    for place, word in marks:
        end = x(place) > (x.start + x.end) / 2
        yield Markup(
            '<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
            '<text class="mark" x="{3:.1f}" y="{4}" text-anchor="{5}">{6}</text>'
        ).format(x(place), y.end, y.start, x(place) + (-6 if end else 6), y.end + 12, "end" if end else "start", word)


def _line(one: Series, x: Axis, y: Axis) -> Iterator[Markup]:
    """The line, broken where values are missing; for a long run its range and its mean; of another run the mean."""
    drawn = one.finite()
    parts = list(stretches(drawn, BANDS))
    means = [(mean([p[0] for p in stretch]), mean([p[1] for p in stretch])) for stretch in parts]
    if one.run and len(drawn) > 2 * BANDS:
        yield _points("polyline", one.name, means, x, y)
        return
    if len(drawn) > LINE_POINTS:
        yield _points("polygon", "range", _outline(drawn), x, y)
        yield _points("polyline", "line", means, x, y)
        return
    long = len(drawn) > 2 * BANDS
    for run in _unbroken(one.points):
        if len(run) == 1:
            place, value = run[0]
            yield Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(one.name, x(place), y(value))
        else:
            yield _points("polyline", "line faint" if long else one.name, run, x, y)
    if long:
        yield _points("polyline", "line", means, x, y)


def _outline(points: Sequence[Point]) -> list[Point]:
    """The highest of each stretch from left to right, then the lowest back again."""
    parts = list(stretches(points, LINE_POINTS // 2))
    highest = [max(part, key=_height) for part in parts]
    return highest + [min(part, key=_height) for part in reversed(parts)]


def _height(point: Point) -> float:
    return point[1]


def _unbroken(points: Sequence[tuple[float, float | None]]) -> list[list[Point]]:
    """The points cut where a value is missing."""
    runs: list[list[Point]] = [[]]
    for place, value in points:
        if drawable(value):
            runs[-1].append((place, value))
        else:
            runs.append([])
    return [run for run in runs if run]


def _dots(one: Series, x: Axis, y: Axis) -> Iterator[Markup]:
    points = one.finite()
    points = points[:: len(points) // LINE_POINTS + 1]
    for place, low, high in one.bars()[:: len(one.points) // LINE_POINTS + 1]:
        line = '<line class="error {0}" x1="{1:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{3:.1f}"/>'
        yield Markup(line).format(one.name, x(place), y(max(low, y.low)), y(high))
    yield _points("polyline", one.name, points, x, y)
    for place, value in points:
        dot = '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>'
        yield Markup(dot).format(one.name, x(place), y(value), 3 if one.run else 4.5)


def _points(element: str, name: str, points: Sequence[Point], x: Axis, y: Axis) -> Markup:
    text = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in points)
    return Markup('<{} class="{}" points="{}"/>').format(element, name, text)


def _bands(series: Sequence[Series], x: Axis, y: Axis) -> Iterator[Markup]:
    """Columns that cover the chart, each with the values of its steps as a title."""
    found: dict[float, list[tuple[int, float]]] = {}
    for number, one in enumerate(series):
        for place, value in one.finite():
            found.setdefault(place, []).append((number, value))
    places = [(place, 0.0) for place in sorted(found)]
    columns = [[place for place, _ in stretch] for stretch in stretches(places, BANDS)]
    edges = [x.low, *((a[-1] + b[0]) / 2 for a, b in pairwise(columns)), x.high]
    for column, (left, right) in zip(columns, pairwise(edges), strict=True):
        lines = [f"step {_range(column, count)}"]
        for number, one in enumerate(series):
            values = [value for place in column for n, value in found[place] if n == number]
            if values:
                lines.append(f"{one.label} {_range(values, brief)}")
        yield Markup('<rect class="band" x="{:.1f}" y="{}" width="{:.1f}" height="{}"><title>{}</title></rect>').format(
            x(left), y.end, x(right) - x(left), y.start - y.end, "\n".join(lines)
        )


def _range(values: Sequence[float], say: Callable[[float], str]) -> str:
    low, high = say(min(values)), say(max(values))
    return low if low == high else f"{low} to {high}"


def _summary(one: Series) -> str:
    points = one.finite()
    (first, start), (last, end) = points[0], points[-1]
    return f"{one.label}: {brief(start)} at step {count(first)}, {brief(end)} at step {count(last)}"
