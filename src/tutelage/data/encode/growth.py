"""How large the value would be that a filter or a method of a chat template makes, before it is made.

Only those are listed whose result can be far larger than what they are given; the sandbox looks them up here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from jinja2.utils import Namespace

_LONG_WIDTH = re.compile(r"\d{6}")
_ENDLESS = 1 << 62


def weight(value: Any, most: int) -> int:
    """Characters and items in a value, counted no further than just over `most`."""
    # A value may hold another many times over, so written out it could be larger than any memory.
    size, waiting = 0, [value]
    while waiting and size <= most:
        item = waiting.pop()
        size += 1
        if isinstance(item, str):
            size += str.__len__(item)
        elif isinstance(item, dict):
            waiting += item
            waiting += item.values()
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item
        elif isinstance(item, Namespace):
            waiting.append(object.__getattribute__(item, "_Namespace__attrs"))
    return size


def written(form: str, *values: Any, **named: Any) -> int:
    """A format, which says itself how wide its fields are."""
    return _ENDLESS if _LONG_WIDTH.search(form) else len(form) + weight((values, named), _ENDLESS)


def _replaced(text: str, old: str, new: str, count: int | None = -1) -> int:
    return len(text) + str(text).count(str(old)) * len(str(new))


def _joined(items: Any, between: str = "", attribute: Any = None) -> int:
    return len(items) * len(str(between)) if hasattr(items, "__len__") else 0


def _joined_by(between: str, items: Any) -> int:
    return _joined(items, between)


def _padded(text: Any, width: int = 80, *more: Any) -> int:
    return len(str(text)) + int(width)


def _indented(text: str, width: int | str = 4, *more: Any, **options: Any) -> int:
    return len(text) + (text.count("\n") + 1) * (width if isinstance(width, int) else len(width))


def _wrapped(text: str, width: int = 79, long: bool = True, between: str | None = None, *more: Any) -> int:
    return len(text) * (1 + len(between or ""))


def _untabbed(text: str, tabsize: int = 8) -> int:
    return len(text) + text.count("\t") * tabsize


def _translated(text: str, table: Any) -> int:
    values = table.values() if isinstance(table, dict) else ()
    return len(text) * max((len(value) for value in values if isinstance(value, str)), default=1)


def _as_json(value: Any, ensure_ascii: bool = False, indent: Any = None, *more: Any, **options: Any) -> int:
    spaces = indent if isinstance(indent, int) else len(indent or "")
    return weight(value, _ENDLESS) * spaces if spaces > 16 else 0


def _searched(text: Any, *more: Any, **options: Any) -> int:
    # Filters that search with patterns which may take the square of the length.
    return len(str(text)) if len(str(text)) < 1 << 16 else _ENDLESS


def _summed(items: Any, attribute: Any = None, start: Any = 0) -> int:
    # Lists are added one to the next, which takes the square of their number.
    return 0 if isinstance(start, int | float) else len(items) ** 2 // 64


def _filled(n: int = 5, html: bool = True, min: int = 20, max: int = 100) -> int:
    return n * max * 16  # Paragraphs of made-up words.


def _counted(*values: Any, **options: Any) -> int:
    return 0


FILTERS: dict[str, Callable[..., int]] = {
    "batch": _counted,
    "center": _padded,
    "format": written,
    "indent": _indented,
    "join": _joined,
    "lipsum": _filled,
    "replace": _replaced,
    "round": _counted,
    "slice": _counted,
    "striptags": _searched,
    "sum": _summed,
    "title": _searched,
    "tojson": _as_json,
    "truncate": _counted,
    "urlize": _searched,
    "wordwrap": _wrapped,
    "xmlattr": _searched,
}
METHODS: dict[str, Callable[..., int]] = {
    "center": _padded,
    "expandtabs": _untabbed,
    "join": _joined_by,
    "ljust": _padded,
    "replace": _replaced,
    "rjust": _padded,
    "translate": _translated,
    "zfill": _padded,
}
