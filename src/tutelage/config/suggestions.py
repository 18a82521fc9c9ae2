"""What the user most likely meant, and how options and values are spelled in a message.

A suggestion is made only where one thing is likely: another tool's name, the same name in another section, a near
spelling, a value that needs a quote, a section or a percent sign written otherwise. Nothing is ever put right silently.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tutelage.config.declared import Option, declared, names_in
from tutelage.config.names import general, last_key, plain_name
from tutelage.config.peers import PEERS

_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(%?)", re.ASCII)


def options_meant(keys: Sequence[str]) -> list[str]:
    """The options that an unknown key may mean: another tool's name, the same name elsewhere, a near name."""
    section, key = general(".".join(keys[:-1])), plain_name(keys[-1])
    if key in PEERS:
        return [ours] if (ours := PEERS[key][0]) else []
    exact = [name for name in declared() if name == key or name.endswith(f".{key}")]
    beside = _closest(key, names_in(section))
    return list(dict.fromkeys([*exact, *beside])) or _closest(key, declared())


def _closest(key: str, names: Iterable[str]) -> list[str]:
    last = {name.rpartition(".")[2]: name for name in reversed(list(names))}
    return [last[near] for near in difflib.get_close_matches(key, last, n=1, cutoff=0.7)]


def value_meant(option: Option, value: Any) -> str:
    """The YAML that the user most likely meant, or nothing."""
    inside = {last_key(name): declared()[name] for name in names_in(option.name)}
    if option.type.startswith("list of section"):
        path = value if value and isinstance(value, str) else "…"
        entry = value if value and isinstance(value, dict) else {"path": path}
        return f"[{show(entry)}]"
    if isinstance(value, str):
        if "kind" in inside and (kind := difflib.get_close_matches(value, inside["kind"].type.split(" | "), n=1)):
            return f"{{kind: {kind[0]}}}"
        if "number" in option.type.partition(" of ")[0] and (number := _NUMBER.fullmatch(value)):
            return f"{float(number[1]) / 100:g}" if number[2] else number[1]
        if "path" in inside:
            return f"{{path: {value or '…'}}}"
        if option.type == "true | false" and value.lower() in {"yes", "no", "on", "off", "true", "false"}:
            return "true" if value.lower() in {"yes", "on", "true"} else "false"
        if " | " in option.type:
            return "".join(difflib.get_close_matches(value.lower(), option.type.split(" | "), n=1))
    elif option.type.startswith("text") and isinstance(value, bool | int | float):
        return f'"{show(value)}"'
    elif option.type.startswith("whole number") and isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return ""


def contents(section: str) -> str:
    """The options of a section as a sentence; nothing when there are none."""
    names = ", ".join(map(last_key, names_in(section)))
    if not names:
        return ""
    return f"section {section} has: {names}" if section else f"the top level has: {names}"


def spoken(name: str) -> str:
    """An option and where it belongs."""
    section, _, last = name.rpartition(".")
    if section.endswith(".N"):
        return f"`{last}` (each entry of {section[:-2]})"
    return f"`{last}` (section {section})" if section else f"`{last}` (top level)"


def show(value: Any) -> str:
    """A value in one short line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:59]}…"
