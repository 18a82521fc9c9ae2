"""A wording with the fields of a row filled in."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from typing import Any

from tutelage.scoring.mark import written

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class BadWording(ValueError):
    """A wording that cannot be filled in: what is wrong with it, or with the row."""


def fill(wording: str, row: Mapping[str, Any]) -> str:
    """The text. A field inside a field is named with a point, an item of a list by its number from 0.

    Raises:
        BadWording: a single bracket, a field that the row does not have, null, or a form that it cannot take.
    """
    return _PLACE.sub(lambda place: _filled(place, row), wording)


def value(name: str, row: Mapping[str, Any]) -> Any:
    """What stands in the row under a name.

    Raises:
        BadWording: nothing does.
    """
    if name in row:
        return row[name]
    found: Any = row
    for part in name.split("."):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            raise BadWording(f"the row has no field `{name}`; it has {', '.join(map(str, row)) or 'none'}")
    return found


def _filled(place: re.Match[str], row: Mapping[str, Any]) -> str:
    text = place[0]
    if text in ("{{", "}}"):
        return text[0]
    if place[1] is None:
        raise BadWording(f"a single `{text}`; write it twice where it is meant as a bracket")
    name, _, form = place[1].partition(":")
    found = value(name.strip(), row)
    if form == "json":
        return json.dumps(found, ensure_ascii=False)
    if form == "lettered":
        if not isinstance(found, list) or len(found) > 26 or None in found:
            raise BadWording(f"`{name}` is not a list of up to 26 options")
        pairs = zip(string.ascii_uppercase, found, strict=False)
        return "\n".join(f"{letter}. {written(option)}" for letter, option in pairs)
    if form:
        raise BadWording(f"`{form}` is not a form; `lettered` and `json` are")
    if found is None:
        raise BadWording(f"`{name.strip()}` is null")
    return written(found)
