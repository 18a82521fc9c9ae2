"""What each process computes of a global batch. Pure, and free of torch.

The global batch is the same for any number of processes, and so is its gradient; only the cut differs. Every process
gets equally many micro-batches, since sharded layers meet in each of them: micro-batches of similar size are computed
at the same time, each by the process that has had least so far. Where they do not go round, some compute nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tutelage.data.batch import MicroBatch, lay_out, pack
from tutelage.data.cut import cut
from tutelage.data.forest import Forest
from tutelage.types import Example

MEETING = 32
"""What a micro-batch costs by itself, in tokens."""


@dataclass(frozen=True, slots=True)
class Part:
    """A micro-batch to be computed."""

    index: int
    """Its place in the global batch, by which its draws are named: no other micro-batch of the step has it."""
    forest: Forest | None
    """None where there is nothing to compute, and others compute something."""

    def lay_out(self, examples: Sequence[Example]) -> MicroBatch:
        """The micro-batch itself; where there is nothing to compute, one that adds exactly zero."""
        return silent(examples[0]) if self.forest is None else lay_out(examples, self.forest)


def divide(examples: Sequence[Example], budget: int, *, share: bool, world: int) -> list[list[Part]]:
    """By rank, the parts of the global batch that it computes, each within the budget of computed tokens."""
    forests = cut(examples, budget, share=share)
    if world == 1:
        return [[Part(index, forest) for index, forest in enumerate(forests)]]
    best = min(
        (_rounds(examples, tried, world) for tried in (forests, *_finer(examples, forests, budget, share, world))),
        key=lambda rounds: sum(MEETING + costs[0] for costs, _ in rounds),
    )
    parts: list[list[Part]] = [[] for _ in range(world)]
    loads = [0] * world
    index = 0
    for costs, forests_now in best:
        # The largest to the one with the least so far.
        for rank, cost, forest in zip(sorted(range(world), key=lambda r: loads[r]), costs, forests_now, strict=True):
            parts[rank].append(Part(index, forest))
            loads[rank] += cost
            index += 1
    return parts


def micro_batches_of_rank(
    examples: Sequence[Example], budget: int, *, share: bool, rank: int, world: int, lockstep: bool = False
) -> list[MicroBatch]:
    """What one process computes of a global batch, at least one micro-batch.

    In `lockstep` every process has equally many, of which some may add nothing.
    """
    parts = divide(examples, budget, share=share, world=world)[rank]
    if not lockstep:
        parts = [part for part in parts if part.forest is not None] or parts[:1]
    return [part.lay_out(examples) for part in parts]


def silent(example: Example) -> MicroBatch:
    """Two tokens of which none is trained: it goes through every layer and adds exactly zero."""
    ids = example.input_ids[:2]
    return pack([Example(ids, np.zeros(len(ids), dtype=np.float32), example.origin, len(ids))])


def _finer(
    examples: Sequence[Example], forests: list[Forest], budget: int, share: bool, world: int
) -> Iterator[list[Forest]]:
    """The same examples in smaller pieces, which may be spread more evenly."""
    tokens = sum(_tokens(examples, forest) for forest in forests)
    fewest = -(-len(forests) // world)
    for rounds in (fewest, fewest + 1):
        for slack in (1.0, 1.15):
            smaller = int(slack * tokens / (rounds * world)) + 1
            if smaller < budget:
                yield cut(examples, smaller, share=share)


def _rounds(
    examples: Sequence[Example], forests: list[Forest], world: int
) -> list[tuple[list[int], list[Forest | None]]]:
    """The micro-batches that are computed at the same time, large ones first, with what they cost."""
    costs = [_tokens(examples, forest) for forest in forests]
    order = sorted(range(len(forests)), key=lambda i: (-costs[i], i))
    rounds = []
    for start in range(0, len(order), world):
        now = order[start : start + world]
        empty = world - len(now)
        rounds.append(([costs[i] for i in now] + [0] * empty, [*(forests[i] for i in now), *([None] * empty)]))
    return rounds


def _tokens(examples: Sequence[Example], forest: Forest) -> int:
    """Tokens computed, a shared one once."""
    return sum(len(examples[i]) - shared for i, shared in zip(forest.order, forest.shared, strict=True))
