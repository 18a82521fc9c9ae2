"""Sets whose Jaccard similarity reaches a threshold, found without comparing each with each.

Prefix filtering (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and Srikant 2007): with all elements in one order,
the rarest first, two sets that are similar enough share one of the first few elements of each. So only sets that
share one of those are compared, by all of their elements. Unlike MinHash this misses no pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

PARTNERS = 1000
"""An element that stands among the first of more sets than this is followed to that many of each set's nearest in
size; only then can a pair be missed."""
_AT_ONCE = 1 << 20
"""Elements or pairs that are worked on together."""
_OWNERS = 1 << 20
"""Sets that are worked on together: as many as 20 bits can number."""
_MARKED = 1 << 16
_ROUNDING = 1e-9
_BITS = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8)).reshape(-1, 16).sum(axis=1, dtype=np.uint8)
"""How many bits a 16-bit number has."""
_LOW = np.uint64(0xFFFFFFFF)
_HIGH = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Sets:
    """Many sets, one after another: `elements` are each set's own, each once."""

    sizes: Integers
    starts: Integers
    elements: NDArray[np.uint32]
    marks: NDArray[np.uint16]
    """256 bits of each set: what one has and another lacks is at least as many elements."""

    @classmethod
    def of(cls, sizes: Integers, elements: NDArray[np.uint32]) -> Sets:
        """The sets of these sizes."""
        starts: Integers = np.cumsum(sizes) - sizes
        marks = [np.zeros((0, 32), dtype=np.uint8)]
        for begin in range(0, len(sizes), _MARKED):
            some = sizes[begin : begin + _MARKED]
            bits = np.zeros((len(some), 256), dtype=bool)
            mine = elements[starts[begin] : starts[begin] + int(some.sum())]
            bits[np.repeat(np.arange(len(some)), some), mine & np.uint32(255)] = True
            marks.append(np.packbits(bits, axis=1))
        return cls(sizes, starts, elements, np.concatenate(marks).view(np.uint16))

    def may_share(self, one: Integers, other: Integers, threshold: float) -> NDArray[np.bool_]:
        """Whether the bits of each pair of sets allow for their similarity."""
        needed = (self.sizes[one] + self.sizes[other]) * (threshold / (1 + threshold)) - _ROUNDING
        lacking = _BITS[self.marks[one] & ~self.marks[other]].sum(axis=1, dtype=np.int64)
        likely: NDArray[np.bool_] = self.sizes[one] - lacking >= needed
        return likely


def components(sets: Sets, threshold: float) -> Integers:
    """For each set the first that it is connected with by a chain of similar sets; itself where it is alone."""
    labels: Integers = np.arange(len(sets.sizes))
    order: Integers = np.argsort(sets.sizes, kind="stable")
    order = order[sets.sizes[order] > 0]
    if not len(order):
        return labels
    search = _Search(sets, order, threshold)
    if not len(search.asking):
        return labels
    # A large group is mostly joined by each set and the one before it, and then needs no other pairs.
    for pairs in search.pairs(np.minimum(search.reach, 1)):
        _join_similar(labels, sets, pairs, threshold)
    reach = np.where(search.connected(labels), 0, np.minimum(search.reach, PARTNERS))
    for pairs in search.pairs(np.where(reach > 1, reach, 0)):
        _join_similar(labels, sets, pairs, threshold)
    return labels


class _Search:
    """The first elements of each set: those that it asks for, and the fewer by which larger ones find it.

    A set of size x shares ceil(t x) elements at least with a smaller one, and ceil(2 t x / (1 + t)) with a larger
    one, so one of all but so many of its elements is shared. A set is called here by its place in the order of sizes,
    so that sets of fitting sizes stand together.
    """

    def __init__(self, sets: Sets, order: Integers, threshold: float) -> None:
        self.order = order
        self.threshold = threshold
        self.sizes = sets.sizes[order]
        self.asking, self.asking_depth = self._first_elements(sets)
        found = self.asking_depth <= self._slack(2 * threshold / (1 + threshold))[self._place(self.asking)]
        self.found, self.found_depth = self.asking[found], self.asking_depth[found]
        place = self._place(self.asking)
        smallest = np.searchsorted(self.sizes, self.sizes - self._slack(threshold))[place]
        self.last: Integers = np.searchsorted(self.found, self.asking)
        """Where, among `found`, the sets end that each asks for."""
        first = np.searchsorted(self.found, (self.asking & ~_LOW) | smallest.astype(np.uint64))
        self.reach: Integers = self.last - first

    def connected(self, labels: Integers) -> NDArray[np.bool_]:
        """For each that asks, whether all sets that share its element are one component already."""
        begins = np.flatnonzero(np.append(True, (self.asking[1:] >> _HIGH) != (self.asking[:-1] >> _HIGH)))
        mine = labels[self.order[self._place(self.asking)]]
        one = np.minimum.reduceat(mine, begins) == np.maximum.reduceat(mine, begins)
        return np.repeat(one, np.diff(np.append(begins, len(mine))))

    def pairs(self, reach: Integers) -> Iterator[tuple[Integers, Integers]]:
        """The pairs of each that asks with as many as it reaches, the nearest in size, some at a time."""
        asking = np.flatnonzero(reach)
        for begin, end in _portions(reach[asking]):
            some = asking[begin:end]
            counts = reach[some]
            one = np.repeat(some, counts)
            other = _spans(self.last[some] - counts, counts)
            left, right = self._place(self.asking[one]), self._place(self.found[other])
            sizes = self.sizes[left], self.sizes[right]
            # What both hold from the shared element on must suffice.
            left_rest = sizes[0] - self.asking_depth[one]
            right_rest = sizes[1] - self.found_depth[other]
            needed = (sizes[0] + sizes[1]) * (self.threshold / (1 + self.threshold)) - _ROUNDING
            likely = np.minimum(left_rest, right_rest) >= needed
            yield self.order[left[likely]], self.order[right[likely]]

    def _first_elements(self, sets: Sets) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """As element and place in one number, sorted, and how many elements of the set come before it."""
        shift = np.uint32(32 - min(22, max(8, len(sets.elements).bit_length() + 1)))
        counts = np.bincount(sets.elements >> shift)  # of several elements together, which is an order all the same
        rarity = np.minimum(counts, 4095).astype(np.uint16)
        del counts
        slack = self._slack(self.threshold)
        entries, depths = [], []
        for begin, end in _portions(self.sizes):
            some, sizes = self.order[begin:end], self.sizes[begin:end]
            elements = sets.elements[_spans(sets.starts[some], sizes)]
            owner = np.repeat(np.arange(len(some), dtype=np.uint64), sizes)
            keys = (owner << np.uint64(44)) | (rarity[elements >> shift].astype(np.uint64) << _HIGH) | elements
            keys.sort()
            kept = slack[begin:end] + 1
            chosen = keys[_spans(np.cumsum(sizes) - sizes, kept)]
            entries.append(((chosen & _LOW) << _HIGH) | ((chosen >> np.uint64(44)) + np.uint64(begin)))
            depths.append(_spans(np.zeros(len(some), dtype=np.int64), kept).astype(np.uint32))
        entry, depth = np.concatenate(entries), np.concatenate(depths)
        sorting = np.argsort(entry)
        entry = entry[sorting]
        same = (entry[1:] >> _HIGH) == (entry[:-1] >> _HIGH)
        shared = np.append(False, same) | np.append(same, False)
        return entry[shared], depth[sorting[shared]]

    def _slack(self, part: float) -> Integers:
        """How many of a set's elements another may lack that shares this part of them."""
        needed = np.maximum(1, np.ceil(part * self.sizes - _ROUNDING)).astype(np.int64)
        slack: Integers = self.sizes - needed
        return slack

    @staticmethod
    def _place(entries: NDArray[np.uint64]) -> Integers:
        return (entries & _LOW).astype(np.int64)


def _portions(counts: Integers) -> Iterator[tuple[int, int]]:
    """Cut a row of things so that each portion holds little more than can be worked on together."""
    taken: Integers = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        done = int(taken[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(taken, done + _AT_ONCE, side="right")))
        end = min(end, begin + _OWNERS)
        yield begin, end
        begin = end


def _join_similar(labels: Integers, sets: Sets, pairs: tuple[Integers, Integers], threshold: float) -> None:
    """Join the components of those pairs that are similar enough."""
    apart = labels[pairs[0]] != labels[pairs[1]]
    pair = np.unique((pairs[0][apart].astype(np.uint64) << _HIGH) | pairs[1][apart].astype(np.uint64))
    one, other = (pair >> _HIGH).astype(np.int64), (pair & _LOW).astype(np.int64)
    likely = sets.may_share(one, other, threshold)
    one, other = one[likely], other[likely]
    for begin, end in _portions(sets.sizes[one] + sets.sizes[other]):
        left, right = one[begin:end], other[begin:end]
        apart = labels[left] != labels[right]  # those before may have joined them
        left, right = left[apart], right[apart]
        shared = _shared(sets, left, right)
        similar = shared / (sets.sizes[left] + sets.sizes[right] - shared) >= threshold
        _join(labels, left[similar], right[similar])


def _shared(sets: Sets, one: Integers, other: Integers) -> Integers:
    """How many elements each pair of sets has in common."""
    keys = []
    for side in (one, other):
        pair = np.repeat(np.arange(len(side), dtype=np.uint64), sets.sizes[side])
        keys.append((pair << _HIGH) | sets.elements[_spans(sets.starts[side], sets.sizes[side])])
    both = np.concatenate(keys)
    both.sort()
    twice = both[1:][both[1:] == both[:-1]]
    return np.bincount((twice >> _HIGH).astype(np.int64), minlength=len(one))


def _join(labels: Integers, one: Integers, other: Integers) -> None:
    """Make one component of those of each pair; every label is the smallest index of its component."""
    while True:
        left, right = labels[one], labels[other]
        apart = left != right
        if not apart.any():
            return
        one, other, left, right = one[apart], other[apart], left[apart], right[apart]
        np.minimum.at(labels, np.maximum(left, right), np.minimum(left, right))
        while not np.array_equal(labels, shorter := labels[labels]):
            labels[:] = shorter


def _spans(starts: Integers, lengths: Integers) -> Integers:
    """The indices start, start + 1, ... of each span, one span after another."""
    before: Integers = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
