"""What is known about a data set, as the data page and the terminal take it: any part may be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from tutelage.data.clean import RULES
from tutelage.report.collect import number

Table = Mapping[str, Any]


class Finding(TypedDict, total=False):
    """One row in which something was found."""

    file: str
    line: int
    excerpt: str
    field: str
    """Cleaning: where in the row."""
    action: str
    """Cleaning: kept, repaired or dropped."""
    question: str
    """Contamination: where the question stands."""
    kind: str
    """Contamination: in what the row and the question are alike."""


class Rule(TypedDict, total=False):
    """What one cleaning rule found."""

    rule: str
    meaning: str
    counts: Mapping[str, int]
    """Rows kept, repaired and dropped."""
    examples: Sequence[Finding]


class Questions(TypedDict, total=False):
    """An evaluation set, and the rows that hold one of its questions."""

    set: str
    questions: int
    rows: int
    examples: Sequence[Finding]


class Duplicates(TypedDict, total=False):
    """Rows that repeat others."""

    prompts: int
    """Rows whose prompt was read before."""
    conflicts: int
    """Prompts that have more than one answer."""
    near: int
    """Rows whose prompt is nearly that of an earlier row."""
    examples: Sequence[Finding]


class Facts(TypedDict, total=False):
    """The shape of `facts`; what is missing, empty or None has no block on the page."""

    name: str
    """The title: the recipe's name, or the file's."""
    ledger: Table
    """`Ledger.as_json()`. Duplicates, cleaning and contamination are taken from it where they are not given."""
    sources: Sequence[Table]
    """path, name, format, rows, bytes, sha256."""
    statistics: Table
    """`Statistics.as_json()`."""
    tokens: Table
    """`token_statistics()`."""
    duplicates: Duplicates
    cleaning: Sequence[Rule]
    contamination: Sequence[Questions]
    mixture: Sequence[Table]
    """source, examples, tokens, taken (in one epoch), epochs (of the source in the whole run)."""
    samples: Sequence[Table]
    """Lines of `rows.jsonl`: `PreviewRow.coloured()`."""


def completed(facts: Facts) -> Facts:
    """Return the facts with what only the ledger knows in its own place."""
    ledger = facts.get("ledger") or {}
    found = ledger.get("found") or {}
    meanings = {rule.name: rule.meaning for rule in RULES}
    own: Facts = {
        "cleaning": [
            {"rule": rule, "meaning": meanings.get(rule, ""), "counts": counts, "examples": found.get(rule) or []}
            for rule, counts in (ledger.get("cleaned") or {}).items()
        ],
        "contamination": [
            {"set": name, "rows": rows, "examples": found.get(name) or []}
            for name, rows in (ledger.get("contaminated") or {}).items()
        ],
    }
    if whole(ledger.get("duplicates")) or whole(ledger.get("conflicts")):
        own["duplicates"] = {"prompts": whole(ledger.get("duplicates")), "conflicts": whole(ledger.get("conflicts"))}
    return {**own, **facts}


def whole(value: Any) -> int:
    """The value when it is a number, otherwise 0."""
    return int(number(value) or 0)
