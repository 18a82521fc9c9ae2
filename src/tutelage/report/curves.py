"""What is drawn over the steps of a run and of those beside it, and the same numbers for the page's script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from tutelage.report import text
from tutelage.report.chart import LARGEST, Series, draw, drawable, mean, stretches
from tutelage.report.collect import mapping, number
from tutelage.report.contents import Measurement, Report, Step

POINTS, OTHER_POINTS = 2000, 600
"""Points of one line that the script is given, of this run and of another; longer runs are given as means."""
OTHERS = 7
"""Runs drawn beside this one, at most: there are no more colours and dashes that can be told apart."""

Mark = tuple[float, str]


@dataclass(frozen=True, slots=True)
class Curve:
    """One chart: its lines, and how it is drawn."""

    key: str
    title: str
    unit: str
    series: tuple[Series, ...]
    wide: bool = False
    zero: bool = False
    log: bool = False
    """Whether its values may stand on a logarithmic axis."""
    marks: tuple[Mark, ...] = ()

    def drawing(self) -> Markup:
        """The chart for readers without a script."""
        width, height = (940, 330) if self.wide else (300, 210)
        return draw(
            self.series,
            title=self.title,
            unit=self.unit,
            width=width,
            height=height,
            zero=self.zero,
            marks=self.marks if self.wide else (),
        )


def curves(report: Report, others: Sequence[Report] = ()) -> list[Curve]:
    """The charts that have anything to show; the loss always."""
    runs = [report, *others]
    marks = tuple(_marks(report))
    loss = [
        one
        for number, run in enumerate(runs)
        for one in (
            Series("training loss", [(step.step, step.loss) for step in run.steps], run=number),
            Series("held-out loss", run.evaluations, "dots", [one.se for one in run.measurements], run=number),
        )
    ]
    found = [
        Curve("loss", "Loss", "nats per token", tuple(loss), wide=True, log=True, marks=marks),
        _measured(runs, "general", "Loss on general text", "nats per token", lambda one: one.general_nll, marks),
        _measured(runs, "kl", "Distance from the base model", "KL, nats per token", lambda one: one.kl, marks),
        _measured(runs, "stop", "Probability of stopping", "at the end of held-out answers", _stop, marks),
        _stepwise(runs, "rate", "Learning rate", "", lambda step: step.learning_rate),
        _stepwise(runs, "norm", "Gradient norm", "L2 norm", lambda step: step.grad_norm),
        _stepwise(runs, "speed", "Speed", "tokens per second", lambda step: step.tokens_per_second),
    ]
    measured = ("general", "kl", "stop")
    return [one for one in found if one.key not in measured or any(line.finite() for line in one.series)]


def exported_step(report: Report) -> float | None:
    """The step whose weights were exported, where the result says so."""
    return number((report.result or {}).get("exported_step"))


def as_data(drawn: Sequence[Curve], names: Sequence[str]) -> dict[str, Any]:
    """What the script draws the charts from; a name holds no character that cannot be seen."""
    return {
        "runs": [text.visible(name) for name in names],
        "charts": {
            one.key: {
                "title": one.title,
                "unit": one.unit,
                "wide": one.wide,
                "zero": one.zero,
                "log": one.log,
                "marks": [[step, text.visible(word)] for step, word in one.marks],
                "series": [_line(line) for line in one.series if any(drawable(value) for _, value in line.points)],
            }
            for one in drawn
        },
    }


def _stop(one: Measurement) -> float | None:
    return one.stop_probability


def _marks(report: Report) -> list[Mark]:
    """The best step and the exported one, in one word where they are the same."""
    best = number(mapping((report.result or {}).get("best")).get("step"))
    exported = exported_step(report)
    if best is not None and best == exported:
        return [(best, f"best and exported: step {text.count(best)}")]
    words = ((best, "best"), (exported, "exported"))
    return [(step, f"{word}: step {text.count(step)}") for step, word in words if step is not None]


def _stepwise(runs: Sequence[Report], key: str, title: str, unit: str, take: Callable[[Step], float | None]) -> Curve:
    lines = [
        Series(title.lower(), [(step.step, take(step)) for step in run.steps], run=number)
        for number, run in enumerate(runs)
    ]
    return Curve(key, title, unit, tuple(lines), zero=True, log=key != "speed")


def _measured(
    runs: Sequence[Report],
    key: str,
    title: str,
    unit: str,
    take: Callable[[Measurement], float | None],
    marks: tuple[Mark, ...],
) -> Curve:
    lines = [
        Series(
            title.lower(),
            [(one.step, value) for one in run.measurements if (value := take(one)) is not None],
            "dots",
            run=i,
        )
        for i, run in enumerate(runs)
    ]
    return Curve(key, title, unit, tuple(lines), zero=key == "kl", log=key == "general", marks=marks)


def _line(one: Series) -> dict[str, Any]:
    """A line as lists: x, y, and where it is thinned low and high; an even x is told by its start and its gap."""
    limit = OTHER_POINTS if one.run else POINTS
    line: dict[str, Any] = {"label": one.label, "run": one.run, "kind": one.kind}
    if len(one.points) <= limit:
        x, y = [step for step, _ in one.points], [_short(value) for _, value in one.points]
        if one.errors and any(error is not None for error in one.errors):
            line["e"] = [_short(error) for error in one.errors]
    else:
        parts = [[point for point in part if drawable(point[1])] for part in stretches(one.points, limit)]
        parts = [part for part in parts if part]
        x = [round(mean([step for step, _ in part]), 1) for part in parts]
        y = [_short(mean([value for _, value in part])) for part in parts]
        line["low"] = [_short(min(value for _, value in part)) for part in parts]
        line["high"] = [_short(max(value for _, value in part)) for part in parts]
        line["each"] = -(-len(one.points) // limit)
    even = len(x) > 2 and len({b - a for a, b in pairwise(x)}) == 1
    return {**line, "x": {"from": x[0], "by": x[1] - x[0]} if even else x, "y": y}


def _short(value: float | None) -> float | None:
    return float(f"{value:.6g}") if value is not None and abs(value) < LARGEST else None
