"""The columns of a row under the names that the recipe gives them; names with dots reach into objects and lists."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from tutelage.data.sources.jsonrows import Rows
from tutelage.errors import DataError, Problem
from tutelage.types import Record

FIRST = 100
"""Rows of a file after which a column that none of them had is taken for a mistake in the recipe."""
MISSING = object()


def reach(fields: Mapping[str, Any], name: str) -> Any:
    """Return a column, or what `a.0.b` reaches: a key of an object, an index of a list; `MISSING` if not there.

    A column whose whole name is `name` comes first.
    """
    if name in fields:
        return fields[name]
    value: Any = fields
    for part in name.split("."):
        if isinstance(value, Mapping):
            value = value.get(part, MISSING)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def rename(rows: Rows, names: Mapping[str, str]) -> Rows:
    """Yield the rows with each column `ours` taken from `theirs`; the other columns stay.

    A row that lacks one is a `Problem`. Raises `DataError` when none of the first rows of a file has it.
    """
    unseen = Unseen({theirs: f"`fields` names the column `{theirs}`, which no row has" for theirs in names.values()})
    pairs = list(names.items())
    for row in rows:
        if isinstance(row, Problem):
            yield row
            continue
        found = {theirs: reach(row.fields, theirs) for _, theirs in pairs}
        lost = [theirs for theirs, value in found.items() if value is MISSING]
        unseen.look(row, lost)
        if lost:
            what = f"`fields` names the column `{lost[0]}`, which the row does not have"
            yield Problem("data/bad-row", what, str(row.origin), **columns_of(row, lost[0]))
            continue
        # What is reached inside a column leaves that column as it is.
        fields = {name: value for name, value in row.fields.items() if name not in found}
        for ours, theirs in pairs:
            fields[ours] = found[theirs]
        yield Record(row.origin, fields)
    unseen.end()


class Unseen:
    """Watches for what every row should have: if none of the first rows of a file has it, reading ends.

    Otherwise a mistake in the recipe would come out as millions of bad rows.
    """

    def __init__(self, sentences: Mapping[str, str]) -> None:
        self._sentences = sentences
        """What to say, by what no row has."""
        self._lost: set[str] = set()
        self._first: Record | None = None
        self._rows = 0

    def look(self, row: Record, lost: Collection[str]) -> None:
        """Note what a row lacks; raises `DataError` at the last of the first rows."""
        if self._first is None or row.origin.file != self._first.origin.file:
            self.end()
            self._first, self._rows, self._lost = row, 0, set(lost)
        self._rows += 1
        if self._lost:
            self._lost.intersection_update(lost)
            if self._rows >= FIRST:
                self.end()

    def end(self) -> None:
        """Raise `DataError` when all rows of the file so far lack something."""
        if self._lost and self._first is not None:
            name, origin = min(self._lost), self._first.origin
            where = f"{origin.file}, the {self._rows:,} rows from {origin.line:,} on"
            told = columns_of(self._first, name)
            raise DataError(Problem("data/bad-row", self._sentences[name], where, **told))


def columns_of(row: Record, wanted: str) -> dict[str, str]:
    """Say what a column holds, or where it is not there, which there are and which is nearest to what was `wanted`."""
    value = reach(row.fields, wanted)
    if value is not MISSING:
        return {"found": f"`{wanted}` is {value!r}"[:200]}
    names = [*row.fields]
    for name, value in row.fields.items():
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, Mapping):
            names += [f"{name}.0.{key}" if isinstance(value, list) else f"{name}.{key}" for key in inner]
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    near = [name for name in names if name.strip().lower() == wanted.strip().lower()] or near
    fix = f"did you mean `{near[0]}`?" if near else "name one of these columns"
    return {"found": ", ".join(f"`{name}`" for name in row.fields) or "no columns", "fix": fix}
