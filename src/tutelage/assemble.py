"""A recipe becomes the objects of the flow; the only file that knows all of them."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tutelage import __version__
from tutelage.data.batch import pack
from tutelage.data.dataset import Dataset, Progress, prepare
from tutelage.data.encode import Encoder
from tutelage.data.plan import global_batches, micro_batches, total_steps
from tutelage.errors import ModelError, Problem
from tutelage.models.location import Location, locate, position_limit, refuse_adapter
from tutelage.models.tokenizer import chat_tokenizer, load_tokenizer
from tutelage.recipe import Recipe
from tutelage.types import Example

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from tutelage.models.forward import Forward
    from tutelage.train.loop import Group


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that can be known without the weights."""

    recipe: Recipe
    location: Location
    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder
    dataset: Dataset

    @property
    def train(self) -> list[Example]:
        """What is trained on."""
        return self.dataset.examples("train")

    @property
    def heldout(self) -> list[Example]:
        """What is measured on."""
        return self.dataset.examples("heldout")[: self.recipe.evaluate.examples]

    @property
    def epochs(self) -> int | None:
        """Passes over the data; None when the run is given in steps."""
        options = self.recipe.train
        return options.epochs if options.epochs is not None else (1 if options.steps is None else None)

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        options = self.recipe.train
        count = self.dataset.ledger.examples["train"]
        return total_steps(count, size=options.global_batch_size, epochs=self.epochs, steps=options.steps)

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


def prepare_data(recipe: Recipe, progress: Progress = lambda stage, rows: None) -> Prepared:
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
    encoder = Encoder(backend, template)
    return Prepared(recipe, location, tokenizer, encoder, prepare(recipe.data, encoder, progress))


def groups(prepared: Prepared, *, token_budget: int) -> Iterator[Group]:
    """The optimizer steps of the run, each global batch cut into micro-batches."""
    from tutelage.train.loop import Group

    options = prepared.recipe.train
    train = prepared.train
    batches = global_batches(
        len(train), size=options.global_batch_size, seed=options.seed, epochs=prepared.epochs, steps=options.steps
    )
    for batch in batches:
        examples = [train[index] for index in batch.examples]
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
        "tokens": sum(map(len, train)),
        "supervised_tokens": sum(example.supervised for example in train),
        "parameters": sum(p.numel() for p in every),
        "trainable_parameters": sum(p.numel() for p in parameters.values()),
        "packed": forward.packed,
        "packed_reason": forward.reason,
        "device": str(forward.device),
        "weights": "float32",
        "compute": "float32",
        "optimizer_state": "float32",
    }


def environment(device: str) -> dict[str, Any]:
    """What `environment.json` holds."""
    import tokenizers
    import torch
    import transformers

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
    }
