"""The verbs, as plain functions: `check`, `preview`, `train`, `report`. The command line only prints them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage import assemble, config, track
from tutelage import lineage as lineages
from tutelage.config import Resolved
from tutelage.data.show import PreviewRow, preview_rows
from tutelage.errors import Problem, RecipeError, StoppedError
from tutelage.experiment import Experiment
from tutelage.models.load import choose_device
from tutelage.prepared import Prepared
from tutelage.recipe import Recipe
from tutelage.runs import Run
from tutelage.screen import SILENT, Screen
from tutelage.signals import SIGNALS, StopRequested

Given = str | Path | Mapping[str, Any] | Resolved
"""A recipe: a YAML file, a mapping, or one already resolved."""


DEMO_ROWS = 480
"""Training rows of the demo: about five minutes on two cores."""


def resolve(recipe: Given, overrides: Sequence[str] = ()) -> Resolved:
    """The recipe with defaults and overrides in place.

    Raises:
        RecipeError: everything that is wrong with it, at once.
    """
    if isinstance(recipe, Resolved):
        return recipe
    if isinstance(recipe, Mapping):
        return config.resolve(recipe, overrides)
    return config.load(recipe, overrides)


def check(
    recipe: Given, overrides: Sequence[str] = (), screen: Screen = SILENT, *, data_only: bool = False
) -> dict[str, Any]:
    """Validate the recipe and read all its data; what would be trained, and what that takes. Trains nothing.

    What it takes is measured on a small copy of the model, which `data_only` leaves out.

    Raises:
        TutelageError: what is wrong.
    """
    resolved = resolve(recipe, overrides)
    Run(resolved.recipe.output).refuse_if_taken()
    _refuse_at_once(resolved)
    prepared = _prepare(resolved.recipe, screen)
    fits, needs = {}, []
    if not data_only:
        with screen.stage("planning", None):
            device = choose_device(resolved.recipe.model.device)
            resolved, prepared, choice = assemble.choose(resolved, prepared, device)
        fits, needs = {"device": device, **choice.as_json()}, choice.lines()
    return {
        **prepared.describe(),
        "plan": {
            "steps": prepared.steps,
            "epochs": prepared.epochs,
            "epoch_examples": prepared.mixture.size,
            "mixture": prepared.describe_mixture(),
            **fits,
        },
        "needs": needs,
        "model": prepared.recipe.model.path,
        "adapter": prepared.recipe.model.adapter.model_dump(),
        "learning_rate": prepared.recipe.learning_rate,
        "output": prepared.recipe.output,
        "set": {option: origin for option, origin in resolved.origins.items() if origin != "default"},
    }


def preview(
    recipe: Given,
    overrides: Sequence[str] = (),
    screen: Screen = SILENT,
    *,
    limit: int | None = None,
) -> tuple[Prepared, Iterator[PreviewRow]]:
    """The data as it would be trained, and its examples one by one, in the order of the files."""
    prepared = _prepare(resolve(recipe, overrides).recipe, screen)
    return prepared, preview_rows(prepared.dataset, prepared.encoder.tokenizer, limit)


def train(
    recipe: Given,
    overrides: Sequence[str] = (),
    screen: Screen = SILENT,
    *,
    resume: bool = False,
    allow_data_change: bool = False,
    until: int | None = None,
) -> dict[str, Any]:
    """Run the recipe: measure, train, measure again, save, prove, report. The value is `result.json`.

    With `resume`, a run that its folder holds is continued, or its result given where it is done. With
    `allow_data_change` it goes on with other rows than before, which `run.json` then says. With `until` it stops
    after that step, measured and saved; continued later, it is the run that it would have been.

    Raises:
        TutelageError: what went wrong; the run folder then holds what was reached.
    """
    resolved = resolve(recipe, overrides)
    _refuse_at_once(resolved)
    folder = Run(resolved.recipe.output)
    SIGNALS.install()
    try:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            from tutelage import company

            options = {"resume": resume, "allow_data_change": allow_data_change, "until": until}
            return company.train(resolved, screen, **options, prepare=_prepare, finished=_done)
        with folder.locked():
            lineage, resolved = lineages.begin(folder, resolved, resume=resume)
            folder.claim()
            with lineage.clock():
                prepared = _prepare(resolved.recipe, screen)
                lineage.refuse_other_content(prepared, allow_data_change=allow_data_change)
                if done := _done(folder, prepared):
                    screen.say(f"done    {folder.folder} holds the whole run; `tutelage report` shows it again")
                    return done
                for change in lineage.changes:
                    screen.say(f"resume  {change}")
                return Experiment(resolved, prepared, screen, lineage, until=until).run()
    except StopRequested as signal:
        raise _stopped(folder, str(signal)) from None
    finally:
        SIGNALS.remove()


def _refuse_fewer_steps(made: Sequence[int], steps: int) -> None:
    """A step that was made cannot be taken back: the model would be neither recipe's."""
    if made and made[0] > steps:
        raise RecipeError(
            Problem(
                "recipe/changed",
                "the run has made more steps than the recipe asks for",
                where="train.steps",
                found=f"{made[0]:,} steps are made, {steps:,} steps are asked for",
                fix="ask for as many or more, or begin another run with output=runs/NAME",
            )
        )


def _done(folder: Run, prepared: Prepared) -> dict[str, Any] | None:
    """The result of a run that made all of its steps and was proved; None for one that has something to do.

    Raises:
        RecipeError: recipe/changed, when it has made more; recipe/conflict, when the step to export is none of its own.
        ModelError: checkpoint/not-kept, when the step to export was made and cannot be had.
    """
    made, named = [one.step for one in folder.checkpoints.all()], prepared.recipe.export.named
    _refuse_fewer_steps(made, prepared.steps)
    assemble.refuse_step_after_the_last(prepared)
    if named is not None and made and made[0] >= named and named not in made:
        raise folder.checkpoints.not_kept(named)
    result: dict[str, Any] | None = folder.read_json("result.json", needed=False)
    if result is None or result["status"] != "done":
        return None
    in_vain = result.get("ended_early") == prepared.recipe.evaluate.ends(prepared.steps)
    export = prepared.recipe.export
    other_export = result.get("export_step", export.step) != export.step or (
        export.merged and "merged" not in result["model"]
    )
    if other_export or (result["steps"] < prepared.steps and not in_vain):
        return None
    if not (folder.folder / "report.html").is_file():
        report(folder.folder)
    return result


def _stopped(folder: Run, signal: str) -> StoppedError:
    saved = folder.checkpoints.all()
    at = f"after step {saved[0].step}, which is saved" if saved else "before the first checkpoint"
    what = f"stopped on request ({signal}) {at}"
    fix = "`tutelage train RECIPE --resume` goes on from there"
    return StoppedError(Problem("run/stopped", what, where=str(folder.folder), fix=fix))


def demo(folder: str | Path, screen: Screen = SILENT) -> tuple[Path, dict[str, Any]]:
    """Make the demo's rows, run its recipe, and give the run folder and its result.

    A run is never overwritten: where the folder is taken, the next free name beside it is used.

    Raises:
        TutelageError: as `train` does.
    """
    from importlib import resources

    from tutelage.demo import orders

    run = _free(Path(folder))
    data = run.with_name(f"{run.name}-data")
    train_file, test_file = orders.write(data, train=DEMO_ROWS)
    overrides = [f"data.train.0.path={train_file}", f"data.heldout.path={test_file}", f"output={run}"]
    with resources.as_file(resources.files("tutelage.demo") / "recipe.yaml") as recipe:
        return run, train(recipe, overrides, screen)


def _free(folder: Path) -> Path:
    """The folder, or the first of folder-2, folder-3, ... that holds nothing."""
    names = itertools.chain([folder], (folder.with_name(f"{folder.name}-{n}") for n in itertools.count(2)))
    return next(path for path in names if not path.exists() or (path.is_dir() and not any(path.iterdir())))


def report(folder: str | Path, others: Sequence[str | Path] = ()) -> Path:
    """Write `report.html` of a run again, with the curves of others beside its own; its path.

    Raises:
        RecipeError: usage/not-a-run.
    """
    from tutelage.report.page import write

    return write(Path(folder), [Path(other) for other in others])


def _refuse_at_once(resolved: Resolved) -> None:
    """What would stop the run later, found before any row is read."""
    recipe = resolved.recipe
    config.refuse_misplaced(recipe, resolved.origins)
    track.refuse_missing(recipe.track.to)
    device = choose_device(recipe.model.device) if recipe.model.device != "auto" or recipe.train.compile else "auto"
    if recipe.train.compile and recipe.train.parallel == "sharded":
        what, fix = "layers that are divided are not compiled", "train.compile=false, or train.parallel=replicated"
        raise RecipeError(Problem("recipe/conflict", what, where="train.compile", fix=fix))
    if recipe.train.compile:
        from tutelage.models.compiled import refuse_without_compiler

        refuse_without_compiler(device)


def _prepare(recipe: Recipe, screen: Screen) -> Prepared:
    with screen.stage("reading the data", None) as advance:
        return assemble.prepare_data(recipe, lambda stage, rows: advance(rows, note=stage), screen.say)
