"""`where`: only the rows whose columns have these values; how many were left out is counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tutelage.data.sources.columns import MISSING, columns_of, reach
from tutelage.data.sources.jsonrows import Rows
from tutelage.errors import DataError, Problem
from tutelage.types import Record

Value = str | int | float | bool
_LISTED = 10


@dataclass(slots=True)
class Selected:
    """What `where` kept of a source's rows, filled while they are read; rows that cannot be read are not among them."""

    where: Mapping[str, Value]
    rows: int = 0
    kept: int = 0
    lacking: int = 0
    """Rows that were left out because they do not have one of the columns."""
    _seen: dict[str, set[str]] = field(default_factory=dict)
    """Some values of each column, while no row was kept."""
    _first: Record | None = None

    @property
    def left_out(self) -> int:
        """How many rows do not match."""
        return self.rows - self.kept

    def __str__(self) -> str:
        lacking = f", {self.lacking:,} of them without the column" if self.lacking else ""
        return f"where: {self.kept:,} of {self.rows:,} rows ({self.left_out:,} left out{lacking})"

    def select(self, rows: Rows, textual: Callable[[str], bool]) -> Rows:
        """Yield the rows that match, and the problems; `textual` tells of a column whether it holds only text."""
        tests = [(name, _matcher(value, text=textual(name))) for name, value in self.where.items()]
        for row in rows:
            if isinstance(row, Problem):
                yield row
                continue
            self.rows += 1
            values = [reach(row.fields, name) for name, _ in tests]
            if all(matches(value) for value, (_, matches) in zip(values, tests, strict=True)):
                self.kept += 1
                yield row
            else:
                self.lacking += MISSING in values
                if not self.kept:
                    self._note(row, values)

    def _note(self, row: Record, values: list[Any]) -> None:
        self._first = self._first or row
        for name, value in zip(self.where, values, strict=True):
            if value is not MISSING:
                seen = self._seen.setdefault(name, set())
                if len(seen) < _LISTED:
                    seen.add(repr(value)[:60])

    def check(self, source: str) -> None:
        """Raise `DataError` when there were rows and none matched."""
        if self.kept or self._first is None:
            return
        unknown = next((name for name in self.where if name not in self._seen), None)
        if unknown is not None:
            what, told = f"`where` names the column `{unknown}`, which no row has", columns_of(self._first, unknown)
        else:
            what = f"none of the {self.rows:,} rows matches `where`"
            values = [f"`{name}` is {', '.join(sorted(seen))}" for name, seen in self._seen.items()]
            told = {"found": "; ".join(values), "fix": "correct `where`; a number is not the text of it"}
        raise DataError(Problem("data/nothing-selected", what, source, **told))


def _matcher(wanted: Value, *, text: bool) -> Callable[[Any], bool]:
    """Return the test for a value: the same kind and the same value; as text where a column holds only text."""
    if text:
        spelled = as_text(wanted)
        return lambda value: bool(value == spelled)
    if isinstance(wanted, bool):
        return lambda value: value is wanted
    if isinstance(wanted, str):
        return lambda value: bool(value == wanted)
    return lambda value: bool(value == wanted) and not isinstance(value, bool)


def as_text(value: Value) -> str:
    """Return a value as a file of text holds it."""
    return value if isinstance(value, str) else json.dumps(value)


def all_text(columns: Collection[str], file_is_text: bool, joined_is_text: bool) -> Callable[[str], bool]:
    """Tell of each column whether it comes from a file that holds only text; `columns` come from the joined one."""
    return lambda name: joined_is_text if name in columns else file_is_text
