"""Health of the answers in tables, and what is worth a warning under the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tutelage.report import text
from tutelage.report.collect import mapping, number
from tutelage.report.contents import Report, Table

HEALTH = {
    "stopped": ("stopped by itself", True),
    "cut_at_text": ("cut at a stop text", None),
    "hit_limit": ("ran into the limit", False),
    "empty": ("empty", False),
    "loops": ("ends in a loop", False),
    "broken_fence": ("leaves a block of code open", False),
    "invalid_json": ("should be JSON and is not", False),
    "well": ("nothing of this is wrong", True),
    "stop_probability": ("probability of stopping where held-out answers end", True),
}
"""What can be said of an answer, in words, and whether more of it is better; None where it is neither."""
MOVED = 0.01
"""A smaller change of a share is not marked as one."""


class Share(NamedTuple):
    """One share before and after; `way` is good, bad or empty."""

    name: str
    before: str
    after: str
    way: str


class Concern(NamedTuple):
    """Something to know beside the verdict; `kind` is bad or care."""

    kind: str
    sentence: str


def shares(table: Any) -> list[Share]:
    """What is known of the answers of either model."""
    base, tuned = mapping(mapping(table).get("base")), mapping(mapping(table).get("tuned"))
    found = []
    for key, (name, more) in HEALTH.items():
        before, after = number(base.get(key)), number(tuned.get(key))
        if before is None and after is None:
            continue
        way = ""
        if more is not None and before is not None and after is not None and abs(after - before) >= MOVED:
            way = "good" if (after > before) == more else "bad"
        found.append(Share(name, text.percent(before), text.percent(after), way))
    return found


def counted(table: Any) -> str:
    """How many answers stand behind the shares."""
    known = [number(mapping(mapping(table).get(model)).get("n")) for model in ("base", "tuned")]
    most = max((n for n in known if n is not None), default=None)
    return f"n = {text.count(most)}" if most else ""


def concerns(report: Report) -> list[Concern]:
    """How it ended, where not well, and what the verdict remarks."""
    result = report.result or {}
    remarks = mapping(result.get("verdict")).get("remarks") or []
    return [*_ending(result), *(Concern("care", text.setting(remark)) for remark in remarks)]


def _ending(result: Table) -> Iterator[Concern]:
    status = result.get("status")
    if status in ("failed", "diverged", "stopped"):
        error = str(result.get("error") or "").strip()
        words = {"failed": "The run failed", "diverged": "The run diverged", "stopped": "The run was stopped"}[status]
        yield Concern("care" if status == "stopped" else "bad", f"{words}: {error}" if error else f"{words}.")
