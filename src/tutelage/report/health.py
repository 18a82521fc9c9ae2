"""Health of the answers in tables, and what of it and of the rest of a result is worth a warning under the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tutelage.report import text
from tutelage.report.collect import mapping, number
from tutelage.report.contents import Report, Table

HEALTH = {
    "stopped": ("stopped by itself", True),
    "hit_limit": ("ran into the limit", False),
    "empty": ("empty", False),
    "loops": ("ends in a loop", False),
    "broken_fence": ("leaves a block of code open", False),
    "invalid_json": ("should be JSON and is not", False),
    "well": ("nothing of this is wrong", True),
    "stop_probability": ("probability of stopping where held-out answers end", True),
}
"""What can be said of an answer, in words, and whether more of it is better."""
TROUBLES = {
    "hit_limit": (0.2, "do not stop by themselves and run into the limit"),
    "loops": (0.05, "end in a loop"),
    "empty": (0.05, "are empty"),
    "broken_fence": (0.05, "leave a block of code open"),
    "invalid_json": (0.05, "should be JSON and are not"),
}
"""From which share of the tuned model's answers on each is worth a warning, and how it is put."""
UNKNOWN = 0.25
"""As is so large a share of held-out answers that ask for what the base model does not know."""
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
        if before is not None and after is not None and abs(after - before) >= MOVED:
            way = "good" if (after > before) == more else "bad"
        found.append(Share(name, text.percent(before), text.percent(after), way))
    return found


def counted(table: Any) -> str:
    """How many answers stand behind the shares."""
    known = [number(mapping(mapping(table).get(model)).get("n")) for model in ("base", "tuned")]
    most = max((n for n in known if n is not None), default=None)
    return f"n = {text.count(most)}" if most else ""


def concerns(report: Report) -> list[Concern]:
    """What the verdict remarks, or what its parts say where it does not; the graver first, empty when nothing is."""
    result = report.result or {}
    remarks = mapping(result.get("verdict")).get("remarks")
    if isinstance(remarks, list):
        return [*_ending(result), *(Concern("care", text.setting(remark)) for remark in remarks)]
    return [*_ending(result), *_answers(result), *_learning(result), *_exported(result)]


def _ending(result: Table) -> Iterator[Concern]:
    status = result.get("status")
    if status in ("failed", "diverged", "stopped"):
        error = str(result.get("error") or "").strip()
        words = {"failed": "The run failed", "diverged": "The run diverged", "stopped": "The run was stopped"}[status]
        yield Concern("care" if status == "stopped" else "bad", f"{words}: {error}" if error else f"{words}.")


def _answers(result: Table) -> Iterator[Concern]:
    health = mapping(result.get("health"))
    base, tuned = mapping(health.get("base")), mapping(health.get("tuned"))
    for key, (limit, words) in TROUBLES.items():
        share, before = number(tuned.get(key)), number(base.get(key))
        if share is not None and share >= limit:
            was = "" if before is None else f"; of the base model’s {text.percent(before)}"
            sentence = f"{text.percent(share)} of the tuned model’s answers {words}{was}."
            yield Concern("bad" if before is None or share > before else "care", sentence)


def _learning(result: Table) -> Iterator[Concern]:
    word = mapping(result.get("verdict")).get("word")
    memorising, drift = mapping(result.get("memorising")), mapping(result.get("drift"))
    knowledge = mapping(result.get("knowledge"))
    if memorising.get("verdict") is True and word != "memorising" and memorising.get("sentence"):
        yield Concern("bad", str(memorising["sentence"]))
    for name, task in mapping(result.get("tasks")).items():
        if mapping(task).get("verdict") == "worse":
            yield Concern("bad", str(mapping(task).get("sentence") or f"Worse on {name}."))
    if drift.get("verdict") == "worse" and drift.get("sentence"):
        yield Concern("bad", str(drift["sentence"]))
    asks = knowledge.get("warns") is True or (number(knowledge.get("share")) or 0) >= UNKNOWN
    if asks and knowledge.get("sentence"):
        yield Concern("care", str(knowledge["sentence"]))


def _exported(result: Table) -> Iterator[Concern]:
    best = mapping(result.get("best"))
    earlier = best.get("exported") is True or best.get("exported") == best.get("step")
    step, last = number(best.get("step")), number(best.get("last_step"))
    if earlier and step is not None and last is not None and step < last:
        words = f"Step {text.count(step)} was exported, not the last one, {text.count(last)}."
        yield Concern("care", str(best.get("sentence") or words))
