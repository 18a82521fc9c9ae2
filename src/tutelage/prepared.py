"""Everything of a run that can be known without the weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.data.dataset import Dataset
from tutelage.data.encode import Encoder
from tutelage.data.examples import Examples, Training
from tutelage.data.mixture import Mixture, portions
from tutelage.data.plan import total_steps
from tutelage.models.location import Location
from tutelage.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tutelage.tasks.errand import Errand


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
        data, slots = self.dataset.options, self.training
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

    @cached_property
    def tasks(self) -> list[Errand]:
        """The tasks that are asked before and after, with their rows."""
        from tutelage.evaluate.asking import chosen

        return chosen(self.recipe.evaluate.tasks)

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

    def describe_mixture(self) -> list[dict[str, Any]]:
        """For each source its examples and tokens, how many an epoch takes, and how often the run passes it."""
        options = self.recipe.train
        whole, rest = divmod(self.steps, -(-self.mixture.size // options.global_batch_size))
        # The last step of an epoch is smaller.
        passes = whole + rest * options.global_batch_size / self.mixture.size if options.steps else self.epochs or 0
        return self.mixture.describe(passes)

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
