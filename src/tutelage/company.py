"""A run of several processes, which `torchrun` started: what rank 0 does alone, and what it tells the others.

Rank 0 writes the run folder and the screen, holds the lock, decides which run it is and how it is planned. The others
read the same recipe and the same rows, and compute their share. Whatever one of them raises ends all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from tutelage import lineage as lineages
from tutelage.assemble import formats
from tutelage.config import Resolved
from tutelage.errors import DataError, Problem, RecipeError
from tutelage.experiment import Experiment
from tutelage.lineage import Lineage, with_steps
from tutelage.models.load import choose_device
from tutelage.onlooker import Onlooker
from tutelage.prepared import Prepared
from tutelage.recipe import Recipe
from tutelage.runs import Run
from tutelage.screen import SILENT, Screen
from tutelage.train.meeting import start
from tutelage.train.ranks import Ranks
from tutelage.train.watchdog import Watchdog, watched


def train(
    resolved: Resolved,
    screen: Screen,
    *,
    resume: bool,
    allow_data_change: bool,
    until: int | None,
    prepare: Callable[[Recipe, Screen], Prepared],
    finished: Callable[[Run, Prepared], dict[str, Any] | None],
) -> dict[str, Any]:
    """The same as a run of one process, on all of them; `result.json`.

    Raises:
        WorkerError: another process is lost or hangs.
        TutelageError: what went wrong on any process.
    """
    device = choose_device(resolved.recipe.model.device)
    _refuse(resolved.recipe, device)
    ranks = start(device)
    folder = Run(resolved.recipe.output) if ranks.first else Onlooker(resolved.recipe.output)
    with watched(ranks, folder.folder) as watchdog, ExitStack() as held:
        ranks.together(lambda: held.enter_context(folder.locked()))
        lineage, resolved = _which_run(ranks, folder, resolved, resume=resume)
        held.enter_context(lineage.clock())
        screen = screen if ranks.first else SILENT
        with ranks.pulse.during("preparing"):
            prepared = _prepared(ranks, resolved.recipe, screen, prepare)
            # A row on one process must be the same row on all.
            _same_rows(ranks.gather(lineages.rows_digest(prepared)))
            ranks.together(lambda: lineage.refuse_other_content(prepared, allow_data_change=allow_data_change))
            if done := ranks.by_first(lambda: finished(folder, prepared)):
                screen.say(f"done    {folder.folder} holds the whole run; `tutelage report` shows it again")
                return dict(done)
        for change in lineage.changes:
            screen.say(f"resume  {change}")
        screen.say(f"ranks   {ranks.world} processes, {resolved.recipe.train.parallel}")
        return _run(Experiment(resolved, prepared, screen, lineage, ranks, until=until), watchdog)


def is_one_of_many() -> bool:
    """Whether a launcher started more processes than this one."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def _run(experiment: Experiment, watchdog: Watchdog) -> dict[str, Any]:
    if experiment.ranks.first:
        watchdog.last_words = experiment.record_failure
    experiment.watched = watchdog.explained
    return experiment.run()


def _refuse(recipe: Recipe, device: str) -> None:
    """What several processes cannot do; found before anybody waits for anybody.

    Raises:
        RecipeError: recipe/conflict.
    """
    if device == "mps":
        what, found = "several processes run on CPUs or on CUDA devices", "model.device = mps"
        raise RecipeError(Problem("recipe/conflict", what, where="model.device", found=found, fix="start one process"))


def _refuse_formats(prepared: Prepared, device: str) -> None:
    precision = formats(prepared, device)
    if (
        prepared.recipe.train.parallel == "sharded"
        and prepared.recipe.model.adapter.kind == "full"
        and precision.weights != "float32"
    ):
        raise RecipeError(
            Problem(
                "recipe/conflict",
                "weights that are trained and divided are float32",
                where="precision.weights",
                found=f"train.parallel = sharded, precision.weights = {precision.weights}",
                why="their gradients would be rounded when they are added",
                fix="precision.weights=float32, or train.parallel=replicated",
            )
        )


def _which_run(ranks: Ranks, folder: Run, resolved: Resolved, *, resume: bool) -> tuple[Lineage, Resolved]:
    """Rank 0 looks into the folder; the others are told."""
    found = ranks.together(lambda: lineages.begin(folder, resolved, resume=resume) if ranks.first else None)
    ranks.together(folder.claim)
    told = None
    if found is not None:
        origin = found[1].origins.get("train.steps", "default")
        told = {"lineage": asdict(found[0]), "steps": found[1].recipe.train.steps, "origin": origin}
    told = ranks.broadcast(told)
    return Lineage(**told["lineage"]), with_steps(resolved, told["steps"], told["origin"])


def _prepared(ranks: Ranks, recipe: Recipe, screen: Screen, prepare: Callable[[Recipe, Screen], Prepared]) -> Prepared:
    """Rank 0 encodes the rows; the others on its machine find them encoded."""

    def here() -> Prepared:
        prepared = prepare(recipe, screen)
        _refuse_formats(prepared, choose_device(recipe.model.device))
        return prepared

    return ranks.in_turn(here)


def _same_rows(digests: list[str]) -> None:
    other = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if other:
        raise DataError(
            Problem(
                "data/changed",
                "not all processes read the same rows",
                where=f"rank {other[0]}",
                found=f"{digests[other[0]][:16]} there, {digests[0][:16]} on rank 0",
                fix="give every machine the same files and the same version of Tutelage",
            )
        )
