"""From JSON to rows: JSON lines as a stream, a `.json` file whole; strictly, and one bad line costs only itself.

What the standard parser lets through is refused here: NaN and infinity, a key given twice (it would keep the last,
so that a role can change), half a character (it would fail much later, while tokenizing). Lines end at the byte
0x0A and nowhere else, so the line separators of Unicode stay inside the text that holds them.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from tutelage.errors import DataError, Problem
from tutelage.types import Origin, Record

Rows = Iterator[Record | Problem]

BOM = b"\xef\xbb\xbf"
SAVE_AS = "save the file as UTF-8"
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


def read_json_lines(content: BinaryIO, path: str) -> Rows:
    """Yield one row a line; blank lines are counted and left out."""
    for number, line in enumerate(content, start=1):
        if number == 1:
            line = line.removeprefix(BOM)
        if line.strip(b" \t\r\n"):
            yield _parse_line(line, Origin(path, number))


def _parse_line(line: bytes, origin: Origin) -> Record | Problem:
    try:
        value = parse_json(line.removesuffix(b"\n").removesuffix(b"\r").decode())
    except UnicodeDecodeError as error:
        return bad_encoding(error, str(origin))
    except (ValueError, RecursionError) as error:
        cut = "" if line.endswith(b"\n") else "the file ends on this line without a line break; it may be cut off"
        return Problem("data/bad-json", "the line is not valid JSON", str(origin), explain(error), why=cut)
    return _as_record(value, origin)


def _as_record(value: object, origin: Origin) -> Record | Problem:
    if isinstance(value, dict):
        return Record(origin, value)
    found = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}.get(type(value), "a number")
    return Problem("data/bad-json", "the row is not a JSON object", str(origin), found, fix='write {"column": value}')


def read_json(content: BinaryIO, path: str) -> Rows:
    """Yield the rows of a JSON array, of an object that holds one, or of JSON lines under this name."""
    data = content.read().removeprefix(BOM)
    if _is_json_lines(data):
        yield from read_json_lines(io.BytesIO(data), path)
        return
    try:
        rows = _find_rows(parse_json(data.decode()))
    except UnicodeDecodeError as error:
        raise DataError(bad_encoding(error, path)) from error
    except (ValueError, RecursionError) as error:
        where = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else path
        raise DataError(
            Problem("data/bad-json", "the file cannot be read as JSON rows", where, explain(error))
        ) from error
    for number, value in enumerate(rows, start=1):
        yield _as_record(value, Origin(path, number))


def _is_json_lines(data: bytes) -> bool:
    """Tell JSON lines from one JSON value, which never goes on with `{` after a line that is `{...}`."""
    lines = (line.strip() for line in io.BytesIO(data) if line.strip())
    first, second = next(lines, b""), next(lines, b"")
    return first.startswith(b"{") and first.endswith(b"}") and second.startswith(b"{")


def _find_rows(value: object) -> list[Any]:
    """Return the rows of a JSON value: a list, the one list of rows in an object, or the object as the only row."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise ValueError("the file holds neither an array nor an object")
    lists = [inner for key, inner in value.items() if isinstance(inner, list) and _holds_rows(key, inner)]
    return lists[0] if len(lists) == 1 else [value]


def _holds_rows(key: str, inner: list[Any]) -> bool:
    if key in ("data", "rows", "examples", "train"):
        return True
    return bool(inner) and all(isinstance(row, dict) and not {"role", "from"} & row.keys() for row in inner)


def parse_json(text: str) -> object:
    """Return the value of strict JSON; raises `ValueError` or `RecursionError`, which `explain` puts into words."""
    value: object = _STRICT.decode(text)
    if _HALF_CHARACTER.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a \\u escape spells half a character (a lone surrogate)") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key `{twice}` is given twice in one object")
    return fields


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)


def explain(error: Exception) -> str:
    """Say in a few words what the parser found."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def bad_encoding(error: UnicodeDecodeError, where: str) -> Problem:
    """Make the problem for bytes that are not UTF-8."""
    found = f"byte 0x{error.object[error.start]:02x} at offset {error.start}"
    return Problem("data/bad-encoding", "the text is not UTF-8", where, found, fix=SAVE_AS)
