"""How attention over a forest falls into rectangles of queries and keys that need no mask.

A segment's tokens see themselves causally (its own part), and all that continues a segment sees the whole of it
(a part seen): one rectangle [end, exit) x [start, end), however many branches there are. A sliding window cuts
some of these; only there a band is needed, and the queries are taken CHUNK at a time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tutelage.data.forest import Segment

CHUNK = 256
"""Queries computed at once under a band: the band is then at most (CHUNK, CHUNK + window - 1) large."""


class Part(NamedTuple):
    """Queries [start, end) attend to keys [key_start, key_end)."""

    start: int
    end: int
    key_start: int
    key_end: int
    causal: bool = False
    times: int = 1
    """Of a causal part: it is that many segments of one length, each seeing itself alone."""
    column: int | None = None
    """Where in the band the first key stands, when a window cuts the part."""


class Plan(NamedTuple):
    """All the parts of a row."""

    own: tuple[Part, ...]
    """Each query once; unless a window cuts them, each key once too."""
    seen: tuple[Part, ...]
    """What the queries see of the segments before their own."""

    @property
    def cut(self) -> bool:
        """Whether a window cuts any part."""
        return any(part.column is not None for part in (*self.own, *self.seen))


def plan_parts(segments: Sequence[Segment], depths: Sequence[int], window: int | None) -> Plan:
    """The parts that together are causal attention over the forest, of the last `window` tokens.

    depths: for each segment, how many tokens come before it in its branch.
    """
    own: list[Part] = []
    for start, end, _ in segments:
        for part in _own(start, end, window):
            if own and _same_length(own[-1], part):
                last = own[-1]
                own[-1] = last._replace(end=part.end, key_end=part.end, times=last.times + 1)
            else:
                own.append(part)
    seen = [part for i in range(len(segments)) for part in _seen(segments, depths, i, window)]
    return Plan(tuple(own), tuple(seen))


def _same_length(run: Part, part: Part) -> bool:
    length = part.end - part.start
    return run.causal and part.causal and run.end == part.start and (run.end - run.start) == run.times * length


def _own(start: int, end: int, window: int | None) -> Iterator[Part]:
    head = end if window is None else min(end, start + window)
    if start < head:
        yield Part(start, head, start, head, causal=True)
    if window is not None:
        for first in range(head, end, CHUNK):
            last = min(first + CHUNK, end)
            yield Part(first, last, first - window + 1, last, column=0)


def _seen(segments: Sequence[Segment], depths: Sequence[int], i: int, window: int | None) -> Iterator[Part]:
    start, end, leave = segments[i]
    if leave == end or start == end:
        return
    below = range(i + 1, bisect_left(segments, leave, key=lambda segment: segment.start))
    deepest = max(depths[j] + segments[j].end - segments[j].start for j in below)
    if window is None or deepest - depths[i] <= window:
        yield Part(end, leave, start, end)
        return
    for j in below:
        # Counted in queries of the branch: the first `whole` see all keys, those from `none` on see no key.
        first, length = segments[j].start, segments[j].end - segments[j].start
        whole = min(max(depths[i] + window - depths[j], 0), length)
        none = min(max(depths[i] + (end - start) - 1 + window - depths[j], 0), length)
        if whole:
            yield Part(first, first + whole, start, end)
        for at in range(whole, none, CHUNK):
            # The chunk's first query sees the keys less than `window` above it: the band's first column.
            oldest = depths[j] + at - window + 1
            skipped = max(oldest - depths[i], 0)
            column = depths[i] + skipped - oldest
            yield Part(first + at, first + min(at + CHUNK, none), start + skipped, end, column=column)
