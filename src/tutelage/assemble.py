"""A recipe becomes the objects of the flow; the only file that knows all of them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage import __version__
from tutelage.data.batch import pack
from tutelage.data.dataset import Dataset, prepare
from tutelage.data.encode import Encoder
from tutelage.data.examples import Examples, Training
from tutelage.data.mixture import Mixture, portions
from tutelage.data.plan import global_batches, micro_batches, total_steps
from tutelage.data.stream import Progress
from tutelage.errors import ModelError, Problem
from tutelage.models.location import Location, locate, position_limit, refuse_adapter
from tutelage.models.tokenizer import chat_tokenizer, load_tokenizer
from tutelage.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from tutelage.models.forward import Forward
    from tutelage.train.loop import Group


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
    location = locate(recipe.model.path, recipe.model.revision)
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


def groups(prepared: Prepared, *, token_budget: int) -> Iterator[Group]:
    """The optimizer steps of the run, each global batch cut into micro-batches."""
    from tutelage.train.loop import Group

    options = prepared.recipe.train
    slots, store = prepared.training, prepared.dataset.store
    batches = global_batches(
        prepared.mixture.order, size=options.global_batch_size, epochs=prepared.epochs, steps=options.steps
    )
    for batch in batches:
        # A rendering is chosen by the pass over the source, so that each is shown before one comes again.
        examples = [store.example(slots.index(slot, turn)) for slot, turn in batch.examples]
        cut = micro_batches([len(example) for example in examples], token_budget)
        packed = [pack([examples[i] for i in group]) for group in cut]
        yield Group(batch.step, packed, [example.origin for example in examples], options.seed)


def plan(prepared: Prepared, forward: Forward, parameters: dict[str, nn.Parameter]) -> dict[str, Any]:
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
        "weights": "float32",
        "compute": "float32",
        "optimizer_state": "float32",
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


def evaluation_points(steps: int, points: int) -> set[int]:
    """Steps after which the held-out loss is measured during training; the last step is measured anyway."""
    return {round(steps * k / (points + 1)) for k in range(1, points + 1)} - {0, steps}


def environment(prepared: Prepared, device: str) -> dict[str, Any]:
    """What `environment.json` holds."""
    import tokenizers
    import torch
    import transformers

    store = prepared.dataset.store
    return {
        "tutelage": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "store": {"folder": str(store.folder), "bytes": store.bytes_on_disk()},
    }
