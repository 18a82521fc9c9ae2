"""What a run is measured on, and when."""

from __future__ import annotations

from tutelage.evaluate.anatomy import anatomy
from tutelage.evaluate.canaries import Planted
from tutelage.evaluate.course import Course
from tutelage.evaluate.general import load
from tutelage.evaluate.measure import Measure
from tutelage.prepared import Prepared
from tutelage.runs import Run
from tutelage.screen import Screen
from tutelage.train.ranks import Ranks
from tutelage.train.schedule import evaluation_points


def course(prepared: Prepared, until: int | None = None) -> Course:
    """When the run is measured, the last step included; with `until` also there."""
    options, heldout, steps = prepared.recipe.evaluate, prepared.heldout, prepared.steps
    points = evaluation_points(steps, options.points) | {steps} if heldout else set()
    export = prepared.recipe.export
    return Course(heldout, prepared.dataset.rows_of(heldout), options, steps, points, until, export)


def measure(prepared: Prepared, folder: Run, screen: Screen, ranks: Ranks) -> Measure:
    """What the run's model is measured on, and where that is written down.

    Raises:
        RecipeError, DataError: what is wrong with a task, or with a file of general text.
    """
    options, dataset, encoder = prepared.recipe.evaluate, prepared.dataset, prepared.encoder
    planted = Planted.of(dataset, encoder, count=options.canaries, seed=prepared.recipe.train.seed)
    if len(planted.groups) < options.canaries:
        kept = f"{len(planted.groups):,} of {options.canaries:,} canaries"
        screen.say(
            f"note    {kept} are trained on as they were made; the rules of data.* dropped or changed the others"
        )
    return Measure(
        dataset,
        prepared.heldout,
        encoder,
        options,
        prepared.stop_ids,
        prepared.recipe.data.max_length,
        folder,
        screen,
        ranks,
        anatomy(dataset, prepared.heldout, encoder.tokenizer),
        load(options.general, encoder, max_length=prepared.recipe.data.max_length) if options.drift else None,
        prepared.tasks,
        planted,
    )
