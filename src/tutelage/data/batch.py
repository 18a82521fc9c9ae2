"""One micro-batch: examples laid out in one flat row, without padding, and the edges that are trained.

                nothing shared                  the beginning shared
input_ids       p  q  a  b | p  q  c            p  q | a  b | c
position_ids    0  1  2  3 | 0  1  2            0  1 | 2  3 | 2           how many come before it in its example
segments        [0, 4)       [4, 7)             [0, 2)→5  [2, 4)  [4, 5)  what continues the first ends at 5
edges           q→a a→b      q→c                q→a q→c a→b               (place of the token before, target, weight)

An edge that several examples have is one edge, with the sum of its weights; `owned`, `owners` and `owner_weights` say
what it is in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.data.cut import whole
from tutelage.data.forest import Forest, Segment, segments
from tutelage.types import Example


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Examples computed at once."""

    input_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    """Of each token, how many come before it in its example."""
    segments: tuple[Segment, ...]
    """Runs of tokens, depth-first: token j is visible to token i when j <= i < exit of j's segment."""
    positions: NDArray[np.int64]
    """For each edge, where the token before the target stands."""
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]
    """For each edge, the sum of its weights in all the examples that it belongs to."""
    owned: NDArray[np.int64]
    """Which edge, for each trained token of each example: a shared edge comes once for each example."""
    owners: NDArray[np.int64]
    """Of which example, by its place in the sequence that was given; first all of the first, then of the next."""
    owner_weights: NDArray[np.float32]
    """With which weight."""
    tokens: int
    """Tokens of the examples."""

    @property
    def computed_tokens(self) -> int:
        """Tokens computed, a shared one once."""
        return len(self.input_ids)

    @property
    def supervised_tokens(self) -> int:
        """Trained tokens of the examples."""
        return len(self.owned)


class _Trained(NamedTuple):
    """The trained tokens of one example."""

    example: int
    before: NDArray[np.int64]
    """Where the token before each stands."""
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]


def pack(examples: Sequence[Example], *, share: bool = False) -> MicroBatch:
    """All the examples as one flat row, each computed whole or with common beginnings computed once."""
    return lay_out(examples, whole(examples, share=share))


def lay_out(examples: Sequence[Example], forest: Forest) -> MicroBatch:
    """The examples that a forest names as one flat row, depth-first. O(tokens), and a sort of the trained ones."""
    rows = [examples[index] for index in forest.order]
    lengths = [len(row) for row in rows]
    path = np.empty(max(lengths), dtype=np.int64)  # where the tokens of the example at hand stand in the row
    end = 0
    trained: list[_Trained] = []
    for index, row, shared in zip(forest.order, rows, forest.shared, strict=True):
        start, end = end, end + len(row) - shared
        path[shared : len(row)] = np.arange(start, end)
        at = np.flatnonzero(row.weights)
        trained.append(_Trained(index, path[at - 1], row.input_ids[at].astype(np.int64), row.weights[at]))
    trained.sort(key=lambda one: one.example)
    before, targets, weights = (np.concatenate(column) for column in list(zip(*trained, strict=True))[1:])
    # An edge is a token's place and the token that comes next: as one number, sorted by place.
    edges, owned = np.unique(before << 32 | targets, return_inverse=True)
    return MicroBatch(
        input_ids=np.concatenate([row.input_ids[n:] for row, n in zip(rows, forest.shared, strict=True)]).astype(
            np.int64
        ),
        position_ids=np.concatenate([np.arange(n, len(row)) for row, n in zip(rows, forest.shared, strict=True)]),
        segments=segments(lengths, forest.shared),
        positions=edges >> 32,
        targets=edges & 0xFFFFFFFF,
        weights=np.bincount(owned, weights=weights, minlength=len(edges)).astype(np.float32),
        owned=owned,
        owners=np.repeat([one.example for one in trained], [len(one.weights) for one in trained]),
        owner_weights=weights,
        tokens=sum(lengths),
    )
