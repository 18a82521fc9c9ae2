"""From a `.json` file to rows: an array as a stream, JSON lines under this name as lines, one object whole."""

from __future__ import annotations

import codecs
import io
import json
import re
from typing import Any, BinaryIO, cast

from tutelage.data.sources import lines
from tutelage.data.sources.jsonrows import (
    BOM,
    Rows,
    as_record,
    bad_encoding,
    check_value,
    decode_json,
    explain,
    parse_json,
    read_json_lines,
    too_large,
)
from tutelage.errors import DataError, Problem
from tutelage.types import Origin

_SPACE = re.compile(r"[ \t\r\n]*")
_LONGEST_WORD = 12
"""No word of JSON, escape or byte order mark is longer; an error further from the end is not because of the end."""


def read_json(content: io.BufferedReader, path: str) -> Rows:
    """Yield the rows of a JSON array, of an object that holds one, or of JSON lines under this name.

    An array is held a block at a time. An object is held whole, so it is refused from `lines.LONGEST` bytes on.
    Raises `DataError` when the file is not JSON; what an array holds before the mistake is yielded first.
    """
    if content.peek(len(BOM)).startswith(BOM):
        content.read(len(BOM))
    if content.peek(64).lstrip(b" \t\r\n")[:1] == b"[":
        yield from _read_array(content, path)
        return
    start, is_lines = _first_lines(content)
    if is_lines:
        yield from read_json_lines(cast(BinaryIO, _Rejoined(start, content)), path)
        return
    data = start + content.read(max(lines.LONGEST + 1 - len(start), 0))
    if len(data) > lines.LONGEST:
        raise DataError(too_large(path, "a .json file that is not an array", "write one row a line, as .jsonl"))
    try:
        rows = _find_rows(parse_json(data.decode()))
    except UnicodeDecodeError as error:
        raise DataError(bad_encoding(error, path)) from error
    except (ValueError, RecursionError) as error:
        raise _not_json(error, path) from error
    for number, value in enumerate(rows, start=1):
        yield as_record(value, Origin(path, number))


def _not_json(error: Exception, path: str, row: int = 0) -> DataError:
    where, found = path, explain(error)
    if isinstance(error, json.JSONDecodeError):
        where = f"{path}:{error.lineno}"
    elif row:
        found = f"row {row:,}: {found}"
    return DataError(Problem("data/bad-json", "the file cannot be read as JSON rows", where, found))


class _Rejoined(io.RawIOBase):
    """Bytes that were read already, and the rest of the file."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start, self._rest = start, rest

    def read(self, size: int = -1) -> bytes:
        if self._start:
            start, self._start = self._start, b""
            return start
        return self._rest.read(size)


def _first_lines(content: BinaryIO) -> tuple[bytes, bool]:
    """Return the bytes up to the second line with something in it, and whether the file is JSON lines.

    One JSON value never goes on with `{` after a line that is `{...}`.
    """
    start, first = b"", b""
    while line := content.readline(lines.LONGEST + 1):
        start += line
        line = line.strip()
        if first:
            if line:
                return start, line.startswith(b"{")
        elif line:
            first = line
            if not (first.startswith(b"{") and first.endswith(b"}")):
                break
    return start, False


def _find_rows(value: object) -> list[Any]:
    """Return the rows of a JSON value: a list, the one list of rows in an object, or the object as the only row."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise ValueError("the file holds neither an array nor an object")
    if {"Definition", "Instances"} <= value.keys():  # a task of Natural Instructions, whose rows need its definition
        return [value]
    lists = [inner for key, inner in value.items() if isinstance(inner, list) and _holds_rows(key, inner)]
    return lists[0] if len(lists) == 1 else [value]


def _holds_rows(key: str, inner: list[Any]) -> bool:
    if key in ("data", "rows", "examples", "train"):
        return True
    return bool(inner) and all(isinstance(row, dict) and not {"role", "from"} & row.keys() for row in inner)


# --------------------------------------------------------------------------------------------- arrays, streamed


def _read_array(content: BinaryIO, path: str) -> Rows:
    window, number = _Window(content), 0
    try:
        window.skip("[")
        more = window.peek() != "]"
        while more:
            number += 1
            yield as_record(window.value(), Origin(path, number))
            more = window.peek() == ","
            if more:
                window.skip(",")
        window.skip("]")
        if window.peek():
            raise json.JSONDecodeError("Extra data", window.text, window.at)
    except UnicodeDecodeError as error:
        raise DataError(bad_encoding(error, path, window.before)) from error
    except json.JSONDecodeError as error:
        raise _not_json(window.place(error), path) from error
    except (ValueError, RecursionError) as error:
        raise _not_json(error, path, number) from error
    except _TooLarge:
        raise DataError(too_large(path, f"row {number:,}")) from None


class _TooLarge(Exception):
    """A row is larger than what is held in memory."""


class _Window:
    """The part of a text that is being parsed, from `at` on; it grows by blocks and forgets what lies behind."""

    def __init__(self, content: BinaryIO) -> None:
        self._content = content
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._ended = False
        self._line, self._column = 0, 0  # of the first character in `text`, counted from 0
        self.text, self.at = "", 0
        self.before = 0
        """Bytes before those that are decoded next."""

    def _grow(self) -> bool:
        """Read on, at least as much as is held, so that a long row is not parsed from its start too often."""
        if self._ended:
            return False
        breaks = self.text.count("\n", 0, self.at)
        self._line += breaks
        self._column = self.at - self.text.rfind("\n", 0, self.at) - 1 if breaks else self._column + self.at
        self.text, self.at = self.text[self.at :], 0
        if len(self.text) > lines.LONGEST:
            raise _TooLarge
        data = self._content.read(max(lines.BLOCK, len(self.text)))
        self._ended = not data
        held = len(self._decoder.getstate()[0])  # the first bytes of a character that the last block cut
        self.before -= held
        self.text += self._decoder.decode(data, final=self._ended)
        self.before += held + len(data)
        return True

    def peek(self) -> str:
        """Go to the next character that is not white space, and return it; "" at the end."""
        while True:
            match = _SPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._grow():
                return ""

    def skip(self, wanted: str) -> None:
        """Go past the next character, which must be `wanted`."""
        if self.peek() != wanted:
            raise json.JSONDecodeError("Expecting ',' delimiter", self.text, self.at)
        self.at += 1

    def value(self) -> object:
        """Return the value that comes next."""
        self.peek()
        while True:
            try:
                value, end = decode_json(self.text, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(self.text) - _LONGEST_WORD
                if cut and self._grow():
                    continue
                raise
            if end == len(self.text) and self.text[-1] not in '}]"' and self._grow():
                continue  # a number may go on
            check_value(self.text[self.at : end], value)
            self.at = end
            return value

    def place(self, error: json.JSONDecodeError) -> json.JSONDecodeError:
        """Turn the place of an error in the window into the place in the file."""
        if error.lineno == 1:
            error.colno += self._column
        error.lineno += self._line
        return error
