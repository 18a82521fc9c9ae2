"""Which examples make optimizer step k, and how they are cut into micro-batches. Pure, and free of torch.

The order is a keyed permutation that can be asked at any position in constant time, so there is nothing to replay
after a restart. A global batch is the unit of meaning: its gradient is a sum over its examples divided once. How it
is cut into micro-batches is scheduling: best fit under a token budget.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Permutation:
    """A pseudo-random order of `size` things, different for each (seed, epoch).

    A four-round Feistel network over the smallest even number of bits that holds `size`, walked until it lands
    inside (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains").
    """

    def __init__(self, size: int, *, seed: int, epoch: int, purpose: str = "") -> None:
        self.size = size
        self._half = max(1, ((size - 1).bit_length() + 1) // 2)
        self._mask = (1 << self._half) - 1
        named = f"{purpose}/" if purpose else ""
        self._keys = [f"{named}{seed}/{epoch}/{round}".encode() for round in range(4)]

    def __len__(self) -> int:
        return self.size

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
class GlobalBatch(Generic[T_co]):
    """The examples of one optimizer step, as the order of the epoch names them."""

    step: int
    """Counted from 1."""
    epoch: int
    """Counted from 0."""
    examples: tuple[T_co, ...]


class Order(Protocol[T_co]):
    """The examples of one epoch, by position."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, position: int) -> T_co:
        """Which one stands here."""
        ...


def global_batches(
    order: Callable[[int], Order[T_co]],
    *,
    size: int,
    epochs: int | None = None,
    steps: int | None = None,
    after: int = 0,
) -> Iterator[GlobalBatch[T_co]]:
    """The optimizer steps of a run: `epochs` passes in their orders, or as many as `steps` need.

    The tail of an epoch is a smaller step of its own. Those up to the step `after` are left out, which takes no time:
    every epoch has as many steps as the first.
    """
    step = after
    epoch, done = divmod(after, -(-len(order(0)) // size))
    while epochs is None or epoch < epochs:
        now = order(epoch)
        for start in range(done * size, len(now), size):
            if steps is not None and step >= steps:
                return
            step += 1
            end = min(start + size, len(now))
            yield GlobalBatch(step, epoch, tuple(now[position] for position in range(start, end)))
        epoch, done = epoch + 1, 0


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
    rooms: list[tuple[int, int]] = []  # (room left, group), sorted
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        best = bisect_left(rooms, (length, -1))
        if best < len(rooms):
            room, group = rooms.pop(best)
            groups[group].append(index)
        else:
            room, group = budget, len(groups)
            groups.append([index])
        insort(rooms, (room - length, group))
    return [sorted(group) for group in groups]
