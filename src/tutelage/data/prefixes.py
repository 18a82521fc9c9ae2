"""Where examples begin alike: the branches at which they part, and which of these are worth keeping.

The examples are sorted by their tokens, so those that begin alike stand side by side, and how far each agrees with
the next is all that is needed to find every branch. Work: a sort, one comparison of neighbours, and a constant amount
for each branch, of which there are fewer than examples.

       ┌─ w x        rows, sorted     a b c w x · a b c y · a b z
    c ─┤             in common                 3         2
a b ─┤ └─ y          branches         depth 2 (rows 0 1 2), depth 3 (rows 0 1)
     └─ z
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BRANCH_COST = 0.03
"""What one more attention call over some tokens costs, as a share of the cost of computing these tokens."""


@dataclass(frozen=True, slots=True)
class Branches:
    """Places where examples part after a common beginning. Number 0 is the start, where all of them part."""

    rows: list[int]
    """The examples, sorted by their tokens."""
    lengths: list[int]
    """Tokens of each, in this order."""
    holders: list[int]
    """The deepest branch that each goes through, in this order."""
    depths: list[int]
    """Of each branch, how many tokens lie before it."""
    parents: list[int]
    """Of each branch, the branch before it."""
    upward: list[int]
    """The branches without number 0, each before its parent."""

    def anchors(self) -> list[int]:
        """Of each branch, the nearest one that is worth keeping, from itself towards the start.

        A branch is worth keeping when the tokens that it saves are more than BRANCH_COST of the tokens below it,
        which take part in one more attention call. It saves its run, from the branch kept before it up to itself,
        as often as runs start there, less once. What starts there and what lies below is estimated from the ends
        to the start, as if each branch were kept for the run from its parent alone; then it is decided from the
        start to the ends, with the runs as they become where branches before are not kept.
        """
        starts, below = self._below()
        anchors = [0] * len(self.depths)
        for branch in reversed(self.upward):
            anchor = anchors[self.parents[branch]]
            run = self.depths[branch] - self.depths[anchor]
            anchors[branch] = branch if _pays(run, starts[branch], below[branch]) else anchor
        return anchors

    def _below(self) -> tuple[list[int], list[int]]:
        """Of each branch, how many runs start there, and how many tokens are computed below it."""
        starts, below = [0] * len(self.depths), [0] * len(self.depths)
        for holder, length in zip(self.holders, self.lengths, strict=True):
            starts[holder] += 1
            below[holder] += length - self.depths[holder]
        for branch in self.upward:
            parent = self.parents[branch]
            run = self.depths[branch] - self.depths[parent]
            runs = 1 if _pays(run, starts[branch], below[branch]) else starts[branch]
            starts[parent] += runs
            below[parent] += below[branch] + runs * run
        return starts, below


def find_branches(rows: Iterable[NDArray[np.integer]]) -> Branches:
    """The branches of sequences of token ids, none of them empty."""
    # Four bytes a token, so rows that begin alike sort side by side, and one that another continues before it.
    keys = [row.astype("<u4").tobytes() for row in rows]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    lengths = [len(keys[row]) // 4 for row in order]
    holders, depths, parents, upward = _part(_in_common([keys[row] for row in order]))
    return Branches(order, lengths, holders, depths, parents, upward)


def _pays(run: int, starts: int, below: int) -> bool:
    return run * (starts - 1) > BRANCH_COST * below


def _in_common(keys: Sequence[bytes]) -> list[int]:
    """With how many tokens each begins like the next; 0 for the last."""
    common = []
    rows = (np.frombuffer(key, "<u4") for key in keys)
    last = next(rows, None)
    for row in rows:
        assert last is not None
        shorter = min(len(last), len(row))
        differ = last[:shorter] != row[:shorter]
        first = int(differ.argmax())
        common.append(first if differ[first] else shorter)
        last = row
    return [*common, 0] if keys else []


def _part(common: Iterable[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """(holders, depths, parents, upward), from how far each row agrees with the next."""
    holders: list[int] = []
    depths, parents, upward = [0], [0], []
    path = [0]  # the branches that the row at hand goes through

    def grow(depth: int) -> None:
        parents.append(path[-1])
        path.append(len(depths))
        depths.append(depth)

    for depth in common:
        if depths[path[-1]] < depth:
            grow(depth)
        holders.append(path[-1])
        while depths[path[-1]] > depth:
            closed = path.pop()
            upward.append(closed)
            if depths[path[-1]] < depth:
                grow(depth)
            parents[closed] = path[-1]
    return holders, depths, parents, upward
