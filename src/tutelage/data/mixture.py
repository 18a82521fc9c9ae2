"""Which example stands at a position of an epoch, when sources are mixed. A pure function; nothing is drawn twice.

Each source is an endless stream: its examples in one order after another, each order a whole pass. An epoch takes
the next so many of each stream, and is shuffled as one. So the proportions are exact in every epoch, no example
comes again before all of its source were used, and a position is found without replaying what came before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.data.canaries import Canaries
from tutelage.data.plan import Permutation
from tutelage.errors import DataError, Problem, RecipeError
from tutelage.recipe import MixtureOptions, Source


@dataclass(frozen=True, slots=True)
class Portion:
    """What an epoch takes of one source."""

    name: str
    first: int
    """Index of the source's first example; its others follow."""
    size: int
    """Examples that it has."""
    taken: int
    """Examples that one epoch takes."""
    tokens: int
    """Tokens that it has."""

    @property
    def epochs(self) -> float:
        """Passes over the source in one epoch of the mixture."""
        return self.taken / self.size


class Mixture:
    """The portions of an epoch, and the order of each epoch."""

    def __init__(self, portions: Sequence[Portion], *, seed: int) -> None:
        self.portions = tuple(portions)
        self.seed = seed
        self._starts = np.cumsum([0, *(portion.taken for portion in portions)])

    @property
    def size(self) -> int:
        """Examples in one epoch."""
        return int(self._starts[-1])

    def describe(self, passes: float) -> list[dict[str, Any]]:
        """For each source its examples and tokens, how many an epoch takes, and how often so many epochs pass it."""
        return [
            {
                "source": portion.name,
                "examples": portion.size,
                "tokens": portion.tokens,
                "taken": portion.taken,
                "epochs": round(portion.epochs * passes, 3),
            }
            for portion in self.portions
        ]

    def order(self, epoch: int) -> Order:
        """The order of one epoch."""
        return Order(self, epoch)


class Order:
    """One epoch: the index of the example at each position, and the pass over its source that it is part of."""

    def __init__(self, mixture: Mixture, epoch: int) -> None:
        self._mixture, self._epoch = mixture, epoch
        self._shuffled = Permutation(mixture.size, seed=mixture.seed, epoch=epoch)
        self._passes: dict[tuple[int, int], Permutation] = {}

    def __len__(self) -> int:
        return self._mixture.size

    def __getitem__(self, position: int) -> tuple[int, int]:
        """The example at a position, and which pass over its source it is part of, counted from 0."""
        place = self._shuffled[position]
        number = int(np.searchsorted(self._mixture._starts, place, side="right")) - 1
        portion = self._mixture.portions[number]
        within = place - int(self._mixture._starts[number])
        if portion.taken == portion.size:  # A whole pass, which is shuffled already.
            return portion.first + within, self._epoch
        turn, index = divmod(self._epoch * portion.taken + within, portion.size)
        if (number, turn) not in self._passes:
            self._passes[number, turn] = Permutation(
                portion.size, seed=self._mixture.seed, epoch=turn, purpose=f"source {number}"
            )
        return portion.first + self._passes[number, turn][index], turn


def portions(
    sources: Sequence[Source], sizes: Sequence[int], tokens: Sequence[int], options: MixtureOptions
) -> list[Portion]:
    """How much of each source an epoch takes; `sizes` and `tokens` are those of its training examples.

    Raises:
        RecipeError: recipe/conflict, when a source that was given a share has nothing to train on.
    """
    if isinstance(sources[-1], Canaries):
        own = portions(sources[:-1], sizes[:-1], tokens[:-1], options)
        first, size = sum(sizes[:-1]), sizes[-1]
        return own + ([Portion(name_of(sources[-1]), first, size, size, tokens[-1])] if size else [])
    names = [name_of(source) for source in sources]
    empty = [name for name, size, inside in zip(names, sizes, tokens, strict=True) if not size or not inside]
    if len(empty) == len(names):
        raise DataError(Problem("data/no-rows", "no row is left to train on"))
    if empty and options.by != "size":
        what = f"`{empty[0]}` has a share of the mixture and no rows to train on"
        raise RecipeError(Problem("recipe/conflict", what, fix="remove the source, or look at its dropped rows"))
    shares = _shares(sources, sizes, tokens, options)
    total = options.epoch_examples or sum(sizes)
    wanted = list(sizes) if options.by == "size" and options.epoch_examples is None else _apportion(shares, total)
    first = 0
    found = []
    for name, source, size, inside, taken in zip(names, sources, sizes, tokens, wanted, strict=True):
        capped = min(taken, source.cap) if source.cap is not None else taken
        if size:
            found.append(Portion(name, first, size, max(1, capped), inside))
        first += size
    return found


def name_of(source: Source) -> str:
    """What a source is called."""
    return source.name or (source.path if isinstance(source.path, str) else " + ".join(source.path))


def _shares(
    sources: Sequence[Source], sizes: Sequence[int], tokens: Sequence[int], options: MixtureOptions
) -> list[float]:
    """Relative numbers of examples."""
    if options.by == "examples":
        return [source.share for source in sources]
    if options.by == "tokens":
        return [source.share * size / count for source, size, count in zip(sources, sizes, tokens, strict=True)]
    if options.by == "temperature":
        largest = max(sizes)
        return [(size / largest) ** (1 / options.temperature) for size in sizes]
    return [float(size) for size in sizes]


def _apportion(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers in these proportions with this sum: rounded down, the rest to the largest remainders."""
    whole = sum(shares)
    exact = [total * share / whole for share in shares]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts
