"""The facts of a data set to one HTML file that needs nothing else: no script, no request, no font, no image.

The template holds the words; this file decides what it is given, and how much of each list. A block whose facts
are missing is not on the page. The facts are described in `facts.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from tutelage.report.collect import number, read_ledger, read_row
from tutelage.report.facts import Facts, Table, completed, whole
from tutelage.report.histogram import Bin, histogram
from tutelage.report.notes import notes
from tutelage.report.rows import shorten
from tutelage.report.summary import Figure
from tutelage.report.template import template
from tutelage.report.text import brief, count, percent

PLACES, SAMPLES, LISTED, EXAMPLES = 100, 8, 12, 20
"""How many rows of a table, samples, entries of a ranking, and examples of a finding are shown."""

_HOLDING = {
    "system": "a system message",
    "questions": "a last prompt that ends in a question mark",
    "thinking": "thinking",
    "tools": "tools on offer",
    "calling": "tool calls",
    "code": "code",
    "json": "an answer that is JSON",
    "markdown": "Markdown in an answer",
    "other_script": "an answer in another script than its prompt",
}


class Share(NamedTuple):
    """One line of a ranking, with its bar; `scale` is the bar's length in per cent."""

    label: str
    rows: int
    share: float
    scale: float


def data_page(facts: Facts) -> str:
    """Return the page as HTML text."""
    facts = completed(facts)
    statistics, tokens = facts.get("statistics") or {}, facts.get("tokens") or {}
    return template("data.html.jinja").render(
        name=facts.get("name") or "Data",
        ledger=read_ledger(dict(facts.get("ledger") or {})),
        figures=_figures(facts),
        notes=notes(facts),
        sources=list(facts.get("sources") or ()),
        mixture=list(facts.get("mixture") or ()),
        tokens=tokens,
        token_sources=_token_sources(tokens),
        lengths=_lengths(tokens),
        statistics=statistics,
        drawings=_drawings(statistics),
        measures=_measures(statistics),
        rankings=_rankings(statistics),
        by_source=_by_source(statistics),
        duplicates=facts.get("duplicates") or {},
        repeated=_repeated(statistics),
        cleaning=[rule for rule in facts.get("cleaning") or () if rule.get("counts")],
        contamination=list(facts.get("contamination") or ()),
        samples=[(row, shorten(row)) for row in map(read_row, list(facts.get("samples") or ())[:SAMPLES])],
        more_samples=max(0, len(facts.get("samples") or ()) - SAMPLES),
        places=PLACES,
        examples=EXAMPLES,
    )


def _figures(facts: Facts) -> list[Figure]:
    ledger, tokens = facts.get("ledger") or {}, facts.get("tokens") or {}
    statistics = facts.get("statistics") or {}
    found: list[Figure] = []
    if ledger:
        rows, dropped = whole(ledger.get("rows")), sum(map(whole, (ledger.get("dropped") or {}).values()))
        for label, key in (("Rows in", "rows"), ("Trained", "trained"), ("Held out", "heldout")):
            value = whole(ledger.get(key))
            found.append(Figure(label, count(value), "" if key == "rows" else _of(value, rows)))
        found.append(Figure("Dropped", count(dropped), _of(dropped, rows)))
    elif statistics:
        found.append(Figure("Rows", count(whole(statistics.get("rows"))), "read"))
    if tokens:
        total, supervised = _total(tokens), whole(tokens.get("supervised"))
        found.append(Figure("Tokens", count(total), "in what is trained"))
        found.append(Figure("Trained tokens", count(supervised), _of(supervised, total)))
    elif statistics:
        for label, side in (("Words asked", "prompts"), ("Words answered", "answers")):
            words = (statistics.get(side) or {}).get("words") or {}
            found.append(Figure(label, count(whole(words.get("total"))), f"{brief(number(words.get('mean')))} each"))
    return found


def _of(part: int, all: int) -> str:
    return percent(part / all) if all else ""


def _total(tokens: Table) -> int:
    return whole(tokens.get("total", tokens.get("train")))


def _lengths(tokens: Table) -> Markup | None:
    bins = _bins(tokens.get("histogram"))
    if not bins:
        return None
    limit = whole(tokens.get("max_length")) or None
    return histogram(
        bins, title="Lengths", of="examples", unit="tokens in an example", width=940, height=320, limit=limit
    )


def _bins(value: Any) -> list[Bin]:
    """Ranges as they were counted; anything else in the list is left out."""
    found = [tuple(map(whole, bin)) for bin in value or () if len(bin) == 3]
    return [bin for bin in found if 0 <= bin[0] <= bin[1] and bin[2] >= 0]


def _token_sources(tokens: Table) -> list[tuple[str, Table, list[float]]]:
    """(name, counts, lengths of the trained and the other part of the bar in per cent)."""
    found = []
    sources = tokens.get("sources") or {}
    largest = max([1, *(whole(one.get("tokens")) for one in sources.values())])
    for name, one in list(sources.items())[:PLACES]:
        trained, rest = whole(one.get("supervised")), whole(one.get("tokens")) - whole(one.get("supervised"))
        found.append((str(name), one, [round(100 * part / largest, 2) for part in (trained, rest)]))
    return found


def _drawings(statistics: Table) -> list[tuple[str, Markup]]:
    found = []
    for side in ("prompts", "answers"):
        bins = _bins(((statistics.get(side) or {}).get("characters") or {}).get("histogram"))
        if bins:
            title = f"Length of {side}"
            drawn = histogram(bins, title=title, of=side, unit="characters", width=450, height=230)
            found.append((title, drawn))
    return found


def _measures(statistics: Table) -> list[tuple[str, list[Any]]]:
    """(what is measured, mean and quantiles) for the table of lengths."""
    found = []
    for side in ("prompts", "answers"):
        for unit in ("characters", "words"):
            measured = (statistics.get(side) or {}).get(unit) or {}
            quantiles = measured.get("quantiles") or {}
            if measured:
                values = [
                    number(measured.get("mean")),
                    *(number(quantiles.get(at)) for at in ("50", "90", "99", "100")),
                ]
                found.append((f"{side.capitalize()}, {unit}", values))
    return found


def _rankings(statistics: Table) -> list[tuple[str, str, list[Share], int]]:
    """(caption, what is counted, the lines, how many lines are not shown) of each thing that is counted."""
    if not statistics:
        return []
    rows = whole(statistics.get("rows"))
    holding = statistics.get("holding") or {}
    roles = statistics.get("roles") or {}
    turns = statistics.get("turns") or ()
    named = [(label, holding.get(key)) for key, label in _HOLDING.items()]
    found = [
        ("Rows with", "rows", _shares(named, rows)),
        ("Messages in a conversation", "rows", _shares(_messages(turns), whole(statistics.get("conversations")))),
        ("Messages by role", "messages", _shares(roles.items(), sum(map(whole, roles.values())))),
    ]
    for side in ("prompts", "answers"):
        part = statistics.get(side) or {}
        scripts = _shares((part.get("scripts") or {}).items(), whole(part.get("count")))
        found.append((f"Scripts of {side}", side, scripts))
    words = [(word, times) for word, times in statistics.get("first_words") or ()]
    found.append(("First words of what is asked", "rows", _shares(words, rows)))
    return [(caption, of, lines[:LISTED], max(0, len(lines) - LISTED)) for caption, of, lines in found if lines]


def _messages(turns: Sequence[Sequence[int]]) -> Iterable[tuple[str, int]]:
    """Numbers of messages with their rows; those beyond the table as one line."""
    for messages, rows in turns[: LISTED - 1]:
        yield str(messages), rows
    rest = turns[LISTED - 1 :]
    if rest:
        yield f"{count(rest[0][0])} to {count(rest[-1][0])}", sum(rows for _, rows in rest)


def _shares(counts: Iterable[tuple[Any, Any]], total: int) -> list[Share]:
    known = [(str(label), whole(rows)) for label, rows in counts if whole(rows) > 0]
    largest = max([1, *(rows for _, rows in known)])
    return [Share(label, rows, rows / max(1, total), round(100 * rows / largest, 2)) for label, rows in known]


def _by_source(statistics: Table) -> list[tuple[str, list[int], str]]:
    """(source, [rows, median characters of prompts and answers, repeated prompts and answers], main scripts)."""
    found = []
    for name, part in (statistics.get("sources") or {}).items():
        sides = [part.get(side) or {} for side in ("prompts", "answers")]
        middle = [((side.get("characters") or {}).get("quantiles") or {}).get("50") for side in sides]
        again = [(side.get("repeated") or {}).get("again") for side in sides]
        scripts = ", ".join(list(sides[1].get("scripts") or {})[:3])
        found.append((str(name), [whole(value) for value in (part.get("rows"), *middle, *again)], scripts))
    return found if len(found) > 1 else []


def _repeated(statistics: Table) -> list[tuple[str, int, list[Mapping[str, Any]]]]:
    """(prompts or answers, how many repeat an earlier one, the most frequent of them)."""
    found = []
    for side in ("prompts", "answers"):
        repeated = (statistics.get(side) or {}).get("repeated") or {}
        if whole(repeated.get("again")):
            found.append((side, whole(repeated.get("again")), list(repeated.get("most") or ())[:LISTED]))
    return found
