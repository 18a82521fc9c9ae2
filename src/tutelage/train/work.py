"""What a run computes, as far as lengths tell: its largest micro-batch, its first step, and how much there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.data.batch import MicroBatch, lay_out, pack
from tutelage.data.cut import cut
from tutelage.data.examples import Examples
from tutelage.types import Example


@dataclass(frozen=True, slots=True)
class Work:
    """Of one run."""

    train: Examples
    heldout: Examples
    first: Sequence[Example]
    """The examples of the first step."""
    steps: int
    tokens_per_step: float
    """Of the examples, in the mean."""
    global_batch_size: int
    measurements: int
    """How often the held-out loss is measured."""
    looked_at: int
    """Tokens that are measured besides the held-out ones: general text, and answers after examples."""
    prompts: Sequence[int]
    """Tokens of each prompt that is answered, before and after."""
    max_new_tokens: int
    answer_tokens: float
    """Of a row's own answer, in the mean."""
    merged: bool
    """Whether the adapter is also saved merged."""
    checkpoints: int = 0
    """How many lie on the disk at once, at most."""

    @property
    def longest(self) -> int:
        """Tokens of the longest example; what memory must hold at least."""
        return max(int(examples.lengths.max(initial=1)) for examples in (self.train, self.heldout))

    def first_step(self, token_budget: int, *, share: bool) -> list[MicroBatch]:
        """The first step's micro-batches."""
        return micro_batches_of(self.first, token_budget, share=share)

    def largest(self, token_budget: int) -> MicroBatch:
        """The longest training examples that fill the budget, nothing shared: no micro-batch needs more memory."""
        return _largest(self.train, token_budget, most=self.global_batch_size)

    def largest_heldout(self, token_budget: int) -> MicroBatch | None:
        """The same of the held-out examples; None where there are none."""
        return _largest(self.heldout, token_budget, most=len(self.heldout)) if self.heldout else None


def micro_batches_of(examples: Sequence[Example], token_budget: int, *, share: bool) -> list[MicroBatch]:
    """The examples of a global batch in micro-batches of at most so many computed tokens."""
    return [lay_out(examples, forest) for forest in cut(examples, token_budget, share=share)]


def _largest(examples: Examples, token_budget: int, *, most: int) -> MicroBatch:
    return pack([examples[int(i)] for i in filling(examples.lengths, token_budget, most=most)])


def filling(lengths: NDArray[np.int64], room: int, *, most: int) -> list[int]:
    """Indices of the longest that fit into the room together, at most so many; the longest is always among them."""
    order = np.argsort(-lengths, kind="stable")
    descending = -lengths[order]
    chosen: list[int] = []
    at = 0
    while at < len(order) and len(chosen) < most:
        if not chosen or lengths[order[at]] <= room:
            chosen.append(int(order[at]))
            room -= int(lengths[order[at]])
            at += 1
        elif room > 0:
            at = int(np.searchsorted(descending, -room))  # the longest of those that fit
        else:
            break
    return chosen
