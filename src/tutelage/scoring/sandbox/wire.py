"""Values between a program and its tests, as one line of JSON each; an object that is no plain value stays behind.

Both run in processes of their own. What a program sends is plain values rebuilt here, never code and never an object
that decides for itself what it equals.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, ItemsView, KeysView, Mapping, ValuesView
from typing import Any

LONGEST = 4 * 1024 * 1024
"""Characters of one message."""
_ITEMS = 100_000
"""Items that are taken from an iterator."""


def encode(value: Any, keep: Callable[[Any], int]) -> Any:
    """A value as JSON; `keep` takes an object that cannot go, and gives the number it is known by."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    # A class of the program's own may say of itself what it likes: what is sent is the plain value under it.
    if isinstance(value, str):
        return str.encode(value, "utf-8", "surrogatepass").decode("utf-8", "surrogatepass")
    if isinstance(value, int):
        number = int.__add__(value, 0)
        return number if -(2**53) < number < 2**53 else {"int": hex(number)}
    if isinstance(value, float):
        return {"float": float.hex(value)}
    if kind is complex:
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if kind in (bytes, bytearray):
        return {kind.__name__: value.hex()}
    if isinstance(value, list):
        return [encode(part, keep) for part in list.__iter__(value)]
    if isinstance(value, tuple):
        return {"tuple": [encode(part, keep) for part in tuple.__iter__(value)]}
    if isinstance(value, set):
        return {"set": [encode(part, keep) for part in set.__iter__(value)]}
    if isinstance(value, frozenset):
        return {"frozenset": [encode(part, keep) for part in frozenset.__iter__(value)]}
    if isinstance(value, dict):
        return {"dict": [[encode(key, keep), encode(part, keep)] for key, part in dict.items(value)]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, KeysView | ValuesView | ItemsView):
        return {"iterator": [encode(part, keep) for part in value]}
    if hasattr(kind, "__next__") and hasattr(kind, "__iter__"):
        return {"iterator": [encode(part, keep) for part in itertools.islice(value, _ITEMS)]}
    return {"kept": keep(value)}


def decode(told: Any, kept: Callable[[int], Any]) -> Any:
    """The value that was encoded; `kept` gives what stands for an object that did not come along."""
    if isinstance(told, list):
        return [decode(part, kept) for part in told]
    if not isinstance(told, dict):
        return told
    ((kind, inside),) = told.items()
    if kind == "dict":
        return {decode(key, kept): decode(part, kept) for key, part in inside}
    return kept(inside) if kind == "kept" else _PARTS[kind]([decode(p, kept) for p in _listed(inside)])


def line(message: Mapping[str, Any]) -> bytes:
    """One message, to be written."""
    return json.dumps(message).encode() + b"\n"


def read(stream: Any) -> dict[str, Any] | None:
    """The next message, or None where there is none, or none that could be meant."""
    text = stream.readline(LONGEST)
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _listed(inside: Any) -> list[Any]:
    return inside if isinstance(inside, list) else [inside]


_PARTS: dict[str, Callable[[list[Any]], Any]] = {
    "int": lambda parts: int(parts[0], 16),
    "float": lambda parts: float.fromhex(parts[0]),
    "complex": lambda parts: complex(*map(float.fromhex, parts)),
    "bytes": lambda parts: bytes.fromhex(parts[0]),
    "bytearray": lambda parts: bytearray.fromhex(parts[0]),
    "range": lambda parts: range(*parts),
    "iterator": iter,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
