"""Other runs beside this one: what each measured, and in which options it differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.report import text
from tutelage.report.collect import mapping, number
from tutelage.report.contents import Report
from tutelage.report.curves import OTHERS
from tutelage.report.summary import VERDICTS

OPTIONS = 40
"""Options in which the runs differ that are shown."""
_OWN = ("output",)
"""Options that differ between any two runs and say nothing."""


@dataclass(frozen=True, slots=True)
class Beside:
    """One run in words."""

    run: int
    name: str
    steps: str
    before: str
    after: str
    difference: str
    general: str
    verdict: str
    same_rows: bool | None
    """Whether it was measured on the same held-out rows as this run; None where that is not recorded."""


def names(report: Report, others: Sequence[Report]) -> list[str]:
    """One for each run; runs of one name are told apart by a number."""
    found: list[str] = []
    for run in (report, *others):
        name, times = run.name, sum(one.name == run.name for one in (report, *others))
        found.append(f"{name} ({len(found) + 1})" if times > 1 else name)
    return found


def beside(report: Report, others: Sequence[Report]) -> list[Beside]:
    """Each run in words, the page's own first; empty where there are no others."""
    runs = enumerate(zip(names(report, others), (report, *others), strict=True))
    return [_line(place, name, run, report) for place, (name, run) in runs] if others else []


def differing(report: Report, others: Sequence[Report]) -> list[tuple[str, list[str]]]:
    """(option, its value in each run) where the recipes differ."""
    flat = [dict(_flat(run.options)) for run in (report, *others)]
    keys = dict.fromkeys(key for one in flat for key in one if key not in _OWN)
    missing = object()
    return [
        (key, [text.setting(one[key]) if key in one else text.DASH for one in flat])
        for key in keys
        if any(one.get(key, missing) != flat[0].get(key, missing) for one in flat[1:])
    ]


def drawn(others: Sequence[Report]) -> Sequence[Report]:
    """Those of them that are drawn."""
    return others[:OTHERS]


def _line(place: int, name: str, run: Report, own: Report) -> Beside:
    result = run.result or {}
    heldout, drift = mapping(result.get("heldout")), mapping(result.get("drift"))
    last = run.measurements[-1] if run.measurements else None
    after = number(heldout.get("tuned_nll"))
    before = number(heldout.get("base_nll"))
    if before is None and run.measurements and run.measurements[0].step == 0:
        before = run.measurements[0].nll
    word = mapping(result.get("verdict")).get("word") or heldout.get("verdict") or result.get("status") or "unfinished"
    sign = VERDICTS[word][1] + " " if isinstance(word, str) and word in VERDICTS else ""
    known = bool(run.heldout_rows and own.heldout_rows)
    return Beside(
        run=place,
        name=name,
        steps=text.count(run.steps[-1].step if run.steps else 0),
        before=text.decimal(before),
        after=text.decimal(after if after is not None or last is None or last.step == 0 else last.nll),
        difference=text.signed(number(heldout.get("difference"))),
        general=text.signed(number(drift.get("difference"))),
        verdict=sign + str(word),
        same_rows=run.heldout_rows == own.heldout_rows if known else None,
    )


def _flat(options: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(options, dict) and options:
        for key, value in options.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, options
