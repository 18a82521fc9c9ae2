"""From JSON lines to rows, as a stream; strictly, and one bad line costs only itself.

What the standard parser lets through is refused here: NaN and infinity, a key given twice (it would keep the last,
so that a role can change), half a character and values inside values without end (they would fail much later). Lines
end at the byte 0x0A and nowhere else, so the line separators of Unicode stay inside the text that holds them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO

from tutelage.data.sources.lines import TOO_LONG, Lines
from tutelage.errors import Problem
from tutelage.types import Origin, Record

Rows = Iterator[Record | Problem]

BOM = b"\xef\xbb\xbf"
DEEPEST = 100
"""How deep values may lie inside each other; what walks through them later has no more room than Python's stack."""
_CONTAINERS = frozenset((dict, list))
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
# One whose other half is not beside it. A backslash that is itself escaped before the `u` would mislead this, so such
# a text counts as suspicious as well.
_LONE_HALF = re.compile(
    r"\\\\u|\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]",
    re.DOTALL,
)


def read_json_lines(content: BinaryIO, path: str) -> Rows:
    """Yield one row a line; blank lines are counted and left out."""
    lines = Lines(content)
    for number, line in enumerate(lines, start=1):
        if not line:
            if line is None:
                yield too_large(Origin(path, number), "the line")
            continue
        try:  # the common case at once: a line that is one object
            text = line.decode()
            value, end = decode_json(text)
            if (end == len(text) or text[end:] == "\r") and type(value) is dict:
                check_value(text, value)
                yield Record(Origin(path, number), value)
                continue
        except (ValueError, RecursionError):
            pass  # looked at again below, to say why
        line = line.removeprefix(BOM)  # in the middle as well, where files were put together
        if line.strip(b" \t\r"):
            yield _parse_line(line, Origin(path, number), lines.whole)


def _parse_line(line: bytes, origin: Origin, whole: bool) -> Record | Problem:
    try:
        value = parse_json(line.decode())
    except UnicodeDecodeError as error:
        return bad_encoding(error, str(origin))
    except (ValueError, RecursionError) as error:
        why, fix = _mistaken(line, error)
        if not (why or whole):
            why = "the file ends on this line without a line break; it may be cut off"
        return Problem("data/bad-json", "the line is not valid JSON", str(origin), explain(error), why, fix)
    return as_record(value, origin)


def _mistaken(line: bytes, error: Exception) -> tuple[str, str]:
    """Say why the file is not JSON lines, and what to do, where a line tells; "" where it does not."""
    if line.strip() in (b"[", b"{"):
        return "the file holds JSON that goes on over several lines", "give it the ending .json"
    if isinstance(error, json.JSONDecodeError) and error.doc[: error.pos].endswith("\r"):
        return "a carriage return alone does not end a line", "save the file with line feeds"
    return "", ""


def as_record(value: object, origin: Origin) -> Record | Problem:
    """Return the row that a JSON value is, or say that it is no object."""
    if isinstance(value, dict):
        return Record(origin, value)
    fix = 'write {"column": value}'
    if isinstance(value, list) and origin.line == 1:
        fix += "; a file that is one array has the ending .json"
    found = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}.get(type(value), "a number")
    return Problem("data/bad-json", "the row is not a JSON object", str(origin), found, fix=fix)


def parse_json(text: str) -> object:
    """Return the value of strict JSON; raises `ValueError` or `RecursionError`, which `explain` puts into words."""
    value: object = _STRICT.decode(text)
    check_value(text, value)
    return value


def check_value(text: str, value: object) -> None:
    """Raise `ValueError` when the value of a JSON `text` is too deep or holds half a character."""
    # Many rows hold nothing but text, and counting takes longer than parsing.
    flat = type(value) is dict and _CONTAINERS.isdisjoint(map(type, value.values()))
    if not flat and text.count("{") + text.count("[") > DEEPEST:
        _refuse_deep(value)
    if "\\u" in text:
        _refuse_half_characters(text, value)


def _refuse_deep(value: object) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        inside = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        if not inside:
            return
        level = list(chain.from_iterable(inside))
    raise ValueError(f"values lie more than {DEEPEST} deep inside each other")


def _refuse_half_characters(text: str, value: object) -> None:
    """Raise `ValueError` when a value holds a lone surrogate, which only an escape in its JSON `text` can bring."""
    if _HALF_CHARACTER.search(text) and _LONE_HALF.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a \\u escape spells half a character (a lone surrogate)") from None


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
decode_json = _STRICT.raw_decode
"""Return (value, end) of the strict JSON that starts at an index of a text; half characters are not looked for."""


def explain(error: Exception) -> str:
    """Say in a few words what the parser found."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' at')} at column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error).partition("; use sys.")[0]


def bad_encoding(error: UnicodeDecodeError, where: str, before: int = 0) -> Problem:
    """Make the problem for bytes that are not UTF-8, `before` bytes after what the offset is counted from."""
    byte = error.object[error.start]
    found = f"byte 0x{byte:02x} at offset {before + error.start}"
    return Problem("data/bad-encoding", "the text is not UTF-8", where, found, fix=save_as(byte))


def save_as(byte: int) -> str:
    """Say how to save a file with a byte that is not UTF-8, and what the byte is where most such files come from."""
    character = bytes([byte]).decode("cp1252", "replace")
    return "save the file as UTF-8" + ("" if character == "\ufffd" else f"; in Windows-1252 this byte is `{character}`")


def too_large(origin: Origin | str, what: str, fix: str = "split it, or remove it") -> Problem:
    """Make the problem for a piece of a file that is larger than what is held in memory."""
    return Problem("data/too-large", f"{what} is too large to be read", str(origin), TOO_LONG, fix=fix)
