"""A forest of token prefixes, laid out depth-first in one flat row: what examples have in common stands there once.

examples      a b c d · a b c e f · a b g          in depth-first order
shared                0         3       2          tokens that each has from those before it

row           a  b | c | d | e  f | g
position      0  1 | 2 | 3 | 3  4 | 2
segments      [0,2)→7  [2,3)→6  [3,4)→4  [4,6)→6  [6,7)→7        [start, end)→exit

Token j is visible to token i when j <= i < exit of j's segment: the tokens visible to the last one of an example are
that example.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple


class Segment(NamedTuple):
    """A run of tokens without a branch, [start, end); all that continues it stands in [end, exit)."""

    start: int
    end: int
    exit: int


class Forest(NamedTuple):
    """Which examples are computed together, and what is computed once."""

    order: list[int]
    """The examples, depth-first."""
    shared: list[int]
    """How many of its first tokens each has in common with the one before it, computed once for both."""


def trees_of_one(lengths: Iterable[int]) -> tuple[Segment, ...]:
    """The forest in which nothing is shared: each length a tree of its own."""
    ends = list(accumulate(lengths))
    return tuple(Segment(start, end, end) for start, end in zip([0, *ends], ends, strict=False))


def segments(lengths: Sequence[int], shared: Sequence[int]) -> tuple[Segment, ...]:
    """The runs of a forest, cut where it branches and nowhere else, from the examples' lengths in its order."""
    done: list[Segment] = []
    path: list[tuple[int, int, int]] = []  # (depth, start, end) of the runs that may still be continued
    row = 0
    for length, depth in zip(lengths, shared, strict=True):
        if length == depth:
            continue  # it ends where another one passes
        start, row = row, row + length - depth
        while path and path[-1][0] >= depth:
            _, begin, end = path.pop()
            done.append(Segment(begin, end, start))
        if path:
            above, begin, end = path.pop()
            fork = begin + depth - above
            if fork == end == start:
                path.append((above, begin, row))
                continue
            if fork < end:
                done.append(Segment(fork, end, start))
            path.append((above, begin, fork))
        path.append((depth, start, row))
    done += [Segment(begin, end, row) for _, begin, end in path]
    return tuple(sorted(done))
