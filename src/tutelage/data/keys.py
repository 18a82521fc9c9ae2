"""A number for each token of a row that depends on the token and on all before it in its example, and on nothing else.

Random draws that are keyed by it, such as dropout, fall out the same however examples are cut, packed or shared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.data.forest import Segment

_BASE = np.uint64(0x9E3779B97F4A7C15)


def prefix_keys(
    input_ids: NDArray[np.int64], position_ids: NDArray[np.int64], segments: Sequence[Segment]
) -> NDArray[np.uint64]:
    """The keys (T,): a polynomial of the ids in the ring of 64-bit numbers, mixed."""
    powers = np.cumprod(np.full(int(position_ids.max()) + 1, _BASE, np.uint64))
    parts = _mixed(input_ids.astype(np.uint64)) * powers[position_ids]
    sums = np.empty(len(input_ids), np.uint64)
    above: list[Segment] = []
    for segment in segments:
        while above and above[-1].exit <= segment.start:
            above.pop()
        before = sums[above[-1].end - 1] if above else np.uint64(0)
        sums[segment.start : segment.end] = before + np.cumsum(parts[segment.start : segment.end], dtype=np.uint64)
        above.append(segment)
    return _mixed(sums)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of the result depends on every bit of x (the finalizer of SplitMix64, Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
