"""What a data set is like, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tutelage.cli.screen import printable
from tutelage.report.collect import number
from tutelage.report.facts import Facts, Table, completed, whole
from tutelage.report.notes import notes
from tutelage.report.text import brief, count, percent

FEW = 6
"""How many of a ranking are told."""


def data_text(facts: Facts) -> list[str]:
    """Return what is known, in lines of a label and a text; what is worth a look comes last."""
    facts = completed(facts)
    lines = [
        *_rows(facts),
        *_tokens(facts.get("tokens") or {}),
        *_statistics(facts.get("statistics") or {}),
        *_findings(facts),
        *(("look", note.sentence) for note in notes(facts)),
    ]
    return [f"{label:<8}{' '.join(printable(text).split())}" for label, text in lines]


def ledger_text(ledger: Table) -> str:
    """Return the rows read as the sum of what became of them."""
    dropped = [f" + {count(whole(n))} dropped ({why})" for why, n in (ledger.get("dropped") or {}).items()]
    rows, trained, heldout = (count(whole(ledger.get(key))) for key in ("rows", "trained", "heldout"))
    return f"{rows} = {trained} trained + {heldout} held out{''.join(dropped)}"


def _rows(facts: Facts) -> Iterator[tuple[str, str]]:
    for source in facts.get("sources") or ():
        name = source.get("name") or source.get("path") or "–"
        shown = ", ".join(map(str, name)) if isinstance(name, list | tuple) else str(name)
        yield "data", f"{shown} ({source.get('format', '–')}, {count(whole(source.get('rows')))} rows)"
    if ledger := facts.get("ledger") or {}:
        yield "rows", ledger_text(ledger)
        yield from (("note", str(notice)) for notice in ledger.get("notices") or ())
    for source in facts.get("mixture") or ():
        taken, passes = count(whole(source.get("taken"))), brief(number(source.get("epochs")))
        times = "1 pass" if passes == "1" else f"{passes} passes"
        yield "mix", f"{source.get('source', '–')}: {taken} examples in an epoch, {times} in the run"


def _tokens(tokens: Table) -> Iterator[tuple[str, str]]:
    if not tokens:
        return
    total, trained = whole(tokens.get("total", tokens.get("train"))), whole(tokens.get("supervised"))
    padding = number((tokens.get("padding") or {}).get("share"))
    saved = "" if padding is None else f"; without packing {percent(padding)} would be padding"
    yield "tokens", f"{count(total)}, {count(trained)} of them trained ({percent(trained / max(1, total))}){saved}"
    if quantiles := tokens.get("quantiles"):
        yield "length", _lengths(quantiles, "tokens")


def _lengths(quantiles: Table, unit: str) -> str:
    half, most, longest = (count(number(quantiles.get(share))) for share in ("50", "99", "100"))
    return f"half up to {half}, 99 % up to {most}, the longest {longest} {unit}"


def _statistics(statistics: Table) -> Iterator[tuple[str, str]]:
    if not statistics:
        return
    rows = whole(statistics.get("rows"))
    for label, side in (("prompt", "prompts"), ("answer", "answers")):
        quantiles = ((statistics.get(side) or {}).get("characters") or {}).get("quantiles")
        if quantiles:
            yield label, _lengths(quantiles, "characters")
    turns = ((f"{number} messages", times) for number, times in statistics.get("turns") or ())
    holding = ((name.replace("_", " "), n) for name, n in (statistics.get("holding") or {}).items())
    answers = statistics.get("answers") or {}
    for label, counts, total in (
        ("turns", turns, whole(statistics.get("conversations"))),
        ("scripts", (answers.get("scripts") or {}).items(), whole(answers.get("count"))),
        ("holding", holding, rows),
        ("asked", statistics.get("first_words") or (), rows),
    ):
        if told := _ranking(counts, total):
            yield label, told
    prompts, answers = (
        whole(((statistics.get(side) or {}).get("repeated") or {}).get("again")) for side in ("prompts", "answers")
    )
    if prompts or answers:
        yield "again", f"{count(prompts)} prompts and {count(answers)} answers are those of an earlier row"


def _ranking(counts: Iterable[Any], total: int) -> str:
    """The most frequent, with their shares."""
    known = sorted(((str(name), whole(times)) for name, times in counts), key=lambda one: -one[1])
    told = [f"{name} {percent(times / max(1, total))}" for name, times in known if times]
    return ", ".join(told[:FEW]) + (f", {len(told) - FEW:,} more" if len(told) > FEW else "")


def _findings(facts: Facts) -> Iterator[tuple[str, str]]:
    duplicates = facts.get("duplicates") or {}
    if duplicates.get("prompts"):
        yield "repeats", f"{count(whole(duplicates.get('prompts')))} rows repeat the prompt of an earlier row"
    for rule in facts.get("cleaning") or ():
        done = ", ".join(f"{count(whole(rows))} {action}" for action, rows in (rule.get("counts") or {}).items())
        yield "clean", f"{str(rule.get('rule', '–')).replace('_', ' ')}: {done}"
