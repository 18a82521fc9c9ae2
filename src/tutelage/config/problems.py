"""What is wrong with a recipe's values: one problem for each mistake, with its line and what to type instead.

Pydantic's errors tell which keys are wrong and how; every word that the user reads is made here, from the
declarations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from tutelage.config.declared import REQUIRED, declared, declared_part, names_in
from tutelage.config.names import general, last_key, plain_name, within
from tutelage.config.origins import COMMAND_LINE, origin_of
from tutelage.config.peers import PEERS
from tutelage.config.suggestions import contents, options_meant, show, spoken, value_meant
from tutelage.errors import Problem
from tutelage.recipe import Recipe


def explain(invalid: ValidationError, raw: Any, origins: Mapping[str, str]) -> list[Problem]:
    """One problem for each mistake: a section is not blamed for its parts, nor an option missed that is misspelt."""
    unknown: list[tuple[list[str], Any]] = []
    missing: list[str] = []
    bad: dict[str, None] = {}
    for error in invalid.errors(include_url=False, include_context=False):
        keys = [str(key) for key in error["loc"] if not str(key).startswith("(")]
        if error["type"] == "extra_forbidden":
            unknown += _unknown([*keys[:-1], str(error["loc"][-1])], error["input"])
        elif error["type"] == "missing" and not keys[-1].isdecimal():
            missing.append(".".join(keys))
        else:
            bad[declared_part(keys)] = None
    parts = [*bad, *missing, *(".".join(keys) for keys, _ in unknown)]
    meant = [near[0] for keys, _ in unknown if len(near := options_meant(keys)) == 1]
    return [
        *(_unknown_option(keys, value, origin_of(".".join(keys), origins)) for keys, value in unknown),
        *(
            _missing_option(name, origin_of(name, origins))
            for name in missing
            if not any(within(option, general(name)) for option in meant)
        ),
        *(
            _bad_value(name, _at(raw, name), origin_of(name, origins))
            for name in bad
            if not any(within(part, name) and part != name for part in parts)
        ),
    ]


def contradictions(recipe: Recipe, origins: Mapping[str, str]) -> Iterator[Problem]:
    """One problem for each pair of options that contradict each other."""
    values = recipe.model_dump()
    for name, what, fix in recipe.conflicts():
        where = origin_of(name, origins)
        yield Problem("recipe/conflict", what, where, _found(name.split("."), _at(values, name), where), fix=fix)


def by_line(problem: Problem) -> int:
    """The line a problem stands on, to sort by; the command line comes last."""
    line = problem.where.rpartition(":")[2]
    return int(line) if line.isdecimal() else 10**9


def _unknown(keys: list[str], value: Any) -> Iterator[tuple[list[str], Any]]:
    """An unknown key, and those inside it that are another tool's name for an option of ours."""
    yield keys, value
    for inside, part in _walk(value):
        if plain_name(inside[-1]) in PEERS:
            yield [*keys, *inside], part


def _walk(value: Any) -> Iterator[tuple[list[str], Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield [str(key)], part
        yield from (([str(key), *inside], deep) for inside, deep in _walk(part))


def _at(raw: Any, name: str) -> Any:
    for key in name.split("."):
        raw = raw[int(key)] if isinstance(raw, list | tuple) else raw[key]
    return raw


def _unknown_option(keys: Sequence[str], value: Any, where: str) -> Problem:
    section, key = ".".join(keys[:-1]), keys[-1]
    near = options_meant(keys)
    note = PEERS.get(plain_name(key), ("", ""))[1]
    if "." not in key and general(".".join(keys)) in declared():
        fix = f"remove it: `{key}` belongs to another `kind` of {section}"
    elif near:
        fix = f"did you mean {' or '.join(map(spoken, near))}?" + (f" {note}" if note else "")
    else:
        fix = f"remove it; {note}" if note else "remove it"
    return Problem(
        "recipe/unknown-option",
        f"`{'.'.join(keys)}` is not an option",
        where,
        _found(keys, value, where),
        why=contents(section),
        fix=fix,
    )


def _missing_option(name: str, where: str) -> Problem:
    option = declared()[general(name)]
    section, _, last = name.rpartition(".")
    needs = [f"`{last_key(part)}`" for part in names_in(name) if declared()[part].default == REQUIRED]
    takes = f"a section with {' and '.join(needs)}" if option.type == "section" else option.type
    fix = f"add `{last}: …` {f'under `{section}`' if section else 'at the top level'}: {takes}"
    return Problem("recipe/missing-option", f"`{name}` is not given", where, why=option.doc, fix=fix)


def _bad_value(name: str, value: Any, where: str) -> Problem:
    option = declared()[general(name)]
    takes = f"{option.type} ({', '.join(map(last_key, names_in(name)))})" if option.type == "section" else option.type
    if text := value_meant(option, value):
        key = "- " if last_key(name).isdecimal() else f"{last_key(name)}: "
        fix = f"{name}={text}" if where == COMMAND_LINE else f"{key}{text}"
    else:
        fix = "write its options under it" if option.type == "section" else f"give {takes}"
        fix += "" if option.default == REQUIRED else ", or remove it"
        fix += f": the default is {option.default}" if option.default not in {REQUIRED, "not given", ""} else ""
    what, found = f"`{name}` cannot be {show(value)}", _found(name.split("."), value, where)
    return Problem("recipe/bad-value", what, where, found, why=f"it takes {takes}", fix=fix)


def _found(keys: Sequence[str], value: Any, where: str) -> str:
    return f"{'.'.join(keys) if where == COMMAND_LINE else keys[-1]} = {show(value)}"
