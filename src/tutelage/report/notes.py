"""What in a data set is worth a look before it is trained on: a sentence each, the graver first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tutelage.report.facts import Facts, completed, whole
from tutelage.report.text import brief, count, cut, percent

REPEATED = 0.01
"""An answer that more than this share of the rows gives is pointed out."""
LOST = 0.02
"""As is a reason for which more than this share of the rows was dropped."""
TOLD = 3
"""How many repeated answers are worth a line each."""
PASSES = 4
"""As is a source that a run passes more often: repeating data further helps little (Muennighoff et al., 2023)."""
PRIVATE = ("secrets", "personal_data")
"""Cleaning rules whose findings should not be trained on."""


class Note(NamedTuple):
    """A sentence, and the section of the page that has more about it."""

    section: str
    sentence: str


def notes(facts: Facts) -> list[Note]:
    """Return what is worth a look; empty when nothing is."""
    facts = completed(facts)
    return [
        *_balance(facts),
        *_contamination(facts),
        *_private(facts),
        *_conflicts(facts),
        *_lost(facts),
        *_too_long(facts),
        *_repeated(facts),
        *_passes(facts),
    ]


def unaccounted(facts: Facts) -> int:
    """Return how many rows ended nowhere; 0 unless there is a bug."""
    ledger = facts.get("ledger") or {}
    dropped = sum(whole(rows) for rows in (ledger.get("dropped") or {}).values())
    return whole(ledger.get("rows")) - whole(ledger.get("trained")) - whole(ledger.get("heldout")) - dropped


def _balance(facts: Facts) -> Iterator[Note]:
    if lost := unaccounted(facts):
        yield Note("rows", f"{count(lost)} rows are not accounted for: this is a bug in Tutelage.")


def _contamination(facts: Facts) -> Iterator[Note]:
    for questions in facts.get("contamination") or ():
        if rows := whole(questions.get("rows")):
            name = cut(str(questions.get("set", "")), 80)[0]
            were = "was" if rows == 1 else "were"
            yield Note("contamination", f"{_rows(rows)} a question of {name}, and {were} left out.")


def _rows(rows: int) -> str:
    return "1 row holds" if rows == 1 else f"{count(rows)} rows hold"


def _private(facts: Facts) -> Iterator[Note]:
    for rule in facts.get("cleaning") or ():
        kept = whole((rule.get("counts") or {}).get("kept"))
        if rule.get("rule") in PRIVATE and kept:
            what = str(rule["rule"]).replace("_", " ")
            yield Note("cleaning", f"{_rows(kept)} what looks like {what}, and will be trained on as they are.")


def _conflicts(facts: Facts) -> Iterator[Note]:
    if conflicts := whole((facts.get("duplicates") or {}).get("conflicts")):
        what = "1 prompt has" if conflicts == 1 else f"{count(conflicts)} prompts have"
        yield Note("repeats", f"{what} more than one answer.")


def _lost(facts: Facts) -> Iterator[Note]:
    ledger = facts.get("ledger") or {}
    rows = whole(ledger.get("rows"))
    for reason, dropped in (ledger.get("dropped") or {}).items():
        if rows and whole(dropped) > LOST * rows:
            yield Note("rows", f"{percent(whole(dropped) / rows)} of the rows were dropped: {cut(str(reason), 80)[0]}.")


def _too_long(facts: Facts) -> Iterator[Note]:
    tokens = facts.get("tokens") or {}
    over = whole((tokens.get("over_max_length") or {}).get("examples"))
    if over:
        limit = count(whole(tokens.get("max_length")))
        what = "1 example is" if over == 1 else f"{count(over)} examples are"
        yield Note("tokens", f"{what} longer than {limit} tokens.")


def _repeated(facts: Facts) -> Iterator[Note]:
    answers = (facts.get("statistics") or {}).get("answers") or {}
    for answer in ((answers.get("repeated") or {}).get("most") or ())[:TOLD]:
        share = whole(answer.get("times")) / max(1, whole(answers.get("count")))
        if share > REPEATED:
            text = " ".join(cut(str(answer.get("text", "")), 60)[0].split())
            yield Note("repeats", f"{percent(share)} of the answers are “{text}”.")


def _passes(facts: Facts) -> Iterator[Note]:
    for source in facts.get("mixture") or ():
        epochs = source.get("epochs") or 0
        if epochs > PASSES:
            name = cut(str(source.get("source", "")), 80)[0]
            yield Note("sources", f"The run passes {name} {brief(epochs)} times.")
