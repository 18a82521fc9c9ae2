"""`join`: columns that another file holds, brought to the rows by a column that both have."""

from __future__ import annotations

from typing import Any

from tutelage.data.sources.columns import MISSING, Unseen, columns_of, reach
from tutelage.data.sources.files import read_file
from tutelage.data.sources.jsonrows import Rows
from tutelage.data.sources.located import locate
from tutelage.data.sources.selected import as_text
from tutelage.data.sources.stored import ending
from tutelage.errors import DataError, Problem, RecipeError
from tutelage.recipe import Join
from tutelage.types import Record


def files_of(join: Join) -> list[str]:
    """List the files that hold the joined columns."""
    places = locate(join.path)
    if places[0].on_hub:
        what = f"`join` reads files, and `{join.path}` is the id of a hub data set"
        raise RecipeError(Problem("recipe/conflict", what, fix="save it as a file first"))
    return [place.path for place in places]


class Joined:
    """The other file, held in memory by the value of the shared column.

    Raises `DataError` when a row of it cannot be read, lacks the column, or has the value of an earlier row.
    """

    def __init__(self, join: Join) -> None:
        self._join = join
        files = files_of(join)
        self.is_text = all(ending(file)[0] == ".csv" for file in files)
        self.columns: set[str] = set()
        """The columns that it brings."""
        self._rows: dict[object, Record] = {}
        self._texts: dict[object, Record] = {}
        for file in files:
            for row in read_file(file):
                self._add(row)

    def _add(self, row: Record | Problem) -> None:
        if isinstance(row, Problem):
            raise DataError(row)
        on = self._join.on
        value = row.fields.get(on, MISSING)
        if not isinstance(value, str | int | float):
            what = f"`join` needs the column `{on}`, with text or a number, in each row of `{self._join.path}`"
            raise DataError(Problem("data/bad-row", what, str(row.origin), **columns_of(row, on)))
        brought = {name: inner for name, inner in row.fields.items() if name != on}
        partner = Record(row.origin, brought)
        first = self._rows.setdefault(_key(value), partner)
        self._texts.setdefault(as_text(value), partner)
        if first.origin != row.origin:
            what = f"`join` needs one row a value, and two rows have `{on}` = {value!r}"
            raise DataError(Problem("data/bad-row", what, str(row.origin), f"the first is {first.origin}"))
        self.columns.update(brought)

    def join(self, rows: Rows, *, text: bool) -> Rows:
        """Yield the rows of one file with the columns of the other; a value that is not there is a `Problem`.

        When one of the two files holds only `text`, values are compared as text. Raises `DataError` when both have a
        column with different values, or when none of the first rows has a partner.
        """
        as_texts = text or self.is_text
        partners = self._texts if as_texts else self._rows
        if as_texts and len(self._texts) < len(self._rows):
            what = f"`{self._join.path}` has values of `{self._join.on}` that are the same as text, as 1 and '1'"
            raise DataError(Problem("data/bad-row", what, self._join.path, fix="write them all in one way"))
        on = self._join.on
        unseen = Unseen({on: f"`{self._join.path}` has no row for the `{on}` of any row"})
        for row in rows:
            if isinstance(row, Problem):
                yield row
                continue
            value = reach(row.fields, on)
            scalar = isinstance(value, str | int | float)
            partner = partners.get(as_text(value) if as_texts else _key(value)) if scalar else None
            unseen.look(row, [] if partner else [on])
            if partner is None:
                yield self._lost(row, value)
                continue
            yield Record(row.origin, self._merged(row, partner))
        unseen.end()

    def _lost(self, row: Record, value: Any) -> Problem:
        on = self._join.on
        if value is MISSING:
            what = f"the row does not have the column `{on}`, by which `{self._join.path}` is joined"
            return Problem("data/bad-row", what, str(row.origin), **columns_of(row, on))
        what = f"`{self._join.path}` has no row for the row's `{on}`"
        return Problem("data/bad-row", what, str(row.origin), repr(value)[:80], fix="add it there, or use `where`")

    def _merged(self, row: Record, partner: Record) -> dict[str, Any]:
        merged = {**row.fields, **partner.fields}
        if len(merged) < len(row.fields) + len(partner.fields):
            for name in partner.fields.keys() & row.fields.keys():
                ours, theirs = row.fields[name], partner.fields[name]
                if type(ours) is not type(theirs) or ours != theirs:
                    what = f"`join` brings the column `{name}`, which the row has already with another value"
                    found = f"{ours!r:.60} here, {theirs!r:.60} at {partner.origin}"
                    fix = f"rename it in `{self._join.path}`"
                    raise DataError(Problem("data/bad-row", what, str(row.origin), found, fix=fix))
        return merged


def _key(value: object) -> object:
    """Return what tells values apart as JSON does: true is not 1."""
    return (bool, value) if isinstance(value, bool) else value
