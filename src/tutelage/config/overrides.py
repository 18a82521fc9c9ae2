"""Overrides from the command line: `section.option=value`, the value spelled as in the file.

An override replaces what stands at its name, makes the sections on the way, and lets a list grow by one entry.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tutelage.config.document import NotYaml, compose, plain
from tutelage.config.names import within
from tutelage.config.origins import COMMAND_LINE
from tutelage.errors import Problem


class BadOverride(Exception):
    """An override that cannot be read or put in; it carries the problem."""

    def __init__(self, what: str, override: str, fix: str) -> None:
        super().__init__(what)
        shown = override.encode(errors="backslashreplace").decode()
        self.problem = Problem("recipe/bad-override", what, COMMAND_LINE, shown, fix=fix)


def apply(override: str, raw: Any, origins: dict[str, str]) -> Any:
    """`raw` with one override put in; `origins` learns where the value came from."""
    name, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[\w-]+)*", name):
        what, fix = "an override is not of the form section.option=value", "write it as in the recipe: train.epochs=3"
        raise BadOverride(what, override, fix)
    value = _value_of(text, override)
    keys = name.split(".")
    raw = _put(raw, keys, value, override)
    for known in [key for key in origins if within(key, name)]:
        del origins[known]
    for depth in range(1, len(keys) + 1):
        origins.setdefault(".".join(keys[:depth]), COMMAND_LINE)
    return raw


def _value_of(text: str, override: str) -> Any:
    if not text.strip():
        raise BadOverride("nothing stands after `=`", override, "write `null` to unset, or remove the override")
    quoted = f"quote the value for YAML and for the shell: '{override.partition('=')[0]}=\"…\"'"
    try:
        node = compose(text)
        if node is None or text[node.end_mark.index :].strip():
            raise NotYaml("cut short by a `#`, which starts a comment")
        return plain(node)[0]
    except NotYaml as bad:
        raise BadOverride(f"the value is refused: {bad.what}", override, bad.fix or quoted) from None


def _put(values: Any, keys: Sequence[str], value: Any, override: str) -> Any:
    """`values` with `value` at `keys`; sections on the way are made, a list may grow by one entry."""
    if not keys:
        return value
    key, *rest = keys
    if not isinstance(values, dict | list):
        values = [] if key.isdecimal() else {}
    if isinstance(values, dict):
        return values | {key: _put(values.get(key), rest, value, override)}
    if not key.isdecimal() or int(key) > len(values):
        what = f"`{key}` is not a place in a list of {len(values)}"
        raise BadOverride(what, override, f"count from 0; {len(values)} adds an entry")
    at = int(key)
    old = values[at] if at < len(values) else None
    return [*values[:at], _put(old, rest, value, override), *values[at + 1 :]]
