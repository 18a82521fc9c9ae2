"""From a YAML file and `key=value` overrides to a `Recipe`, with the origin of every value.

    file ── document ──> values + the line of each key ── overrides ──> values ── Recipe or problems ──> Resolved

A recipe says what is run, so nothing in it is ignored, guessed or changed: an option that does not exist, a value
of the wrong type and a contradiction are refused, all at once, each with its line and what to type instead.
What the user may write is declared in `tutelage.recipe` alone; this package only reads those declarations, for
checking, for messages, for `tutelage options` and for the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutelage.config.declared import Option, options
from tutelage.config.document import dump, read
from tutelage.config.origins import COMMAND_LINE, origin_of, origins_of
from tutelage.config.overrides import BadOverride, apply
from tutelage.config.peers import PEERS
from tutelage.config.places import refuse_misplaced
from tutelage.config.problems import by_line, contradictions, explain
from tutelage.config.secrets import find_secrets, override_secret, secret_problem
from tutelage.errors import RecipeError
from tutelage.recipe import Recipe, Section

__all__ = ["PEERS", "Option", "Resolved", "dump", "load", "options", "refuse_misplaced", "resolve"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A recipe, and for every option (dotted) `default`, `FILE:LINE` or `command line`."""

    recipe: Recipe
    origins: dict[str, str]


def load(path: str | Path, overrides: Sequence[str] = ()) -> Resolved:
    """The recipe in a file, with overrides of the form `section.option=value` applied from left to right.

    Raises RecipeError with every problem of the file and of the overrides.
    """
    file = Path(path)
    values, lines = read(file)
    return resolve(values, overrides, lines=lines, file=str(file))


def resolve(
    values: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    lines: Mapping[str, int] | None = None,
    file: str = "recipe",
) -> Resolved:
    """The recipe that nested values and overrides describe.

    `lines` gives the line of a dotted key in `file`; without it the origin of a value is `file` alone.
    Raises RecipeError with every problem found; or SecurityError, which shows no value, when there is a secret.
    """
    raw = _copy(values)
    origins = {"": file} | {key: f"{file}:{line}" for key, line in (lines or {}).items()}
    _refuse_secrets(raw, overrides, origins)
    problems = []
    for override in overrides:
        try:
            raw = apply(override, raw, origins)
        except BadOverride as bad:
            problems.append(bad.problem)
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as invalid:
        problems += explain(invalid, raw, origins)
        raise RecipeError.of(sorted(problems, key=by_line)) from None
    problems += contradictions(recipe, origins)
    if problems:
        raise RecipeError.of(sorted(problems, key=by_line))
    return Resolved(recipe, origins_of(recipe, raw, origins))


def _refuse_secrets(raw: Any, overrides: Sequence[str], origins: Mapping[str, str]) -> None:
    """Before anything is said about the values: an error shows what it found."""
    problems = [secret_problem(name, origin_of(name, origins)) for name in find_secrets(raw)]
    problems += [secret_problem(name, COMMAND_LINE) for text in overrides if (name := override_secret(text))]
    if problems:
        raise RecipeError.of(problems)


def _copy(value: Any) -> Any:
    if isinstance(value, Section):
        value = value.model_dump(exclude_unset=True)
    if isinstance(value, Mapping):
        return {str(key): _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list | tuple) else value
