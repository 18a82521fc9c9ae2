"""Which stored rows are trained, held out, or left out as repeats: decided over the whole, after encoding.

Rows are grouped first: equal prompts, and near-duplicates where they are looked for, are one group. A group is
trained or held out as a whole, and its side is that of its first row, so rows that are added move nobody else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tutelage.data.adjust import Adjusted, Adjustment, adjust
from tutelage.data.canaries import source_of
from tutelage.data.ledger import Ledger
from tutelage.data.repeats.dedup import conflicts
from tutelage.recipe import DataOptions, HeldoutFile
from tutelage.types import Origin

TRAIN, HELDOUT = 0, 1
REASONS = (
    *("duplicate row", "duplicate prompt", "near-duplicate prompt", "prompt is also held out", "nearly held out"),
    "weight 0 in data.adjust",
)
"""Why a stored row is left out; its side is 2 + its place here."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The side of each stored row."""

    sides: NDArray[np.uint8]
    adjusted: Adjusted = field(default_factory=Adjusted)
    """What `data.adjust` did."""

    def rows(self, side: int) -> NDArray[np.int64]:
        """The rows of one side, in the order of the files."""
        return np.flatnonzero(self.sides == side)


class Keyed(Protocol):
    """Rows known by their keys: those of a token store, or of a survey."""

    rows: NDArray[Any]
    """As `store.ROW`."""

    def array(self, name: str) -> NDArray[Any] | None:
        """The array `near`: for each row the first that it is nearly a duplicate of."""
        ...

    def origin(self, row: int) -> Origin:
        """Where a row came from."""
        ...


def select(store: Keyed, options: DataOptions, ledger: Ledger) -> Selection:
    """Choose each row's side, and count all of it in the ledger.

    Raises:
        DataError: `data.adjust` cannot be read, or a line of it is wrong.
    """
    rows, count = store.rows, len(store.rows)
    sides = np.zeros(count, dtype=np.uint8)
    prompts = _first_alike(rows["prompt"])
    pairs = _first_alike(rows["pair"])
    near = store.array("near")
    groups = prompts if near is None else _joined(prompts, near)
    apart = rows["source"] == len(options.train)  # the rows of a held-out file
    index = np.arange(count)

    for wanted, first, reason in (
        (options.duplicates.exact == "drop", pairs, 0),
        (options.duplicates.prompt == "drop", prompts, 1),
        (options.duplicates.near == "drop", groups, 2),
    ):
        if wanted:
            sides[(first != index) & (sides == TRAIN) & ~apart] = 2 + reason

    if isinstance(options.heldout, HeldoutFile):
        sides[apart] = HELDOUT
        for alike, reason in ((prompts, 3), (groups, 4)):
            named = np.zeros(count, dtype=bool)
            named[alike[apart]] = True
            sides[named[alike] & (sides == TRAIN) & ~apart] = 2 + reason
    elif options.heldout > 0:
        place = (rows["prompt"][groups] >> np.uint64(12)).astype(np.float64) / 2**52
        held = place < options.heldout
        canaries = source_of(options)
        for source in range(len(options.train)):
            if source != canaries:
                _hold_one_out(held, place, groups, (rows["source"] == source) & (sides == TRAIN))
        if canaries is not None:
            held &= rows["source"] != canaries
        sides[held & (sides == TRAIN)] = HELDOUT

    adjusted = Adjusted()
    if options.adjust is not None:
        firsts = {3: prompts, 4: groups}  # for the second and the third reason
        left = 2 + REASONS.index("weight 0 in data.adjust")
        adjusted = adjust(Adjustment.read(options.adjust), rows["pair"], sides, left=left, stand_ins=firsts)
    _count(store, sides, prompts, pairs, ledger)
    return Selection(sides, adjusted)


def _hold_one_out(
    held: NDArray[np.bool_], place: NDArray[np.float64], groups: NDArray[np.int64], mine: NDArray[np.bool_]
) -> None:
    """Of a source with several prompts of which none is held out, hold out the one that comes first by hash."""
    if not mine.any() or held[mine].any() or len(np.unique(groups[mine])) == 1:
        return
    # A group that other sources share might be all that they have.
    own = mine & ~np.isin(groups, groups[~mine])
    if own.any():
        rows = np.flatnonzero(own)
        held[groups == groups[rows[np.argmin(place[rows])]]] = True


def _first_alike(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each row the first row with the same key."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first[inverse] if len(keys) else np.zeros(0, dtype=np.int64)


def _joined(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row the first row that either grouping, or a chain of both, connects it with."""
    labels = np.minimum(one, other)
    while True:
        smaller = labels.copy()
        for first in (one, other):  # the smallest label within each group of either
            np.minimum.at(smaller, first, labels)
            smaller = np.minimum(smaller, smaller[first])
        smaller = smaller[smaller]
        if np.array_equal(smaller, labels):
            return labels
        labels = smaller


def _count(
    store: Keyed,
    sides: NDArray[np.uint8],
    prompts: NDArray[np.int64],
    pairs: NDArray[np.int64],
    ledger: Ledger,
) -> None:
    examples = store.rows["examples"] // np.maximum(store.rows["renderings"], 1)
    for split, side in (("train", TRAIN), ("heldout", HELDOUT)):
        mine = sides == side
        ledger.keep(split, int(mine.sum()), int(examples[mine].sum()))
    for place in np.flatnonzero(sides > HELDOUT).tolist():
        ledger.drop(REASONS[sides[place] - 2], store.origin(place))
    index = np.arange(len(sides))
    for place in np.flatnonzero(prompts != index).tolist():
        ledger.repeat(store.origin(place), listed=bool(sides[place] <= HELDOUT))
    ledger.conflicts = conflicts(prompts, pairs).prompts
