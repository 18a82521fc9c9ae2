"""The reasons below a verdict: where it helped, memorising, knowledge, and the rows that are suspect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from tutelage.report import text
from tutelage.report.chart import interval
from tutelage.report.collect import mapping, mappings, number
from tutelage.report.contents import Report, Table
from tutelage.report.summary import VERDICTS, bounds

KINDS = {
    "source": "By source",
    "task": "By task",
    "turn": "By turn of the conversation",
    "length": "By length",
    "part": "By part of the answer",
}
NAMES = {
    "n": "how many",
    "zero_shot_nll": "loss without examples, nats per token",
    "few_shot_nll": "loss after a few examples, nats per token",
    "control_nll": "loss after examples and another row’s prompt, nats per token",
    "shots": "examples shown",
    "unknown": "answers that hold facts which neither prompt nor base gives",
    "share": "share of such answers",
}
"""What the keys of a result mean, where they do not say it themselves."""
LINES = 40
"""Lines of one breakdown that are shown."""
SUSPECTS, PASSES = 10, 5
"""Suspects, and losses of one, that are shown: the first and the last ones."""


class Part(NamedTuple):
    """The held-out loss on some of the examples."""

    name: str
    n: str
    tokens: str
    before: str
    after: str
    difference: str
    drawing: Markup
    kind: str
    """better, worse or same: its verdict, or on which side of zero its interval lies."""


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The held-out loss in parts."""

    title: str
    parts: tuple[Part, ...]
    unshown: int


class Epoch(NamedTuple):
    """Training against held-out loss at the end of a pass; `share` is the gap by the largest, for a bar."""

    epoch: str
    train: str
    heldout: str
    gap: str
    share: float


class Suspect(NamedTuple):
    """A row that a reader should look at; `losses` pass by pass."""

    origin: str
    kind: str
    why: str
    losses: str
    prompt: str
    answer: str


def breakdowns(report: Report) -> list[Breakdown]:
    """Those in which there is more than one part, all drawn on one scale."""
    given = mapping(mapping((report.result or {}).get("heldout")).get("breakdown"))
    groups = {str(key): lines for key, value in given.items() if len(lines := mappings(value)) > 1}
    every = [line for lines in groups.values() for line in lines[:LINES]]
    ends = [end for line in every for end in (*bounds(line), number(line.get("difference"))) if end is not None]
    reach = max(map(abs, ends), default=0.0) or None
    return [
        Breakdown(
            KINDS.get(key, f"By {key}"), tuple(_part(line, reach) for line in lines[:LINES]), max(0, len(lines) - LINES)
        )
        for key, lines in groups.items()
    ]


def epochs(report: Report) -> list[Epoch]:
    """The passes over the rows, in order."""
    lines = mappings(mapping((report.result or {}).get("memorising")).get("epochs"))
    gaps = [number(line.get("gap")) for line in lines]
    largest = max((abs(gap) for gap in gaps if gap is not None), default=0.0) or 1.0
    return [
        Epoch(
            text.brief(number(line.get("epoch"))),
            text.decimal(number(line.get("train_nll"))),
            text.decimal(number(line.get("heldout_nll"))),
            text.signed(gap),
            round(100 * max(0.0, gap or 0.0) / largest, 1),
        )
        for line, gap in zip(lines, gaps, strict=True)
    ]


def suspects(report: Report) -> list[Suspect]:
    """The first of `suspects.jsonl`, which is in order of rank."""
    return [_suspect(line) for line in report.suspects[:SUSPECTS]]


def sentences(report: Report) -> dict[str, str]:
    """What the result says in words of each of its parts; empty where it says nothing."""
    names = ("best", "drift", "memorising", "knowledge")
    told = {name: mapping((report.result or {}).get(name)).get("sentence") for name in names}
    return {name: text.setting(sentence) if sentence else "" for name, sentence in told.items()}


def unknown(report: Report) -> list[tuple[str, str]]:
    """(row, its words that the base model does not know) of the held-out answers that the result lists."""
    lines = mappings(mapping((report.result or {}).get("knowledge")).get("rows"))
    return [
        (_place(line), ", ".join(map(str, words))) for line in lines if isinstance(words := line.get("words"), list)
    ]


def details(value: object) -> dict[str, object]:
    """What of an object is told in one line each: all but its sentence, its verdict, its lists and what is empty."""
    known = {str(key): one for key, one in mapping(value).items() if key not in ("sentence", "verdict", "warns")}
    told = {key: one for key, one in known.items() if one not in (None, "") and not isinstance(one, list | dict)}
    return {NAMES.get(key, key): one for key, one in told.items()}


def _part(line: Table, reach: float | None) -> Part:
    difference, (low, high) = number(line.get("difference")), bounds(line)
    known = difference is not None and low is not None and high is not None
    drawing = interval(difference, low, high, reach) if known else Markup("")  # type: ignore[arg-type]
    kind = VERDICTS.get(str(line.get("verdict")), ("", ""))[0]
    if not kind:
        kind = "better" if high is not None and high < 0 else "worse" if low is not None and low > 0 else "same"
    return Part(
        str(line.get("name", "")),
        text.count(number(line.get("n"))),
        text.count(number(line.get("tokens"))),
        text.decimal(number(line.get("base_nll"))),
        text.decimal(number(line.get("tuned_nll"))),
        text.signed(difference),
        drawing,
        kind,
    )


def _suspect(line: Table) -> Suspect:
    losses = line.get("losses")
    known = [number(loss) for loss in losses] if isinstance(losses, list) else [number(line.get("score"))]
    if len(known) > PASSES:
        known = [known[0], *known[1 - PASSES :]]
    words = (text.setting(line.get(key) or "") for key in ("prompt", "answer"))
    kind, why = (text.setting(line.get(key) or "") for key in ("kind", "why"))
    return Suspect(_place(line), kind, why, " → ".join(text.decimal(loss, 2) for loss in known), *words)


def _place(line: Table) -> str:
    origin = line.get("origin")
    return f"{origin.get('file')}:{origin.get('line')}" if isinstance(origin, dict) else str(origin or "")
