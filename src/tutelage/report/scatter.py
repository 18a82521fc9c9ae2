"""Gain against drift: one point a measurement, so that a reader can choose the step to export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tutelage.report.axis import BOTTOM, LEFT, RIGHT, TOP, Axis, grid, round_ticks
from tutelage.report.chart import LARGEST, SMALLEST
from tutelage.report.collect import mappings, number
from tutelage.report.contents import Report
from tutelage.report.curves import exported_step
from tutelage.report.text import brief, count

WIDTH, HEIGHT = 940, 360
_KEYS = ("step", "nll", "general_nll", "kl")
LABELS = 24
"""Points that are named beside themselves, at most; every one is named by pointing at it and in the table."""


@dataclass(frozen=True, slots=True)
class Place:
    """The model after a step: what it gained, and how far it moved."""

    step: float
    nll: float | None
    general_nll: float | None
    kl: float | None
    exported: bool


def frontier(report: Report) -> list[Place]:
    """The steps in order; from `evaluations.jsonl` where the result has none yet."""
    exported = exported_step(report)
    given = mappings((report.result or {}).get("frontier"))
    lines = [{key: number(one.get(key)) for key in _KEYS} for one in given]
    lines = lines or [{key: getattr(one, key) for key in _KEYS} for one in report.measurements]
    found = [
        Place(step, line["nll"], line["general_nll"], line["kl"], step == exported)
        for line in lines
        if (step := line["step"]) is not None and (line["general_nll"] is not None or line["kl"] is not None)
    ]
    return sorted(found, key=lambda one: one.step)


def scatter(places: Sequence[Place]) -> Markup:
    """Held-out loss over the distance from the base model, joined in order of step; nothing for fewer than two."""
    points = [
        (one, one.kl, one.nll)
        for one in places
        if one.kl is not None and one.nll is not None and abs(one.kl) < LARGEST and abs(one.nll) < LARGEST
    ]
    if len(points) < 2:
        return Markup("")
    x = _axis([kl for _, kl, _ in points], LEFT, WIDTH - RIGHT, zero=True)
    y = _axis([nll for _, _, nll in points], HEIGHT - BOTTOM, TOP)
    # `grid` labels a horizontal axis with counts; this one has decimals, and `_ticks` draws them.
    bare = Axis(x.low, x.high, x.start, x.end, ())
    line = " ".join(f"{x(kl):.1f},{y(nll):.1f}" for _, kl, nll in points)
    parts = [
        *grid(bare, y, "held-out loss, nats per token", "KL from the base model, nats per token"),
        *_ticks(x, y),
        Markup('<polyline class="path" points="{}"/>').format(line),
    ]
    for place, (one, kl, nll) in enumerate(points):
        named = len(points) <= LABELS or one.exported or place in (0, len(points) - 1)
        parts += _dot(one, x(kl), y(nll), named=named, left=x(kl) > x.end - 160)
    summary = "Gain against drift. " + "; ".join(_words(one) for one, _, _ in points[:LABELS])
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, summary, Markup("\n").join(parts)
    )


def _dot(one: Place, x: float, y: float, *, named: bool, left: bool) -> Iterator[Markup]:
    """The point, a ring around the exported one, and its name."""
    if one.exported:
        yield Markup('<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="10"/>').format(x, y)
    dot = '<circle class="dots" cx="{:.1f}" cy="{:.1f}" r="5"><title>{}</title></circle>'
    yield Markup(dot).format(x, y, _words(one))
    if named:
        label = '<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>'
        yield Markup(label).format(x + (-14 if left else 14), y - 8, "end" if left else "start", _name(one))


def _name(one: Place) -> str:
    return ("base" if one.step == 0 else f"step {count(one.step)}") + (", exported" if one.exported else "")


def _words(one: Place) -> str:
    return f"{_name(one)}: held-out loss {brief(one.nll)}, KL {brief(one.kl)}"


def _axis(values: Sequence[float], start: float, end: float, *, zero: bool = False) -> Axis:
    low, high = (min(0.0, *values) if zero else min(values)), max(values)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), SMALLEST):
        room = abs(high) * 0.1 if abs(high) > SMALLEST else 1.0
        low, high = (low if zero else low - room), high + room
    ticks = round_ticks(low, high, at_most=5)
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def _ticks(x: Axis, y: Axis) -> Iterator[Markup]:
    for tick in x.ticks:
        yield Markup(
            '<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
            '<text x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text>'
        ).format(x(tick), y.end, y.start, y.start + 19, brief(tick))
