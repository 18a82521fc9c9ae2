"""What is varied: arguments like `train.learning_rate=1e-5,2e-5` to settings, a recipe each.

Values are split at commas outside of brackets and quotes; every combination is one setting. Each is resolved as
`tutelage train` would, so that whatever is wrong with one of them is said before anything runs.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage import config
from tutelage.config.document import read
from tutelage.errors import Problem, RecipeError, TutelageError
from tutelage.recipe import Recipe

_LONGEST = 60
"""Characters of a setting's name."""
COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Axis:
    """One option, and the values that it is given, as they were typed."""

    option: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """One combination of values."""

    name: str
    """Of its runs' folders."""
    label: str
    """In words."""
    varied: dict[str, str]
    """Value by option, of what differs between settings."""
    overrides: tuple[str, ...]
    """What `tutelage train` is given."""
    recipe: Recipe


def settings(recipe: Path, arguments: Sequence[str], *, seeds: int) -> list[Setting]:
    """Every combination of the values.

    Raises:
        RecipeError: everything that is wrong with any of them, at once.
    """
    axes = _axes(arguments, seeds)
    values, lines = read(recipe)
    problems: dict[str, Problem] = {}
    found: list[Setting] = []
    varied = [axis for axis in axes if len(axis.values) > 1]
    words = _words([axis.option for axis in varied])
    for number, chosen in enumerate(itertools.product(*(axis.values for axis in axes)), start=1):
        given = dict(zip((axis.option for axis in axes), chosen, strict=True))
        overrides = tuple(f"{option}={value}" for option, value in given.items())
        try:
            resolved = config.resolve(values, overrides, lines=lines, file=str(recipe)).recipe
        except TutelageError as error:
            problems = {_once(problem): problem for problem in error.problems} | problems
            continue
        differ = {axis.option: given[axis.option] for axis in varied}
        label = ", ".join(f"{words[option]} {value}" for option, value in differ.items()) or "the recipe"
        found.append(Setting(_name(number, words, differ), label, differ, overrides, resolved))
    if problems:
        raise RecipeError.of(problems.values())
    _refuse_equal(found)
    return found


def _once(problem: Problem) -> str:
    """A problem as what it is said once for: an option that does not exist, or a value that is wrong."""
    return problem.what if problem.code == "recipe/unknown-option" else str(problem)


def _axes(arguments: Sequence[str], seeds: int) -> list[Axis]:
    axes: list[Axis] = []
    problems = []
    for argument in arguments:
        option, equals, text = argument.partition("=")
        values = tuple(map(str.strip, split(text)))
        # An empty value, or no `=`, is refused by the recipe's own check of overrides.
        axes.append(Axis(option, values if equals else ()))
        shown = argument.encode(errors="backslashreplace").decode()[:80]
        if not equals:
            what, fix = "an option to vary is not of the form section.option=value,value", "train.epochs=1,2,3"
            problems.append(Problem("recipe/bad-override", what, COMMAND_LINE, shown, fix=f"write it as {fix}"))
        elif option == "output":
            what, fix = "each run has a folder of its own in the sweep's", "name the sweep's with --out FOLDER"
            problems.append(Problem("recipe/conflict", what, COMMAND_LINE, shown, fix=fix))
        elif option in [axis.option for axis in axes[:-1]]:
            what, fix = f"`{option}` is given twice", f"write its values once: {option}=A,B"
            problems.append(Problem("recipe/conflict", what, COMMAND_LINE, shown, fix=fix))
        elif option == "train.seed" and seeds > 1:
            what, fix = "--seeds chooses the seeds, and train.seed is given too", "leave one of them out"
            problems.append(Problem("recipe/conflict", what, COMMAND_LINE, shown, fix=fix))
    if not problems and seeds == 1 and not any(len(axis.values) > 1 for axis in axes):
        what, fix = "nothing is varied", "name values, as in train.learning_rate=1e-5,2e-5,5e-5, or --seeds 3"
        problems.append(Problem("recipe/bad-override", what, COMMAND_LINE, fix=fix))
    if problems:
        raise RecipeError(*problems)
    return axes


def split(text: str) -> list[str]:
    """The text cut at the commas that stand outside of brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for place, character in enumerate(text):
        escaped = quote == '"' and text[:place].endswith("\\") and not text[:place].endswith("\\\\")
        if quote:
            quote = "" if character == quote and not escaped else quote
        elif character in "\"'":
            quote = character
        else:
            depth += (character in "[{(") - (character in "]})")
            if character == "," and depth <= 0:
                parts.append("")
                continue
        parts[-1] += character
    return parts


def _words(options: Sequence[str]) -> dict[str, str]:
    """Each option by its last word, or by its whole name where two have the same last one."""
    last = [option.rpartition(".")[2] for option in options]
    return {
        option: option if last.count(word) > 1 else word.replace("_", " ")
        for option, word in zip(options, last, strict=True)
    }


def _name(number: int, words: dict[str, str], differ: dict[str, str]) -> str:
    """A folder's name, told apart by its number however long the values are."""
    text = " ".join(f"{words[option]} {value}" for option, value in differ.items())
    plain = re.sub(r"[^A-Za-z0-9.+]+", "-", text).strip("-.")[:_LONGEST].rstrip("-.")
    return f"{number:02d}-{plain}" if plain else f"{number:02d}"


def _refuse_equal(found: Sequence[Setting]) -> None:
    """Two spellings of one value would be one setting trained twice."""
    known: dict[str, str] = {}
    for setting in found:
        values = setting.recipe.model_dump_json()
        if values in known:
            what, fix = "two settings are the same", "leave one of them out; --seeds trains each more than once"
            both = f"{known[values]} and {setting.label}"
            raise RecipeError(Problem("recipe/conflict", what, COMMAND_LINE, both, fix=fix))
        known[values] = setting.label


def seeded(setting: Setting, seeds: int) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """(name, seed, overrides) of each run of a setting."""
    if seeds == 1:
        yield setting.name, setting.recipe.train.seed, setting.overrides
        return
    for seed in range(setting.recipe.train.seed, setting.recipe.train.seed + seeds):
        yield f"{setting.name}-seed-{seed}", seed, (*setting.overrides, f"train.seed={seed}")


def quoted(path: Path) -> str:
    """A path as a value on the command line of a run, whatever it is called."""
    return json.dumps(str(path), ensure_ascii=False)
