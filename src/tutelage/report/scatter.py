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
CHARACTER, LINE = 7.0, 15.0
"""How wide and how high a character of a name is, about."""


@dataclass(frozen=True, slots=True)
class Place:
    """The model after a step: what it gained, and how far it moved."""

    step: float
    nll: float | None
    general_nll: float | None
    kl: float | None
    exported: bool
    kept: bool
    """Whether its checkpoint was kept, so that it can be exported."""


def frontier(report: Report) -> list[Place]:
    """The steps in order; from `evaluations.jsonl` where the result has none yet."""
    exported = exported_step(report)
    given = mappings((report.result or {}).get("frontier"))
    kept = {number(one.get("step")) for one in given if one.get("kept") is True}
    lines = [{key: number(one.get(key)) for key in _KEYS} for one in given]
    lines = lines or [{key: getattr(one, key) for key in _KEYS} for one in report.measurements]
    found = [
        Place(step, line["nll"], line["general_nll"], line["kl"], step == exported, step in kept)
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
    labels = _labels([(one, x(kl), y(nll)) for one, kl, nll in points], x.end)
    for (one, kl, nll), label in zip(points, labels, strict=True):
        parts += _dot(one, x(kl), y(nll), label)
    summary = "Gain against drift. " + "; ".join(_words(one) for one, _, _ in points[:LABELS])
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, summary, Markup("\n").join(parts)
    )


def _labels(points: Sequence[tuple[Place, float, float]], end: float) -> list[Markup]:
    """The name beside each point; nothing where it would lie over one that matters more."""
    most = range(len(points)) if len(points) <= LABELS else (0, len(points) - 1)
    order = sorted(range(len(points)), key=lambda place: (not points[place][0].exported, place != 0, -place))
    labels = [Markup("")] * len(points)
    taken: list[tuple[float, float, float]] = []
    for place in order:
        one, x, y = points[place]
        wide, left = CHARACTER * len(_name(one)), x > end - 160
        # Losses fall to the right as a rule: above the line there, and below it where there is no room to the right.
        base = y + 20 if left and y + 20 < HEIGHT - BOTTOM else y - 8
        start = x - 14 - wide if left else x + 14
        free = all(abs(base - at) >= LINE or start + wide < low or start > high for low, high, at in taken)
        if free and (one.exported or place in most):
            taken.append((start, start + wide, base))
            text = '<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>'
            labels[place] = Markup(text).format(start + wide * left, base, "end" if left else "start", _name(one))
    return labels


def _dot(one: Place, x: float, y: float, label: Markup) -> Iterator[Markup]:
    """The point, a ring around the exported one, and its name."""
    if one.exported:
        yield Markup('<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="10"/>').format(x, y)
    dot = '<circle class="dots" cx="{:.1f}" cy="{:.1f}" r="5"><title>{}</title></circle>'
    yield Markup(dot).format(x, y, _words(one))
    yield label


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
