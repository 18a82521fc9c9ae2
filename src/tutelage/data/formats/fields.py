"""One field of a row, checked: its value comes back as it is, or an error says where, which field, and what was found.

A field that is null counts as not given, because Parquet and the hub fill what a row lacks with nulls.
"""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tutelage.data.sources.jsonrows import explain, parse_json
from tutelage.errors import DataError, Problem
from tutelage.types import Record

_TYPES = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", type(None): "null"}
NEAR = 0.8
"""How much alike two names are (difflib's ratio) of which one may be the other misspelt."""
HEAVIEST = 1e6
"""A greater weight is a slip of the pen: its row would be the only one that counts."""
LONGEST_TASK = 120
"""Characters of a task's name."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def bad_row(record: Record, field: str, what: str, found: str, fix: str = "") -> DataError:
    """Make the error for a field that is not as its format says."""
    return DataError(Problem("data/bad-row", f"`{field}` {what}", str(record.origin), found, fix=fix))


def wrong_type(
    record: Record, field: str, wanted: str, value: object, among: Mapping[str, Any] | None = None
) -> DataError:
    """Make the error for a field that is missing `among` others (the row's columns), or not `wanted`."""
    if value is None:
        names = record.fields if among is None else among
        listed = ", ".join(f"`{name}`" for name in names) or "nothing"
        return bad_row(record, field, "is missing or null", listed, hint(names, field.rpartition(".")[2]))
    return bad_row(record, field, f"is not {wanted}", f"{kind(value)}: {_SHORT.repr(value)}")


def empty_answer(record: Record, field: str, value: str) -> DataError:
    """Make the error for an answer that is empty or only white space."""
    what = f"`{field}` is empty, so the row has no answer"
    fix = "give the row an answer, or remove it"
    return DataError(Problem("data/empty-answer", what, str(record.origin), _SHORT.repr(value), fix=fix))


def kind(value: object) -> str:
    """Say the type of a value in words; for a list or object with the keys inside."""
    if isinstance(value, Mapping):
        return "an object {" + ", ".join(map(str, value)) + "}"
    if value == []:
        return "an empty list"
    if isinstance(value, list) and isinstance(value[0], Mapping):
        return "a list of {" + ", ".join(map(str, value[0])) + "}"
    return _TYPES.get(type(value), type(value).__name__)


def hint(columns: Mapping[str, Any], wanted: str) -> str:
    """Name a column that is `wanted` but for case and spaces, or else for a letter or two; "" when there is none."""
    others = [name for name in columns if isinstance(name, str) and name != wanted]
    near = next((name for name in others if name.strip().lower() == wanted.lower()), None)
    near = near or next(iter(difflib.get_close_matches(wanted, others, n=1, cutoff=NEAR)), None)
    return "" if near is None else f"found `{near}`: did you mean `{wanted}`?"


@lru_cache(maxsize=4096)
def misspelt(name: str, known: frozenset[str]) -> str:
    """Return the one of `known` that a column's name is but for a letter or two; "" when there is none.

    The first letter is seldom the wrong one: `height` is no `weight`.
    """
    if name in known:
        return ""
    alike = frozenset(one for one in known if one[:1] == str(name).strip()[:1].lower())
    return next(iter(difflib.get_close_matches(str(name).strip().lower(), alike, n=1, cutoff=NEAR)), "")


def text(record: Record, field: str) -> str:
    """Return a field that must be text."""
    value = record.fields.get(field)
    if not isinstance(value, str):
        raise wrong_type(record, field, "text", value)
    return value


def optional_text(record: Record, field: str) -> str:
    """Return a field that may be left out; "" when it is."""
    return "" if record.fields.get(field) is None else text(record, field)


def answer(record: Record, field: str) -> str:
    """Return a field that must be text with something in it."""
    value = text(record, field)
    if not value.strip():
        raise empty_answer(record, field, value)
    return value


def empty_prompt(record: Record, field: str) -> DataError:
    """Make the error for a prompt that is empty or only white space."""
    return bad_row(record, field, "is empty, so there is nothing to answer", "only white space or nothing")


def task(record: Record) -> str:
    """Return the row's column `task` on one line, cut short: a text, a number, or a list of texts; "" for all else."""
    value = record.fields.get("task")
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return " ".join(str(value).split())[:LONGEST_TASK]


def parsed(record: Record, field: str, value: str) -> Any:
    """Return the value of a field that holds JSON as text."""
    try:
        return parse_json(value)
    except (ValueError, RecursionError) as error:
        raise bad_row(record, field, "is not valid JSON", f"{explain(error)}: {value[:60]!r}") from error


def number(record: Record, field: str, value: object) -> float:
    """Return a weight: a number from 0 to `HEAVIEST`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(record, field, "a number", value)
    if not (math.isfinite(value) and 0 <= value <= HEAVIEST):
        raise bad_row(record, field, "is not a weight", str(value), f"a weight is from 0 to {HEAVIEST:,.0f}")
    return float(value)
