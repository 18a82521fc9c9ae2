"""Where the run folder may not lie: what it would write over, or mix with.

The paths of a recipe are the user's own, so most may lead anywhere. The output is different: a run fills it with
files, and is later removed with it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from tutelage.config.suggestions import show
from tutelage.errors import Problem, RecipeError
from tutelage.recipe import Recipe

LONGEST_NAME = 255
"""Bytes of one part of a path, on every common file system."""


def refuse_misplaced(recipe: Recipe, origins: Mapping[str, str]) -> None:
    """Make sure that a run may be written where the recipe says.

    Raises:
        RecipeError: recipe/conflict, recipe/bad-value.
    """
    problems = list(_misplaced(recipe, origins))
    if problems:
        raise RecipeError(*problems)


def _misplaced(recipe: Recipe, origins: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with `output`."""
    where, found = origins.get("output", "recipe"), f"output = {show(recipe.output)}"
    fix = "choose a folder of its own, as in output=runs/NAME"
    if what := _unusable(recipe.output):
        yield Problem("recipe/bad-value", what, where, found, fix=fix)
        return
    try:
        output, home = _whole(recipe.output), _home()
        if output == Path(output.anchor):
            yield Problem("recipe/conflict", "`output` is the root of all folders", where, found, fix=fix)
        elif home is not None and home.is_relative_to(output):
            yield Problem("recipe/conflict", "`output` is your home folder, or holds it", where, found, fix=fix)
        else:
            for option, path in _given(recipe):
                if what := _mixed(output, path, option):
                    yield Problem("recipe/conflict", what, where, f"{found}, {option} = {show(str(path))}", fix=fix)
    except (OSError, RuntimeError, ValueError):
        return  # What cannot be looked at cannot be written either, and whoever writes says why.


def _unusable(output: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in output):
        return "`output` has a character that no name of a folder should have"
    if any(len(part.encode()) > LONGEST_NAME for part in Path(output).parts):
        return f"`output` has a name of more than {LONGEST_NAME} bytes"
    return ""


def _given(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """What the recipe reads that is there, by the option that names it."""
    heldout = recipe.data.heldout
    sources: list[tuple[str, str | tuple[str, ...]]] = [("model.path", recipe.model.path)]
    sources += [(f"data.train.{n}.path", source.path) for n, source in enumerate(recipe.data.train)]
    sources += [] if isinstance(heldout, int | float) else [("data.heldout.path", heldout.path)]
    for option, paths in sources:
        for path in (paths,) if isinstance(paths, str) else paths:
            whole = _whole(path)
            if whole.exists():
                yield option, whole


def _mixed(output: Path, path: Path, option: str) -> str:
    if output == path:
        return f"`output` is what `{option}` reads"
    if path.is_relative_to(output):
        return f"`output` holds what `{option}` reads"
    if path.is_dir() and output.is_relative_to(path):
        return f"`output` lies inside what `{option}` reads"
    return ""


def _home() -> Path | None:
    try:
        return _whole("~")
    except RuntimeError:  # A user without a home, as in some containers.
        return None


def _whole(path: str) -> Path:
    return Path(path).expanduser().resolve()
