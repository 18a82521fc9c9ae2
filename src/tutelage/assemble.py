"""A recipe becomes the objects of the flow; the only file that knows all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.config import Resolved
from tutelage.data.canaries import with_canaries
from tutelage.data.coverage import check_coverage
from tutelage.data.dataset import prepare
from tutelage.data.encode import Encoder
from tutelage.data.plan import global_batches
from tutelage.data.share import micro_batches_of_rank
from tutelage.data.stream import Progress
from tutelage.errors import ModelError, Problem, RecipeError
from tutelage.models.location import embedded_tokens, locate, position_limit, refuse_adapter
from tutelage.models.precision import Precision, born, resolve
from tutelage.models.tokenizer import chat_tokenizer, load_tokenizer
from tutelage.prepared import Prepared
from tutelage.recipe import Recipe
from tutelage.types import Example

if TYPE_CHECKING:
    from torch import nn

    from tutelage.models.forward import Forward
    from tutelage.train.choice import Choice
    from tutelage.train.loop import Group
    from tutelage.train.ranks import Ranks
    from tutelage.train.work import Work

ASKED = 128
"""Tokens of a task's prompt, as the plan has it."""


def prepare_data(
    recipe: Recipe,
    progress: Progress = lambda stage, rows: None,
    say: Callable[[str], None] = lambda text: None,
) -> Prepared:
    """Find the model, load its tokenizer, and read, render and encode the rows.

    Raises:
        ModelError, DataError: as each stage finds.
    """
    location = locate(recipe.model.path, recipe.model.revision, trusted=recipe.model.trust_remote_code)
    for remark in location.remarks:
        say(f"note    {remark}")
    refuse_adapter(location)
    limit = position_limit(location)
    if limit is not None and recipe.data.max_length > limit:
        raise ModelError(
            Problem(
                "model/too-short",
                "data.max_length is longer than the model's positions",
                where=location.path,
                found=f"data.max_length = {recipe.data.max_length:,}, the model was built for {limit:,}",
                fix=f"data.max_length={limit} or less",
            )
        )
    tokenizer = load_tokenizer(location)
    backend, template = chat_tokenizer(tokenizer, recipe.model)
    encoder = Encoder(backend, template, thinking_weight=recipe.data.thinking_weight)
    data = with_canaries(recipe.data, recipe.evaluate.canaries, recipe.train.seed)
    dataset = prepare(data, encoder, progress, say)
    check_coverage(dataset.store, backend, embedded=embedded_tokens(location), where=location.path, say=say)
    return Prepared(recipe, location, tokenizer, encoder, dataset)


def groups(
    prepared: Prepared,
    *,
    token_budget: int,
    share: bool = False,
    after: int = 0,
    passed_over: Collection[int] = (),
    ranks: Ranks | None = None,
    lockstep: bool = False,
) -> Iterator[Group]:
    """The optimizer steps of the run after a step, each global batch cut into micro-batches, of several processes each
    its own; common beginnings are computed once. Steps that are passed over have none."""
    from tutelage.train.loop import Group

    rank, world = (0, 1) if ranks is None else (ranks.rank, ranks.world)
    for step, examples in global_examples(prepared, after=after):
        cut = partial(micro_batches_of_rank, examples, share=share, rank=rank, world=world, lockstep=lockstep)
        rows, places = [example.origin for example in examples], [example.index for example in examples]
        batches = [] if step in passed_over else cut(token_budget)
        weight = 0.0 if step in passed_over else sum(float(one.weights.sum(dtype=np.float64)) for one in examples)
        # Divided layers meet in each micro-batch, so one process cannot cut anew by itself.
        epoch = 1 + (step - 1) // -(-prepared.mixture.size // prepared.recipe.train.global_batch_size)
        yield Group(step, batches, rows, prepared.recipe.train.seed, None if lockstep else cut, weight, places, epoch)


def global_examples(prepared: Prepared, *, after: int = 0) -> Iterator[tuple[int, list[Example]]]:
    """The examples of each optimizer step after a step, by its number."""
    options, slots, store = prepared.recipe.train, prepared.training, prepared.dataset.store
    batches = global_batches(
        prepared.mixture.order,
        size=options.global_batch_size,
        epochs=prepared.epochs,
        steps=options.steps,
        after=after,
    )
    for batch in batches:
        # A rendering is chosen by the pass over the source, so that each is shown before one comes again.
        yield batch.step, [store.example(slots.index(slot, turn)) for slot, turn in batch.examples]


def formats(prepared: Prepared, device: str) -> Precision:
    """Of weights, products, optimizer state and masters.

    Raises:
        RecipeError: recipe/conflict, where the device or the model cannot have them.
    """
    recipe, stored = prepared.recipe, born(prepared.location)
    return resolve(recipe.precision, device=device, adapter_kind=recipe.model.adapter.kind, born=stored)


def work(prepared: Prepared) -> Work:
    """What the run computes."""
    from tutelage.train.schedule import evaluation_points
    from tutelage.train.work import Work

    recipe, mixture = prepared.recipe, prepared.mixture
    options, size = recipe.evaluate, recipe.train.global_batch_size
    epoch_tokens = sum(portion.taken * portion.tokens / max(1, portion.size) for portion in mixture.portions)
    asked = prepared.dataset.asking(prepared.questions)
    measurements = 2 + len(evaluation_points(prepared.steps, options.points))
    prompts = [row.examples[0].prompt_length for row in asked]
    for errand in prepared.tasks:
        # A longer answer counts as several, each as long as a held-out row's may be.
        rows = len(errand.chosen(options.task_rows))
        prompts += [ASKED] * -(-rows * errand.task.max_new_tokens // options.max_new_tokens)
    return Work(
        train=prepared.train,
        heldout=prepared.heldout,
        first=next(global_examples(prepared))[1],
        steps=prepared.steps,
        tokens_per_step=epoch_tokens / -(-mixture.size // size),
        global_batch_size=size,
        measurements=measurements,
        looked_at=_looked_at(prepared, measurements),
        prompts=prompts,
        max_new_tokens=options.max_new_tokens,
        answer_tokens=float(prepared.train.supervised.mean()),
        merged=recipe.export.merged,
        checkpoints=recipe.checkpoint.keep + 1,
    )


def _looked_at(prepared: Prepared, measurements: int) -> int:
    """Tokens of general text each time, and of held-out answers alone, after examples, and after those alone."""
    from tutelage.evaluate.general import LIMIT_TOKENS
    from tutelage.evaluate.shots import SHOTS

    options = prepared.recipe.evaluate
    general = LIMIT_TOKENS * (1 + len(options.general)) * measurements if options.drift else 0
    rows = min(options.knowledge, len(prepared.heldout))
    return general + int(rows * (3 + 2 * SHOTS) * float(prepared.train.lengths.mean()))


def choose(resolved: Resolved, prepared: Prepared, device: str) -> tuple[Resolved, Prepared, Choice]:
    """How the run is made to fit into memory and time, before any weight is read.

    Raises:
        MachineError: machine/out-of-memory, machine/out-of-time, with what would fit.
        RecipeError: recipe/conflict, where `export.step` is after the last step.
    """
    from tutelage.train.planner import plan_memory

    choice = plan_memory(prepared.recipe, prepared.location, formats(prepared, device), work(prepared), device)
    resolved, prepared, choice = shortened(resolved, prepared, choice)
    refuse_step_after_the_last(prepared)
    return resolved, prepared, choice


def refuse_step_after_the_last(prepared: Prepared) -> None:
    """Make sure that the step which is to be exported is one of the run's.

    Raises:
        RecipeError: recipe/conflict.
    """
    step = prepared.recipe.export.named
    if step is not None and step > prepared.steps:
        what, found = "the step to export is after the last one", f"step {step:,} of {prepared.steps:,}"
        raise RecipeError(Problem("recipe/conflict", what, "export.step", found, fix="name an earlier one, or `last`"))


def shortened(resolved: Resolved, prepared: Prepared, choice: Choice) -> tuple[Resolved, Prepared, Choice]:
    """With fewer steps where `budget.time` asks for it and the recipe leaves their number open.

    Raises:
        MachineError: machine/out-of-time.
    """
    from tutelage.train.choice import steps_within, takes_too_long

    recipe, steps = prepared.recipe, prepared.steps
    allowed = recipe.budget.seconds
    if allowed is None or choice.seconds <= allowed:
        return resolved, prepared, choice
    fewer = steps_within(allowed, steps=steps, step_seconds=choice.step_seconds, total_seconds=choice.seconds)
    open = {"default", "budget.time"}
    given = {resolved.origins.get(option, "default") for option in ("train.steps", "train.epochs")} - open
    if given or fewer == 0:
        raise takes_too_long(choice.seconds, allowed, fewer)
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"steps": fewer})})
    why = f"{fewer * recipe.train.global_batch_size / prepared.mixture.size:.0%} of an epoch, for budget.time"
    resolved = Resolved(recipe, {**resolved.origins, "train.steps": "budget.time"})
    return resolved, replace(prepared, recipe=recipe), choice.with_steps(fewer, why)


def plan(prepared: Prepared, forward: Forward, parameters: dict[str, nn.Parameter], choice: Choice) -> dict[str, Any]:
    """What `plan.json` holds."""
    train = prepared.train
    every: Sequence[nn.Parameter] = list(forward.model.parameters())
    return {
        "steps": prepared.steps,
        "epochs": prepared.epochs,
        "global_batch_size": prepared.recipe.train.global_batch_size,
        "learning_rate": prepared.recipe.learning_rate,
        "epoch_examples": prepared.mixture.size,
        "mixture": prepared.describe_mixture(),
        "tokens": int(train.lengths.sum()),
        "supervised_tokens": int(train.supervised.sum()),
        "parameters": sum(p.numel() for p in every),
        "trainable_parameters": sum(p.numel() for p in parameters.values()),
        "packed": forward.packed,
        "packed_reason": forward.reason,
        "device": str(forward.device),
        **formats(prepared, forward.device.type).describe(),
        **choice.as_json(),
    }
