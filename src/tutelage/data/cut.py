"""How examples are cut into micro-batches, with common beginnings together. Pure, and free of torch.

The budget counts tokens as they are computed, so what examples share counts once. A tree that does not fit is cut at
its branches, from the ends to the start: at each branch the parts that continue it are packed, best fit, into what the
budget leaves after the tokens before the branch, and each part so made carries these tokens again. At the start, where
nothing lies before, the parts are the micro-batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tutelage.data.forest import Forest
from tutelage.data.plan import micro_batches
from tutelage.data.prefixes import find_branches
from tutelage.types import Example


class _Part(NamedTuple):
    """Examples that stay together, seen from a branch that all of them go through."""

    tokens: int
    """Tokens computed after the branch."""
    forest: Forest


def cut(examples: Sequence[Example], budget: int, *, share: bool) -> list[Forest]:
    """The examples as few forests, each within the budget of computed tokens, each example in one of them.

    An example longer than the budget is a forest of its own. Without `share` nothing is shared, and the lengths
    alone decide. The work is a sort and O(tokens): an example is touched once for each branch that it goes through.
    """
    if not share:
        groups = micro_batches([len(example) for example in examples], budget)
        return [Forest(group, [0] * len(group)) for group in groups]
    found = find_branches(example.input_ids for example in examples)
    anchors, depths = found.anchors(), found.depths
    parts: list[list[_Part]] = [[] for _ in depths]
    for row, length, holder in zip(found.rows, found.lengths, found.holders, strict=True):
        branch = anchors[holder]
        parts[branch].append(_Part(length - depths[branch], Forest([row], [0])))
    for branch in found.upward:
        if anchors[branch] == branch:
            above = anchors[found.parents[branch]]
            run = depths[branch] - depths[above]
            joined = _join(parts[branch], depths[branch], budget)
            parts[above] += [_Part(run + part.tokens, part.forest) for part in joined]
            parts[branch] = []
    return [part.forest for part in _join(parts[0], 0, budget)]


def whole(examples: Sequence[Example], *, share: bool) -> Forest:
    """The forest of all the examples, of which there is at least one."""
    (forest,) = cut(examples, sum(len(example) for example in examples), share=share)
    return forest


def _join(parts: list[_Part], depth: int, budget: int) -> list[_Part]:
    """Parts that part at this depth as fewer ones, each within the budget where it can be."""
    joined = []
    for group in micro_batches([part.tokens for part in parts], budget - depth):
        order: list[int] = []
        shared: list[int] = []
        for index in group:
            start = len(shared)
            order += parts[index].forest.order
            shared += parts[index].forest.shared
            shared[start] = depth  # with the part before it; of the first one a branch above decides, at last 0
        joined.append(_Part(sum(parts[index].tokens for index in group), Forest(order, shared)))
    return joined
