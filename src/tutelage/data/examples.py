"""Examples of a store as sequences: what is measured on, and what is trained on, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from tutelage.data.renderings import choose
from tutelage.data.store import Store
from tutelage.recipe import DataOptions
from tutelage.types import Example


class Examples(Sequence[Example]):
    """Some examples of a store, read when they are asked for."""

    def __init__(self, store: Store, indices: NDArray[np.int64]) -> None:
        self.store = store
        self.indices = indices

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each."""
        return self.store.lengths[self.indices]

    @property
    def supervised(self) -> NDArray[np.int64]:
        """Trained tokens of each."""
        return self.store.supervised[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return Examples(self.store, self.indices[index])
        return self.store.example(int(self.indices[index]))


class Training:
    """The training examples by slot: what stands in it depends on the epoch where a row has several renderings."""

    def __init__(self, store: Store, rows: NDArray[np.int64], options: DataOptions) -> None:
        self.store = store
        names = store.facts["renderings"]
        self._choices: list[int] = [names.index(name) for name in options.renderings.train]
        counts, renderings = (store.rows[name][rows].astype(np.int64) for name in ("examples", "renderings"))
        each = counts // np.maximum(renderings, 1)
        self._each = np.repeat(each, each)
        self._renderings = np.repeat(renderings, each)
        self._key = np.repeat(store.rows["prompt"][rows], each)
        starts = np.cumsum(each) - each
        within = np.arange(int(each.sum())) - np.repeat(starts, each)
        self._first = np.repeat(store.first_example[:-1][rows], each) + within
        self.source: NDArray[np.int64] = np.repeat(store.rows["source"][rows].astype(np.int64), each)
        """Which source each slot is of."""

    def __len__(self) -> int:
        return len(self._first)

    def index(self, slot: int, epoch: int) -> int:
        """The stored example that stands in a slot in a pass over its source."""
        first = int(self._first[slot])
        if self._renderings[slot] == 1:
            return first
        chosen = choose(int(self._key[slot]), epoch, self._choices)
        return first + int(self._each[slot]) * int(self._choices[chosen])

    def at(self, epoch: int) -> NDArray[np.int64]:
        """The stored examples of an epoch, by slot."""
        if not (self._renderings > 1).any():
            return self._first
        return np.fromiter((self.index(slot, epoch) for slot in range(len(self))), np.int64, len(self))
