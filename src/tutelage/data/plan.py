"""Which examples make optimizer step k, and how they are cut into micro-batches. Pure, and free of torch.

The order is a keyed permutation that can be asked at any position in constant time, so there is nothing to replay
after a restart. A global batch is the unit of meaning: its gradient is a sum over its examples divided once. How it
is cut into micro-batches is scheduling: best fit under a token budget.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


class Permutation:
    """A pseudo-random order of `size` things, different for each (seed, epoch).

    A four-round Feistel network over the smallest even number of bits that holds `size`, walked until it lands
    inside (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains").
    """

    def __init__(self, size: int, *, seed: int, epoch: int) -> None:
        self.size = size
        self._half = max(1, ((size - 1).bit_length() + 1) // 2)
        self._mask = (1 << self._half) - 1
        self._keys = [f"{seed}/{epoch}/{round}".encode() for round in range(4)]

    def __getitem__(self, position: int) -> int:
        """Which thing stands at this position."""
        if not 0 <= position < self.size:
            raise IndexError(position)
        value = position
        while True:
            value = self._encrypt(value)
            if value < self.size:
                return value

    def _encrypt(self, value: int) -> int:
        left, right = value >> self._half, value & self._mask
        for key in self._keys:
            digest = hashlib.blake2b(right.to_bytes(8, "little"), key=key, digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(digest, "little") & self._mask)
        return left << self._half | right


@dataclass(frozen=True, slots=True)
class GlobalBatch:
    """The examples of one optimizer step, as indices into the training examples."""

    step: int
    """Counted from 1."""
    epoch: int
    """Counted from 0."""
    examples: tuple[int, ...]


def global_batches(
    count: int, *, size: int, seed: int, epochs: int | None = None, steps: int | None = None
) -> Iterator[GlobalBatch]:
    """The optimizer steps of a run over `count` examples: `epochs` passes, or as many as `steps` need.

    The tail of an epoch is a smaller step of its own: each pass uses each example exactly once.
    """
    step = epoch = 0
    while epochs is None or epoch < epochs:
        order = Permutation(count, seed=seed, epoch=epoch)
        for start in range(0, count, size):
            if steps is not None and step >= steps:
                return
            step += 1
            end = min(start + size, count)
            yield GlobalBatch(step, epoch, tuple(order[position] for position in range(start, end)))
        epoch += 1


def total_steps(count: int, *, size: int, epochs: int | None, steps: int | None) -> int:
    """How many optimizer steps `global_batches` gives."""
    if steps is not None:
        return steps
    assert epochs is not None, "bug: neither epochs nor steps"
    return epochs * -(-count // size)


def micro_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths` in groups whose sum stays within the budget, few groups, each index once.

    Best-fit decreasing. A length over the budget is a group of its own.
    """
    room: list[int] = []
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        fitting = [g for g, left in enumerate(room) if left >= length]
        if fitting:
            best = min(fitting, key=lambda g: (room[g], g))
            groups[best].append(index)
            room[best] -= length
        else:
            groups.append([index])
            room.append(budget - length)
    return [sorted(group) for group in groups]
