"""One micro-batch: examples laid end to end in one flat row, without padding, and the edges that are trained.

input_ids      a0 a1 a2 a3 | b0 b1 b2          two examples
position_ids    0  1  2  3 |  0  1  2          each counts from 0
lengths         4            3                 attention never crosses from one to the next
edges          a1->a2 a2->a3  b1->b2           (position of the token before, target id, weight, owner)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.types import Example


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Examples computed at once."""

    input_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    lengths: tuple[int, ...]
    positions: NDArray[np.int64]
    """For each edge, where the token before the target stands."""
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]
    owners: NDArray[np.int64]
    """For each edge, which example it belongs to, counted within the micro-batch."""

    @property
    def tokens(self) -> int:
        """Tokens computed."""
        return len(self.input_ids)


def pack(examples: Sequence[Example]) -> MicroBatch:
    """The examples as one flat row."""
    lengths = tuple(len(example) for example in examples)
    input_ids = np.concatenate([e.input_ids for e in examples]).astype(np.int64)
    weights = np.concatenate([e.weights for e in examples])
    targets_at = np.flatnonzero(weights)
    return MicroBatch(
        input_ids=input_ids,
        position_ids=np.concatenate([np.arange(n, dtype=np.int64) for n in lengths]),
        lengths=lengths,
        positions=targets_at - 1,
        targets=input_ids[targets_at],
        weights=weights[targets_at],
        owners=np.repeat(np.arange(len(lengths)), lengths)[targets_at],
    )
