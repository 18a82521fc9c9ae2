"""The distribution of whole numbers of any range in little memory: exact below 256, within 1 % above."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

EXACT = 256
SHARES = (50, 90, 99, 100)
"""The quantiles that are told, in per cent."""


@dataclass(slots=True)
class Distribution:
    """Counts by bucket: a number keeps its eight leading bits, so a bucket is at most 1/128 of its numbers wide."""

    buckets: Counter[int] = field(default_factory=Counter)
    count: int = 0
    total: int = 0
    smallest: int = 0
    largest: int = 0

    def add(self, value: int) -> None:
        """Count a number that is not negative."""
        if value < EXACT:
            self.buckets[value] += 1
        else:
            shift = value.bit_length() - 8
            self.buckets[value >> shift << shift] += 1
        if value > self.largest:
            self.largest = value
        if value < self.smallest or not self.count:
            self.smallest = value
        self.count += 1
        self.total += value

    def merge(self, other: Distribution) -> None:
        """Count the numbers that another one counted."""
        if other.count:
            self.smallest = min(self.smallest, other.smallest) if self.count else other.smallest
            self.largest = max(self.largest, other.largest)
            self.buckets.update(other.buckets)
            self.count += other.count
            self.total += other.total

    def quantile(self, percent: float) -> int:
        """The smallest bucket's first number that at least so many of the numbers do not exceed; 0 when empty."""
        if percent >= 100:
            return self.largest
        wanted = self.count * percent / 100
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return max(bucket, self.smallest)
        return 0

    def as_json(self) -> dict[str, Any]:
        """Total, mean, smallest, and `SHARES`."""
        return {
            "total": self.total,
            "mean": round(self.total / max(1, self.count), 2),
            "smallest": self.smallest,
            "quantiles": {str(share): self.quantile(share) for share in SHARES},
        }


def bins(counts: Mapping[int, int], steps: int = 4) -> list[list[int]]:
    """Return [first, last, count] of consecutive ranges, `steps` for each doubling; the first is not empty."""
    if not counts:
        return []
    edges = _edges(max(counts), steps)
    found = [0] * len(edges)
    place = 0
    for value in sorted(counts):
        while place + 1 < len(edges) and value >= edges[place + 1]:
            place += 1
        found[place] += counts[value]
    ends = [*(edge - 1 for edge in edges[1:]), max(counts)]
    first = next(i for i, count in enumerate(found) if count)
    return [[edges[i], max(edges[i], ends[i]), found[i]] for i in range(first, len(edges))]


def _edges(largest: int, steps: int) -> Sequence[int]:
    edges = [0]
    power = 0
    while (edge := round(2 ** (power / steps))) <= largest:
        if edge > edges[-1]:
            edges.append(edge)
        power += 1
    return edges
