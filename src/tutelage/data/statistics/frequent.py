"""The most frequent of very many texts in bounded memory (Misra and Gries, 1982)."""

from __future__ import annotations

from typing import Generic, TypeVar

Key = TypeVar("Key", int, str)

LIMIT = 4096
"""Texts held at once; whatever is more than 1/LIMIT of all texts is among them."""


class Frequent(Generic[Key]):
    """Counts by key, each with a text to show; a count is never too high, and too low by at most `missed`."""

    __slots__ = ("counts", "limit", "missed", "texts")

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.counts: dict[Key, int] = {}
        self.texts: dict[Key, str] = {}
        self.missed = 0

    def add(self, key: Key, text: str, times: int = 1) -> None:
        """Count a text by its key."""
        counts = self.counts
        if key in counts:
            counts[key] += times
            return
        counts[key] = times
        self.texts[key] = text
        if len(counts) > self.limit:
            self._thin()

    def _thin(self) -> None:
        """Take the smallest count off all, and let go of those that have nothing left."""
        least = min(self.counts.values())
        self.missed += least
        self.counts = {key: count - least for key, count in self.counts.items() if count > least}
        self.texts = {key: self.texts[key] for key in self.counts}

    def merge(self, other: Frequent[Key]) -> None:
        """Count what another one counted."""
        for key, count in other.counts.items():
            self.add(key, other.texts[key], count)
        self.missed += other.missed

    def most(self, number: int) -> list[tuple[Key, str, int]]:
        """(key, text, count) of the most frequent, in order; equal counts by their text."""
        ranked = sorted(self.counts, key=lambda key: (-self.counts[key], self.texts[key]))
        return [(key, self.texts[key], self.counts[key]) for key in ranked[:number]]
