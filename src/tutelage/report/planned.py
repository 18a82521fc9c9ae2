"""What was predicted before the first step against what the run then took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tutelage.report import text
from tutelage.report.collect import mapping, number
from tutelage.report.contents import Report, Table
from tutelage.report.summary import rate, total

FAR = 1.25
"""A ratio further from 1 than this is pointed out."""


class Compared(NamedTuple):
    """One quantity as predicted, as rehearsed on the machine, and as it was; `ratio` is the last by the one before."""

    name: str
    predicted: str
    rehearsed: str
    measured: str
    ratio: str
    far: bool


def compared(report: Report) -> list[Compared]:
    """Memory, time of a step, time of training and speed; those of which anything was predicted and measured."""
    plan, result, steps = report.plan, report.result or {}, report.steps
    predicted, rehearsed = mapping(plan.get("predicted")), mapping(plan.get("measured"))
    seconds = total(step.seconds for step in steps)
    memory = max((step.peak_memory_bytes for step in steps if step.peak_memory_bytes is not None), default=None)
    peak = number(result.get("peak_memory_bytes"))
    took = number(result.get("training_seconds"))
    speed = number(result.get("tokens_per_second")) or rate(total(step.tokens for step in steps), seconds)
    of_a_step = rate(total(step.tokens for step in steps), len(steps)) if steps else None

    def expected(key: str, older: str) -> float | None:
        known = number(predicted.get(key))
        return number(plan.get(older)) if known is None else known

    def pace(step_seconds: float | None) -> float | None:
        return rate(of_a_step, step_seconds)

    step_seconds = number(predicted.get("step_seconds")), number(rehearsed.get("step_seconds"))
    lines: list[tuple[str, Callable[[float | None], str], float | None, float | None, float | None]] = [
        (
            "peak memory",
            text.size,
            expected("peak_memory_bytes", "memory_bytes"),
            number(rehearsed.get("peak_memory_bytes")),
            memory if peak is None else peak,
        ),
        ("time of a step", text.duration, *step_seconds, rate(seconds, len(steps)) if steps else None),
        (
            "time of training",
            text.duration,
            expected("seconds", "seconds"),
            number(rehearsed.get("seconds")),
            (seconds if result else None) if took is None else took,
        ),
        ("tokens a second", text.count, pace(step_seconds[0]), pace(step_seconds[1]), speed),
    ]
    return [_line(*line) for line in lines if line[2] is not None or line[3] is not None]


def facts(table: Table, left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The table in one level, for reading: what is nested is named by its path, a list is joined."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key in left_out:
            continue
        if isinstance(value, Mapping):
            found |= {f"{key}: {inner}": one for inner, one in facts(value).items()}
        elif isinstance(value, list) and all(isinstance(one, str) for one in value):
            found[str(key)] = ", ".join(value)
        elif value is not None:
            found[str(key)] = value
    return found


def _line(
    name: str,
    say: Callable[[float | None], str],
    predicted: float | None,
    rehearsed: float | None,
    measured: float | None,
) -> Compared:
    expected = predicted if rehearsed is None else rehearsed
    ratio = measured / expected if measured is not None and expected else None
    far = ratio is not None and not 1 / FAR <= ratio <= FAR
    return Compared(name, say(predicted), say(rehearsed), say(measured), text.decimal(ratio, 2), far)
