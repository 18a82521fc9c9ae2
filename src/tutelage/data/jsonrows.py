"""From JSON lines to rows, as a stream; strictly, and one bad line costs only itself.

What the standard parser lets through is refused here: NaN and infinity, a key given twice (it would keep the last,
so that a role can change), half a character (it would fail much later, while tokenizing). Lines end at the byte
0x0A and nowhere else, so the line separators of Unicode stay inside the text that holds them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from tutelage.data.lines import TOO_LONG, Lines
from tutelage.errors import Problem
from tutelage.types import Origin, Record

Rows = Iterator[Record | Problem]

BOM = b"\xef\xbb\xbf"
SAVE_AS = "save the file as UTF-8"
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
        if line is None:
            yield too_large(Origin(path, number), "the line")
            continue
        try:  # the common case at once: a line that is one object
            text = line.decode()
            value, end = decode_json(text)
            if (end == len(text) or text[end:] == "\r") and type(value) is dict:
                if "\\u" in text:
                    refuse_half_characters(text, value)
                yield Record(Origin(path, number), value)
                continue
        except (ValueError, RecursionError):
            pass  # looked at again below, to say why
        if number == 1:
            line = line.removeprefix(BOM)
        if line.strip(b" \t\r"):
            yield _parse_line(line, Origin(path, number), lines.whole)


def _parse_line(line: bytes, origin: Origin, whole: bool) -> Record | Problem:
    try:
        value = parse_json(line.decode())
    except UnicodeDecodeError as error:
        return bad_encoding(error, str(origin))
    except (ValueError, RecursionError) as error:
        cut = "" if whole else "the file ends on this line without a line break; it may be cut off"
        return Problem("data/bad-json", "the line is not valid JSON", str(origin), explain(error), why=cut)
    return as_record(value, origin)


def as_record(value: object, origin: Origin) -> Record | Problem:
    """Return the row that a JSON value is, or say that it is no object."""
    if isinstance(value, dict):
        return Record(origin, value)
    found = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}.get(type(value), "a number")
    return Problem("data/bad-json", "the row is not a JSON object", str(origin), found, fix='write {"column": value}')


def parse_json(text: str) -> object:
    """Return the value of strict JSON; raises `ValueError` or `RecursionError`, which `explain` puts into words."""
    value: object = _STRICT.decode(text)
    if "\\u" in text:
        refuse_half_characters(text, value)
    return value


def refuse_half_characters(text: str, value: object) -> None:
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
        return f"{error.msg} at column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def bad_encoding(error: UnicodeDecodeError, where: str, before: int = 0) -> Problem:
    """Make the problem for bytes that are not UTF-8, `before` bytes after what the offset is counted from."""
    found = f"byte 0x{error.object[error.start]:02x} at offset {before + error.start}"
    return Problem("data/bad-encoding", "the text is not UTF-8", where, found, fix=SAVE_AS)


def too_large(origin: Origin | str, what: str, fix: str = "split it, or remove it") -> Problem:
    """Make the problem for a piece of a file that is larger than what is held in memory."""
    return Problem("data/too-large", f"{what} is too large to be read", str(origin), TOO_LONG, fix=fix)
