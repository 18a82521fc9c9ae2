"""What every chart stands on: numbers to pixels, round ticks, and the lines and labels of both axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tutelage.report.text import brief, count, decimal

LEFT, RIGHT, TOP, BOTTOM = 62, 30, 34, 42
"""Pixels around the lines of a chart."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to pixels; `ticks` are round numbers within it."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        value = math.log10(value) if self.log else value
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def round_ticks(low: float, high: float, at_most: int = 6, *, whole: bool = False) -> tuple[float, ...]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` or below to `high` or above."""
    rough = (high - low) / at_most
    power = 10.0 ** math.floor(math.log10(rough))
    gap = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    gap = max(gap, 1.0) if whole else gap
    first, last = math.floor(low / gap + 1e-9), math.ceil(high / gap - 1e-9)
    return tuple(float(f"{i * gap:.12g}") for i in range(first, last + 1))


def grid(x: Axis, y: Axis, unit: str, across: str) -> Iterator[Markup]:
    """Lines and labels of both axes; `unit` is what goes up, `across` what goes to the right."""
    yield Markup('<text class="unit" x="2" y="14">{}</text>').format(unit)
    for tick, label in zip(y.ticks, _labels(y.ticks), strict=True):
        line = '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
        yield Markup(line + '<text x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>').format(
            x.start, x.end, y(tick), x.start - 8, y(tick) + 4, label
        )
    for tick in x.ticks:
        yield Markup(
            '<line class="axis" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
            '<text x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text>'
        ).format(x(tick), y.start, y.start + 4, y.start + 19, count(tick))
    yield Markup('<text class="unit" x="{}" y="{}" text-anchor="end">{}</text>').format(x.end, y.start + 37, across)


def _labels(ticks: Sequence[float]) -> list[str]:
    """The ticks with one count of decimals."""
    labels = [brief(tick) for tick in ticks]
    if any("e" in label for label in labels):
        return labels
    digits = max(len(label.partition(".")[2]) for label in labels)
    return [decimal(tick, digits) for tick in ticks]
