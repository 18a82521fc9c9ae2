"""From CSV to rows, as a stream: every value is text, and one bad row costs only itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import count
from typing import Any, BinaryIO

from tutelage.data.sources import lines
from tutelage.data.sources.jsonrows import Rows, save_as, too_large
from tutelage.errors import DataError, Problem
from tutelage.types import Origin, Record

_OTHER_DELIMITERS = {";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}
_MEND = "close its quotes, or write the rows as .jsonl"


def read_csv(content: BinaryIO, path: str) -> Rows:
    """Yield one row a record; the first names the columns.

    Bytes that are not UTF-8 come through as lone surrogates, so that they cost one row, not the file. Raises
    `DataError` when the header cannot be used.
    """
    csv.field_size_limit(lines.LONGEST)
    with io.TextIOWrapper(content, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        records = _records(text, path)
        _, columns = next(records, (None, []))
        if isinstance(columns, Problem):
            raise DataError(columns)
        _check_header(columns, path)
        for origin, values in records:
            yield values if isinstance(values, Problem) else _row(origin, columns, values)


def _check_header(columns: list[str], path: str) -> None:
    found, fix = "", ""
    if len(set(columns)) < len(columns):
        found = "the header names a column twice: " + ", ".join(columns)
    elif len(columns) == 1 and (other := next((d for d in _OTHER_DELIMITERS if d in columns[0]), None)):
        found = f"the header has no comma but {_OTHER_DELIMITERS[other]}: {columns[0][:80]!r}"
        fix = "save the file with commas between the fields"
    if found:
        raise DataError(Problem("data/unreadable", f"`{path}` cannot be read", path, found, fix=fix))


def _row(origin: Origin, columns: list[str], values: list[str]) -> Record | Problem:
    if len(values) == len(columns):
        return Record(origin, dict(zip(columns, values, strict=True)))
    found = f"{len(values)} fields; the header has {len(columns)}"
    fix = "put quotes around a field that holds a comma or a line break"
    return Problem("data/bad-row", "the row has another number of fields", str(origin), found, fix=fix)


def _lines(text: io.TextIOWrapper, path: str) -> Iterator[str]:
    """Yield the physical lines; raises `DataError` for one that is too long to hold.

    It cannot be skipped as in JSON lines: whether the next line is inside quotes would not be known.
    """
    for number in count(1):
        line = text.readline(lines.LONGEST)
        if len(line) >= lines.LONGEST:
            raise DataError(too_large(Origin(path, number), "the line", _MEND))
        if not line:
            return
        yield line


def _records(text: io.TextIOWrapper, path: str) -> Iterator[tuple[Origin, list[str] | Problem]]:
    """Yield (where the row starts, its values), blank lines left out."""
    reader: Any = csv.reader(_lines(text, path), strict=True)
    while True:
        origin = Origin(path, reader.line_num + 1)
        try:
            values = next(reader, None)
            for value in values or ():
                if not value.isascii():
                    value.encode()
        except csv.Error as error:
            if str(error).startswith("field larger"):
                raise DataError(too_large(origin, "a field", _MEND)) from error
            yield origin, Problem("data/bad-row", "the row is not valid CSV", str(origin), str(error))
            continue
        except UnicodeEncodeError as error:
            byte, before = ord(error.object[error.start]) - 0xDC00, error.object[: error.start].encode()
            found = f"byte 0x{byte:02x} after {len(before)} bytes of the field"
            what = "the row is not UTF-8"
            yield origin, Problem("data/bad-encoding", what, str(origin), found, fix=save_as(byte))
            continue
        if values is None:
            return
        if values:
            yield origin, values
