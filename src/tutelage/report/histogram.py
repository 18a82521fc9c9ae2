"""Counts by range to inline SVG: bars over a logarithmic axis, because lengths span decades."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from tutelage.report.axis import BOTTOM, LEFT, RIGHT, TOP, Axis, grid, round_ticks
from tutelage.report.text import count, percent

Bin = Sequence[int]
"""First and last whole number of a range, and how many fall into it."""


def histogram(
    bins: Sequence[Bin], *, title: str, of: str, unit: str, width: int, height: int, limit: int | None = None
) -> Markup:
    """Draw the bars as an SVG element; a paragraph that says so when there are none. `limit` draws a line there."""
    total = sum(number for _, _, number in bins)
    if not total:
        return Markup('<p class="empty">{}: nothing counted yet.</p>').format(title)
    low, high = max(0.5, bins[0][0]), float(bins[-1][1] + 1)
    if limit is not None:
        low, high = min(low, limit), max(high, 1.05 * limit)
    x = Axis(low, high, LEFT, width - RIGHT, tuple(_ticks(low, high, (width - LEFT - RIGHT) / 80)), log=True)
    ticks = round_ticks(0, max(number for _, _, number in bins), at_most=5, whole=True)
    y = Axis(0, ticks[-1], height - BOTTOM, TOP, ticks)
    parts = [*grid(x, y, of, f"{unit}, log scale")]
    for first, last, number in bins:
        left, right = x(max(0.5, first)), x(last + 1)
        top = min(y(number), y.start - 1) if number else y.start
        name = f"{_range(first, last)} {unit}: {count(number)} ({percent(number / total)})"
        parts.append(
            Markup(
                '<rect class="column" x="{0:.1f}" y="{1:.1f}" width="{2:.1f}" height="{3:.1f}"/>'
                '<rect class="band" x="{0:.1f}" y="{4}" width="{2:.1f}" height="{5}"><title>{6}</title></rect>'
            ).format(left, top, max(0.5, right - left - 1), y.start - top, TOP, y.start - TOP, name)
        )
    if limit is not None:
        parts += _limit(limit, x, y)
    middle, most = (_quantile(bins, total * share) for share in (0.5, 0.99))
    summary = f"{title}. {count(total)} {of}; half have up to {count(middle)} {unit}, 99 % up to {count(most)}."
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, summary, Markup("\n").join(parts)
    )


def _limit(limit: int, x: Axis, y: Axis) -> Iterator[Markup]:
    yield Markup('<line class="limit" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(x(limit), y.end, y.start)
    end = x(limit) > (x.start + x.end) / 2
    yield Markup('<text x="{:.1f}" y="{}" text-anchor="{}">max_length {}</text>').format(
        x(limit) + (-6 if end else 6), y.end + 12, "end" if end else "start", count(limit)
    )


def _ticks(low: float, high: float, at_most: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or these powers alone, within the axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(factor * 10**power) for power in powers if power >= 0 for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= at_most:
            break
    return ticks[:: math.ceil(len(ticks) / max(1, at_most))] if ticks else []


def _range(first: int, last: int) -> str:
    return count(first) if first == last else f"{count(first)} to {count(last)}"


def _quantile(bins: Sequence[Bin], wanted: float) -> int:
    """The end of the range in which so many are reached."""
    seen = 0
    for _, last, number in bins:
        seen += number
        if seen >= wanted:
            return last
    return bins[-1][1]
