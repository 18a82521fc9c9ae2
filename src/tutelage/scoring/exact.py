"""Right or wrong, without judgement: the same text, or the same JSON value; for JSON objects also field by field."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Scorer = Callable[[str, str], bool]


def same_text(answer: str, reference: str) -> bool:
    """Whether the texts are equal but for white space at their ends."""
    return answer.strip() == reference.strip()


def same_json(answer: str, reference: str) -> bool:
    """Whether both are JSON and the values are equal; the order of an object's keys does not matter."""
    value, expected = parse(answer), parse(reference)
    return value is not INVALID and expected is not INVALID and equal(value, expected)


def fields(answer: str, reference: str) -> dict[str, bool]:
    """For each field of the reference object, whether the answer has the same value; empty without an object."""
    value, expected = parse(answer), parse(reference)
    if not isinstance(expected, dict):
        return {}
    found = value if isinstance(value, dict) else {}
    return {key: key in found and equal(found[key], item) for key, item in expected.items()}


INVALID: Any = object()
"""What `parse` gives for text that is not JSON."""


def parse(text: str) -> Any:
    """The JSON value, or INVALID."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return INVALID


def equal(one: Any, other: Any) -> bool:
    """Equal as JSON values: true is not 1, but 1.0 is 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return (type(one) is type(other) and one == other) or _numbers(one, other)


def _numbers(one: Any, other: Any) -> bool:
    return isinstance(one, int | float) and isinstance(other, int | float) and one == other


SCORERS: dict[str, Scorer] = {"exact": same_text, "json": same_json}
