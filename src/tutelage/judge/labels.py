"""What people said of the same pairs, and how far the judge agrees with them."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage import files
from tutelage.errors import DataError, Problem
from tutelage.evaluate.compare import wilson

LABELS = {"a": "A", "b": "B", "tie": "tie"}


@dataclass(frozen=True, slots=True)
class Labels:
    """By row: `A`, `B` or `tie`."""

    file: str
    of: Mapping[str, str]
    sha256: str


def read(file: Path) -> Labels:
    """Labels from a .jsonl or .csv file with `row` and `label`, or a .json object from row to label.

    Raises:
        DataError: data/missing-file, data/bad-json, data/bad-encoding, data/bad-row, data/unknown-type.
    """
    if not file.is_file():
        raise DataError(Problem("data/missing-file", "the file of labels does not exist", str(file)))
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for where, row, label in _rows(file):
        known = LABELS.get(str(label).strip().lower())
        if not isinstance(row, str) or not row or known is None:
            what, told = "a label is A, B or tie, for the name of a row", f"row {row!r}, label {label!r}"
            problems.append(Problem("data/bad-row", what, where, told, fix="write it as in row,label"))
        elif found.setdefault(row, known) != known:
            what, told = "a row is labelled twice, and differently", f"{row}: {found[row]} and {known}"
            problems.append(Problem("data/bad-row", what, where, told, fix="leave one of them"))
    if problems:
        raise DataError.of(problems[:10])
    return Labels(str(file), found, files.sha256(file))


def _rows(file: Path) -> Iterator[tuple[str, Any, Any]]:
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            Problem("data/bad-encoding", "the file of labels is not UTF-8", str(file), str(error))
        ) from None
    if file.suffix == ".csv":
        for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
            yield f"{file}:{number}", row.get("row"), row.get("label")
    elif file.suffix == ".json":
        whole = _json(text, str(file))
        for name, label in whole.items():
            yield str(file), name, label
    elif file.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                row = _json(line, f"{file}:{number}")
                yield f"{file}:{number}", row.get("row"), row.get("label")
    else:
        what, fix = "labels are read from .jsonl, .csv and .json", "write one line for each row, with `row` and `label`"
        raise DataError(Problem("data/unknown-type", what, str(file), fix=fix))


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(Problem("data/bad-json", "labels cannot be read", where, str(error))) from None
    if isinstance(value, dict):
        return value
    raise DataError(Problem("data/bad-json", "labels are not a JSON object", where, type(value).__name__))


def agreement(ours: Sequence[str], theirs: Sequence[str], confidence: float) -> dict[str, Any]:
    """Share of equal labels and Cohen's kappa, with intervals.

    Kappa's interval takes how often each label is given as known, as Cohen (1960) does, and Wilson's interval of the
    share: it has a width also where all labels agree. Where one label is given to everything, kappa has no value.
    """
    n = len(ours)
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    if not n:
        return {"n": 0, "agreement": None, "interval": None, "kappa": None, "kappa_interval": None}
    low, high = wilson(same, n, confidence)
    mine, others = Counter(ours), Counter(theirs)
    by_chance = sum(mine[label] * others[label] for label in mine) / n**2

    def kappa(share: float) -> float:
        return (share - by_chance) / (1 - by_chance)

    defined = by_chance < 1
    return {
        "n": n,
        "agreement": same / n,
        "interval": [low, high],
        "kappa": kappa(same / n) if defined else None,
        "kappa_interval": [kappa(low), kappa(high)] if defined else None,
        "table": {one: {other: _times(ours, theirs, one, other) for other in ("A", "B", "tie")} for one in _LABELS},
    }


_LABELS = ("A", "B", "tie")


def _times(ours: Sequence[str], theirs: Sequence[str], one: str, other: str) -> int:
    return sum(pair == (one, other) for pair in zip(ours, theirs, strict=True))
