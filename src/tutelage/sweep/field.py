"""Every run of a sweep, before the first begins: where it lies, how many steps it has, and that all can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tutelage.errors import Problem, RecipeError
from tutelage.prepared import Prepared
from tutelage.recipe import Recipe
from tutelage.screen import Screen
from tutelage.sweep.grid import Setting, seeded
from tutelage.sweep.trial import Trial


def trials(found: Sequence[Setting], folder: Path, *, seeds: int, screen: Screen) -> list[Trial]:
    """The runs, setting by setting. The rows are read and encoded once for each choice of data, and kept on disk.

    Raises:
        RecipeError: recipe/conflict, where settings cannot be compared.
        TutelageError: as reading the data finds.
    """
    from tutelage import assemble, config
    from tutelage.models.load import choose_device
    from tutelage.train.schedule import warmup_steps

    _refuse(found)
    runs: list[Trial] = []
    prepared: dict[str, Prepared] = {}
    rows: dict[str, str] = {}
    for setting in found:
        recipe = setting.recipe
        config.refuse_misplaced(recipe, {})
        choose_device(recipe.model.device)
        key = _data_of(recipe)
        if key not in prepared:
            with screen.stage("reading the data", None) as advance:
                prepared = {key: assemble.prepare_data(recipe, lambda stage, n: advance(n, note=stage), screen.say)}
            rows.setdefault(_digest(prepared[key]), setting.label)
            _refuse_other_rows(rows)
        steps = replace(prepared[key], recipe=recipe).steps
        warmup = warmup_steps(steps, recipe.train.schedule)
        for name, seed, overrides in seeded(setting, seeds):
            runs.append(Trial(setting, name, seed, overrides, folder / name, steps, warmup))
    return runs


def _data_of(recipe: Recipe) -> str:
    """What the encoded rows depend on, and what of them is measured."""
    model = recipe.model.model_dump_json(exclude={"adapter", "device"})
    return f"{model} {recipe.data.model_dump_json()} {recipe.evaluate.examples}"


def _digest(prepared: object) -> str:
    """Of the held-out examples."""
    each = sorted(
        hashlib.sha256(one.input_ids.tobytes() + one.weights.tobytes()).hexdigest()
        for one in prepared.heldout  # type: ignore[attr-defined]
    )
    return hashlib.sha256("".join(each).encode()).hexdigest()


def _refuse(found: Sequence[Setting]) -> None:
    problems: list[Problem] = []
    if any(setting.recipe.data.heldout == 0 for setting in found):
        what, fix = "no rows are held out, so nothing says which setting is better", "give data.heldout a share"
        problems.append(Problem("recipe/conflict", what, where="data.heldout", fix=fix))
    if any(setting.recipe.budget.seconds is not None for setting in found):
        what = "with a budget of time each setting would make as many steps as the machine allows just then"
        problems.append(Problem("recipe/conflict", what, where="budget.time", fix="remove it, and give train.steps"))
    if problems:
        raise RecipeError(*problems)


def _refuse_other_rows(rows: dict[str, str]) -> None:
    if len(rows) > 1:
        raise RecipeError(
            Problem(
                "recipe/conflict",
                "the settings do not hold out the same rows as the same tokens",
                found=" and ".join(rows.values()),
                why="a loss is compared row by row, and a loss per token of other tokens is another quantity",
                fix="vary what leaves data.heldout as it is; `tutelage compare` compares answers of any models",
            )
        )


def by_setting(runs: Sequence[Trial]) -> Iterator[tuple[Setting, list[Trial]]]:
    """Each setting with its runs."""
    known: dict[str, tuple[Setting, list[Trial]]] = {}
    for trial in runs:
        known.setdefault(trial.setting.name, (trial.setting, []))[1].append(trial)
    yield from known.values()
