"""Samples as the page shows them: the prompt, and what each model wrote, with its differences and its faults marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from tutelage.report import text
from tutelage.report.collect import mapping, mappings, number, sequence
from tutelage.report.contents import Answer, Report, Sample, Table
from tutelage.scoring.health import health

SAMPLES, MESSAGES = 12, 40
"""How many samples, and messages of one, are shown."""
PAIRS = 10
"""Rows won, and rows lost, that are shown of each task."""


class Chip(NamedTuple):
    """A word about an answer; `kind` is good, bad, care or plain."""

    kind: str
    word: str


@dataclass(frozen=True, slots=True)
class Side:
    """What one model wrote; `marked` is escaped."""

    heading: str
    answer: Answer | None
    marked: Markup
    more: int
    shared: str
    chips: tuple[Chip, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample; `turns` are (role, visible text, characters left out)."""

    origin: str
    reference: str
    turns: tuple[tuple[str, str, int], ...]
    unshown: int
    sides: tuple[Side, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of a task on which the two models differ; `sides` are (name, kind, answer, score)."""

    origin: str
    asked: str
    reference: str
    sides: tuple[tuple[str, str, str, str], ...]


def shown(report: Report) -> list[Shown]:
    """The first samples, in the order of the run folder."""
    return [_shown(sample) for sample in report.samples[:SAMPLES]]


def pairs(report: Report) -> list[tuple[str, str, int, list[Pair]]]:
    """(task, won or lost, how many, the first of them), where the result names them."""
    lines = {(one.get("task"), one.get("model"), one.get("row")): one for one in report.asked}  # The last one counts.
    found = []
    for name, task in mapping((report.result or {}).get("tasks")).items():
        for kind in ("lost", "won"):
            rows = [row for row in sequence(mapping(task).get(kind)) if isinstance(row, str)]
            sides = [(lines.get((name, "base", row)), lines.get((name, "tuned", row))) for row in rows]
            shown = [_pair(base, tuned, kind) for base, tuned in sides if base and tuned]
            if shown:
                found.append((str(name), kind, len(rows), shown[:PAIRS]))
    return found


def _shown(sample: Sample) -> Shown:
    turns: list[tuple[str, str, int]] = []
    room = text.TEXT_LIMIT
    for turn in sample.prompt[:MESSAGES]:
        if room > 0:
            words, more = text.cut(turn.text, room)
            turns.append((turn.role, words, more))
            room = 0 if more else room - len(words)
    sides = (_side("Before", sample.base, sample.reference), _side("After", sample.tuned, sample.reference))
    return Shown(sample.origin, sample.reference, tuple(turns), len(sample.prompt) - len(turns), sides)


def _side(heading: str, answer: Answer | None, reference: str) -> Side:
    """Before or after: its text, marked where it differs from the reference."""
    words, more = text.cut(answer.text if answer else "")
    if answer is None or not reference:
        return Side(heading, answer, Markup.escape(words), more, "", _chips(answer))
    marked, same, of = text.mark_differences(words, text.cut(reference)[0])
    return Side(heading, answer, marked, more, f"{same} of the reference’s {of} words", _chips(answer))


def _chips(answer: Answer | None) -> tuple[Chip, ...]:
    if answer is None:
        return ()
    found = []
    if answer.correct is not None:
        found.append(Chip("good", "✓ correct") if answer.correct else Chip("bad", "✗ incorrect"))
    if answer.stopped is not None:
        found.append(Chip("plain", "stopped by itself") if answer.stopped else Chip("care", "⚠ ran into the limit"))
    well = health(answer.text, stopped=answer.stopped is not False)
    faults = {"⚠ ends in a loop": well.loops, "⚠ empty": well.empty, "⚠ leaves code open": well.broken_fence}
    return (*found, *(Chip("care", word) for word, true in faults.items() if true))


def _pair(base: Table, tuned: Table, kind: str) -> Pair:
    origin = base.get("origin")
    where = f"{origin.get('file')}:{origin.get('line')}" if isinstance(origin, dict) else str(origin or "")
    colours = ("good", "bad") if kind == "lost" else ("bad", "good")
    sides = tuple(
        (name, colour, _written(one.get("answer")), text.percent(number(one.get("score"))))
        for name, colour, one in zip(("Before", "After"), colours, (base, tuned), strict=True)
    )
    return Pair(where, _last(base.get("asked")), _written(base.get("reference")), sides)


def _last(turns: object) -> str:
    """What the last message asks."""
    found: Sequence[Table] = mappings(turns)
    return _written(found[-1].get("content")) if found else ""


def _written(value: object) -> str:
    return "" if value is None else text.setting(value)
