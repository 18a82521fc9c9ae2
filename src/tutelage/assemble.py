"""A recipe becomes the objects of the flow; the only file that knows all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.config import Resolved
from tutelage.data.dataset import Dataset, prepare
from tutelage.data.encode import Encoder
from tutelage.data.examples import Examples, Training
from tutelage.data.mixture import Mixture, portions
from tutelage.data.plan import global_batches, total_steps
from tutelage.data.share import micro_batches_of_rank
from tutelage.data.stream import Progress
from tutelage.errors import ModelError, Problem
from tutelage.models.location import Location, locate, position_limit, refuse_adapter
from tutelage.models.precision import Precision, born, resolve
from tutelage.models.tokenizer import chat_tokenizer, load_tokenizer
from tutelage.recipe import Recipe
from tutelage.runs import Run
from tutelage.screen import Screen
from tutelage.types import Example

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from tutelage.evaluate.measure import Measure
    from tutelage.models.forward import Forward
    from tutelage.train.choice import Choice
    from tutelage.train.loop import Group
    from tutelage.train.ranks import Ranks
    from tutelage.train.work import Work


@dataclass(frozen=True)
class Prepared:
    """Everything that can be known without the weights."""

    recipe: Recipe
    location: Location
    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder
    dataset: Dataset

    @cached_property
    def training(self) -> Training:
        """What is trained on, by slot."""
        return self.dataset.training()

    @cached_property
    def mixture(self) -> Mixture:
        """How much of each source an epoch holds, and the order of each epoch."""
        data, slots = self.recipe.data, self.training
        lengths = self.dataset.store.lengths[slots.at(0)]
        sizes, tokens = (
            np.bincount(slots.source, weights=weights, minlength=len(data.train)).astype(int).tolist()
            for weights in (None, lengths)
        )
        return Mixture(portions(data.train, sizes, tokens, data.mixture), seed=self.recipe.train.seed)

    @cached_property
    def train(self) -> Examples:
        """What is trained on, each example once."""
        return self.dataset.examples("train")

    @cached_property
    def heldout(self) -> Examples:
        """What is measured on."""
        return self.dataset.examples("heldout", self.recipe.evaluate.examples)

    @property
    def epochs(self) -> int | None:
        """Passes over the data; None when the run is given in steps."""
        options = self.recipe.train
        return options.epochs if options.epochs is not None else (1 if options.steps is None else None)

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        options = self.recipe.train
        return total_steps(self.mixture.size, size=options.global_batch_size, epochs=self.epochs, steps=options.steps)

    @property
    def questions(self) -> int:
        """How many held-out prompts are answered, at most."""
        options = self.recipe.evaluate
        return options.samples if options.score == "none" else max(options.samples, options.score_rows)

    @property
    def stop_ids(self) -> list[int]:
        """What ends an answer: the tokens that the data ends its answers with, the most frequent first."""
        return sorted(self.dataset.stop_ids, key=lambda id: -self.dataset.stop_ids[id])

    def describe(self) -> dict[str, Any]:
        """What `data.json` holds."""
        template = self.encoder.template
        text = self.encoder.tokenizer.backend.id_to_token
        return {
            "ledger": self.dataset.ledger.as_json(),
            **self.dataset.describe(),
            "template": None if template is None else {"name": template.name, "sha256": template.sha256},
            "stop_tokens": [{"id": id, "text": text(id), "count": self.dataset.stop_ids[id]} for id in self.stop_ids],
        }


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
    return Prepared(recipe, location, tokenizer, encoder, prepare(recipe.data, encoder, progress, say))


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
        origins = [example.origin for example in examples]
        batches = [] if step in passed_over else cut(token_budget)
        weight = 0.0 if step in passed_over else sum(float(one.weights.sum(dtype=np.float64)) for one in examples)
        # Divided layers meet in each micro-batch, so one process cannot cut anew by itself.
        yield Group(step, batches, origins, prepared.recipe.train.seed, None if lockstep else cut, weight)


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
    return Work(
        train=prepared.train,
        heldout=prepared.heldout,
        first=next(global_examples(prepared))[1],
        steps=prepared.steps,
        tokens_per_step=epoch_tokens / -(-mixture.size // size),
        global_batch_size=size,
        measurements=2 + len(evaluation_points(prepared.steps, options.points)),
        prompts=[row.examples[0].prompt_length for row in asked],
        max_new_tokens=options.max_new_tokens,
        answer_tokens=float(prepared.train.supervised.mean()),
        merged=recipe.export.merged,
        checkpoints=recipe.checkpoint.keep + 1,
    )


def choose(resolved: Resolved, prepared: Prepared, device: str) -> tuple[Resolved, Prepared, Choice]:
    """How the run is made to fit into memory and time, before any weight is read.

    Raises:
        MachineError: machine/out-of-memory, machine/out-of-time, with what would fit.
    """
    from tutelage.train.planner import plan_memory

    choice = plan_memory(prepared.recipe, prepared.location, formats(prepared, device), work(prepared), device)
    return shortened(resolved, prepared, choice)


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
        "mixture": describe_mixture(prepared),
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


def describe_mixture(prepared: Prepared) -> list[dict[str, Any]]:
    """For each source its examples and tokens, how many of them an epoch takes, and how often the run passes it."""
    size = prepared.mixture.size
    steps, batch = prepared.steps, prepared.recipe.train.global_batch_size
    whole, rest = divmod(steps, -(-size // batch))  # the last step of an epoch is smaller
    epochs = prepared.epochs if prepared.recipe.train.steps is None else whole + rest * batch / size
    return [
        {
            "source": portion.name,
            "examples": portion.size,
            "tokens": portion.tokens,
            "taken": portion.taken,
            "epochs": round(portion.epochs * (epochs or 0), 3),
        }
        for portion in prepared.mixture.portions
    ]


def measure(prepared: Prepared, folder: Run, screen: Screen, ranks: Ranks) -> Measure:
    """What the run's model is measured on, and where that is written down."""
    from tutelage.evaluate.measure import Measure

    tokenizer, options = prepared.encoder.tokenizer, prepared.recipe.evaluate
    return Measure(prepared.dataset, prepared.heldout, tokenizer, options, prepared.stop_ids, folder, screen, ranks)
