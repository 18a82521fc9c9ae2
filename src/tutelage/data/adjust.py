"""`data.adjust`: weights for single rows, which are named by what they hold and found wherever they lie now.

A row that is trained is left out where its weight is 0, and its loss multiplied otherwise. A held-out row stays as it
is, so that what is measured can be compared with what was measured before.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data.sources.files import read_file
from tutelage.errors import DataError, Problem
from tutelage.types import Record

_NAME = re.compile(r"[0-9a-f]{16}")


def name_of_row(pair: int) -> str:
    """What a row is called by its content: its prompt without case and signs, and its answers."""
    return f"{pair:016x}"


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What the file says, by row."""

    weights: Mapping[int, float]
    where: Mapping[int, str]
    """The line that says it, and where the row was when it was written."""

    @staticmethod
    def read(path: str) -> Adjustment:
        """The file.

        Raises:
            DataError: data/missing-file; data/bad-json or data/bad-row, with every line that is wrong.
        """
        if not Path(path).is_file():
            fix = "`tutelage data suspects RUN` writes one"
            raise DataError(Problem("data/missing-file", "the file that data.adjust names is not there", path, fix=fix))
        weights: dict[int, float] = {}
        where: dict[int, str] = {}
        problems: list[Problem] = []
        for record in read_file(path):
            found = record if isinstance(record, Problem) else _wrong(record.fields, str(record.origin))
            if found is None and isinstance(record, Record):
                row, weight = int(record.fields["row"], 16), float(record.fields["weight"])
                if weights.setdefault(row, weight) != weight:
                    what, why = "a row is given two weights", f"the other one stands in {where[row].split(' ')[0]}"
                    found = Problem("data/bad-row", what, str(record.origin), record.fields["row"], why)
                origin = record.fields.get("origin")
                where.setdefault(row, f"{record.origin}" + (f" ({origin})" if origin else ""))
            problems += [] if found is None else [found]
        if problems:
            raise DataError(*problems)
        return Adjustment(weights, where)


@dataclass(slots=True)
class Adjusted:
    """What became of it."""

    dropped: int = 0
    weighted: int = 0
    heldout: list[str] = field(default_factory=list)
    """Lines that name a row which is held out."""
    missing: list[str] = field(default_factory=list)
    """Lines that name no row."""
    factors: NDArray[np.float32] | None = None
    """By what the loss of each stored row is multiplied; None where every one is 1."""

    def as_json(self) -> dict[str, Any]:
        """As `data.json` holds it."""
        counts = {"dropped": self.dropped, "weighted": self.weighted}
        return {**counts, "heldout": self.heldout, "missing": self.missing}

    def digest(self) -> str | None:
        """Of the weights that rows have; None where none has one of its own."""
        return None if self.factors is None else hashlib.sha256(self.factors.tobytes()).hexdigest()

    def remarks(self) -> list[str]:
        """What somebody should know."""
        told = ((self.missing, "not among the rows"), (self.heldout, "held out, and stay as they are"))
        return [
            f"data.adjust: {len(lines):,} of the rows that it names are {what}: {', '.join(lines[:3])}"
            + (", ..." if len(lines) > 3 else "")
            for lines, what in told
            if lines
        ]


def adjust(
    adjustment: Adjustment,
    pairs: NDArray[np.uint64],
    sides: NDArray[np.uint8],
    *,
    left: int,
    stand_ins: Mapping[int, NDArray[np.int64]],
) -> Adjusted:
    """Give the rows their weights; those of 0 move to the side `left`. Side 0 is trained and side 1 held out.

    `stand_ins` gives, for each side of rows that were left out because one like them came first, the groups of rows
    that are alike: where the first one leaves, the next one that may stay takes its place.
    """
    found = Adjusted()
    factors = np.ones(len(pairs), dtype=np.float32)
    named = np.zeros(len(pairs), dtype=bool)
    order = np.argsort(pairs, kind="stable")
    ordered = pairs[order]
    for pair, weight in adjustment.weights.items():
        key = np.uint64(pair)
        mine = order[np.searchsorted(ordered, key) : np.searchsorted(ordered, key, side="right")]
        if not len(mine):
            found.missing.append(adjustment.where[pair])
            continue
        factors[mine], named[mine] = weight, True
        if (sides[mine] == 1).any():
            found.heldout.append(adjustment.where[pair])
    gone = named & (factors == 0) & (sides == 0)
    sides[gone] = left
    for side, groups in stand_ins.items():
        stays = np.unique(groups[sides <= 1])
        waiting = np.flatnonzero((sides == side) & ~(named & (factors == 0)) & ~np.isin(groups, stays))
        _, first = np.unique(groups[waiting], return_index=True)
        sides[waiting[first]] = 0
    factors[sides != 0] = 1.0
    found.dropped = int(gone.sum())
    found.weighted = int((factors != 1).sum())
    found.factors = factors if found.weighted else None
    return found


def _wrong(fields: Mapping[str, Any], where: str) -> Problem | None:
    """What is wrong with a line."""
    row, weight = fields.get("row"), fields.get("weight")
    if not isinstance(row, str) or not _NAME.fullmatch(row):
        what, fix = "`row` is not the name of a row", "sixteen hexadecimal digits, as `tutelage data suspects` writes"
        return Problem("data/bad-row", what, where, repr(row)[:80], fix=fix)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight < math.inf:
        what, fix = "`weight` is not a number from 0 up", "0 leaves the row out, 0.5 halves its loss"
        return Problem("data/bad-row", what, where, repr(weight)[:80], fix=fix)
    return None
