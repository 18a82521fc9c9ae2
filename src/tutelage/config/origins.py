"""Where each value came from: `default`, `FILE:LINE` or `command line`.

While a recipe is put together, `origins` holds the places of the keys that were given, sections included; the file
alone is under the empty name. What was not given by itself comes from the nearest section that was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tutelage.config.declared import declared
from tutelage.config.names import general, join, within
from tutelage.recipe import Recipe

COMMAND_LINE = "command line"
DEFAULT = "default"

_ABSENT = object()


def origins_of(recipe: Recipe, raw: Any, origins: Mapping[str, str]) -> dict[str, str]:
    """The origin of every option of a recipe that was made from the values `raw`."""
    leaves = _leaves(recipe.model_dump(), raw)
    return {name: _leaf_origin(name, origins) if given else DEFAULT for name, given in leaves}


def origin_of(name: str, origins: Mapping[str, str]) -> str:
    """The place of a key, or of the nearest section around it that has one."""
    while name not in origins:
        name = name.rpartition(".")[0]
    return origins[name]


def _leaf_origin(name: str, origins: Mapping[str, str]) -> str:
    inside = [place for key, place in origins.items() if within(key, name)]
    return COMMAND_LINE if COMMAND_LINE in inside else origin_of(name, origins)


def _leaves(value: Any, raw: Any, name: str = "") -> Iterator[tuple[str, bool]]:
    """Every option of a resolved recipe, and whether it was given."""
    option = declared().get(general(name))
    if isinstance(value, dict) and not (option and option.type.startswith("mapping")):
        for key, part in value.items():
            given = raw.get(key, _ABSENT) if isinstance(raw, dict) else _ABSENT
            yield from _leaves(part, given, join(name, key))
    elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        for i, part in enumerate(value):
            yield from _leaves(part, raw[i], join(name, str(i)))
    else:
        yield name, raw is not _ABSENT
