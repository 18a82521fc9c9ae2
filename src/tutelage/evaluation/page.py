"""A comparison to one HTML file that needs nothing else: no script, no request, no font, no image.

The template holds the words; this file decides what it is given, and how much of each list. What models wrote is text
and nothing else: the template escapes it, and signs that nobody can see are spelled out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage import files
from tutelage.errors import Problem, RecipeError
from tutelage.report import text
from tutelage.report.chart import interval
from tutelage.report.health import HEALTH
from tutelage.report.summary import VERDICTS, Change
from tutelage.report.template import template

PAIRS, TURNS = 20, 12
"""Rows lost or won that are shown of each task, and turns of one prompt."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A row on which two models differ, in words."""

    origin: str
    turns: tuple[tuple[str, str], ...]
    unshown: int
    reference: str
    sides: tuple[tuple[str, str, str, str, bool], ...]
    """(name, answer, score, remark, whether it is the better one)."""


def write(comparison: dict[str, Any], path: Path) -> None:
    """Write the page.

    Raises:
        RecipeError: usage/output-exists. MachineError: machine/read-only, machine/disk-full.
    """
    if path.exists():
        what, fix = "the file of the page exists", "remove it, or choose another name"
        raise RecipeError(Problem("usage/output-exists", what, str(path), fix=fix))
    page = render(comparison).encode("utf-8", errors="replace")
    with files.explained(path, "choose another place for the page", needed=len(page)):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, page)


def render(comparison: dict[str, Any]) -> str:
    """The page as HTML text."""
    return template("comparison.html.jinja").render(
        comparison=comparison,
        headline=_headline(comparison["tasks"], [pair for pair in comparison["losses"] if not pair["note"]]),
        changes=[_change(task, comparison["confidence"]) for task in comparison["tasks"]],
        tasks=[
            (
                task,
                VERDICTS[task["verdict"]],
                list(health_rows(task["health"])),
                [(name, task[key], [_pair(task, one) for one in task[key][:PAIRS]]) for name, key in _KINDS],
            )
            for task in comparison["tasks"]
        ],
        shown=PAIRS,
    )


_KINDS = (("lost", "lost"), ("won", "won"))


def health_rows(health: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(what, of the base, of the other) in per cent, for what is known of either."""
    one, two = health["base"] or {}, health["other"] or {}
    for key, (name, _) in HEALTH.items():
        if key in one or key in two:
            yield name, text.percent(one.get(key)), text.percent(two.get(key))


def _headline(tasks: Sequence[dict[str, Any]], losses: Sequence[dict[str, Any]]) -> tuple[str, str, str]:
    """(kind, sign, words) over all tasks, by the verdicts that hold among all of them; else of held-out loss."""
    told = [task["verdict_together"] for task in tasks]
    counts = {verdict: told.count(verdict) for verdict in ("worse", "better", "no difference") if verdict in told}
    if not tasks and losses:
        kind, sign = VERDICTS[losses[0]["verdict"]]
        return kind, sign, losses[0]["sentence"]
    if not tasks:
        return "open", "–", "Nothing could be compared row by row."
    if len(tasks) == 1:
        kind, sign = VERDICTS[tasks[0]["verdict"]]
        return kind, sign, tasks[0]["sentence"]
    words = ", ".join(f"{verdict} on {count}" for verdict, count in counts.items())
    only = next(iter(counts)) if len(counts) == 1 else ""
    kind, sign = VERDICTS[only] if only else ("same", "≠")
    return (
        kind,
        sign,
        f"{len(tasks)} tasks compared: {words.replace('no difference on', 'no difference that can be told on')}.",
    )


def _change(task: dict[str, Any], confidence: float) -> Change:
    low, high = task["interval"]
    return Change(
        name=task["task"],
        unit=f"{task['other']} against {task['base']}; {task['better']} is better",
        before=f"{text.decimal(100 * task['base_score'], 1)} %",
        after=f"{text.decimal(100 * task['score'], 1)} %",
        amount=f"n = {text.count(task['n'])}",
        difference=f"difference {text.signed(100 * task['difference'], 1)} points",
        interval=f"{100 * confidence:g} % interval {text.signed(100 * low, 1)} to {text.signed(100 * high, 1)}",
        drawing=interval(100 * task["difference"], 100 * low, 100 * high),
    )


def _pair(task: dict[str, Any], one: dict[str, Any]) -> Pair:
    turns = tuple((str(turn["role"]), str(turn["content"])) for turn in one["asked"][-TURNS:])
    base, other = one["base"], one["other"]
    lower = task["better"] == "lower"
    ahead = (other["score"] < base["score"]) if lower else (other["score"] > base["score"])
    return Pair(
        origin=f"{one['origin']['file']}:{one['origin']['line']}",
        turns=turns,
        unshown=len(one["asked"]) - len(turns),
        reference=one["reference"] if isinstance(one["reference"], str) else _written(one["reference"]),
        sides=((task["base"], *_side(base), not ahead), (task["other"], *_side(other), ahead)),
    )


def _side(side: dict[str, Any]) -> tuple[str, str, str]:
    remarks = [side["why"]] if side["why"] else []
    if side["found"] is not None and side["found"] != side["answer"] and len(str(side["found"])) <= 200:
        remarks.append(f"taken as: {side['found']}")
    if side["stopped"] is False:
        remarks.append("ran into the limit")
    return str(side["answer"] or ""), text.percent(side["score"]), " · ".join(map(str, remarks))


def _written(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)
