"""The record of what each training example cost at each pass, as `examples.jsonl` holds it, in columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data.canaries import source_of
from tutelage.data.dataset import Dataset
from tutelage.data.store import Store

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Passes:
    """Each time an example was trained on, in the order in which it was: columns of equal length."""

    step: Ints
    """Its loss is that of the model before this step's update."""
    epoch: Ints
    """Counted from 1."""
    example: Ints
    number: Ints
    """Which pass of this example it is, counted from 1."""
    nll: Floats
    """Sum over its trained tokens of weight * nll, in nats."""
    weight: Floats
    """Sum of its weights, above 0."""

    @staticmethod
    def read(lines: Iterable[Mapping[str, Any]], name: Callable[[Ints], Ints] = lambda places: places) -> Passes:
        """From the lines of `examples.jsonl`; a loss that is not finite is left out.

        `name` gives the same name to what counts as the same example, and a number below 0 to what does not count.
        """
        kinds = (("examples", np.int64), ("nll", np.float64), ("weight", np.float64))
        columns: list[list[NDArray[Any]]] = [[np.zeros(0, kind)] for _, kind in kinds]
        at, counts = [], []
        for line in lines:
            for column, (key, kind) in zip(columns, kinds, strict=True):
                column.append(np.array(line[key], dtype=kind))  # null, which stands for no number, becomes NaN
            at.append((line["step"], line["epoch"]))
            counts.append(len(line["examples"]))
        places, nll, weight = (np.concatenate(column) for column in columns)
        step, epoch = np.repeat(np.array(at, dtype=np.int64).reshape(-1, 2), counts, axis=0).T
        example = name(places) if len(places) else places
        kept = (example >= 0) & np.isfinite(nll) & (weight > 0)
        step, epoch, example, nll, weight = (column[kept] for column in (step, epoch, example, nll, weight))
        return Passes(step, epoch, example, _number(example), nll, weight)

    @staticmethod
    def of(lines: Iterable[Mapping[str, Any]], dataset: Dataset) -> Passes:
        """Of a run on these rows: an example has one name in all its renderings, and canaries are left out."""
        canaries, store = source_of(dataset.options), dataset.store

        def name(places: Ints) -> Ints:
            left_out = store.rows["source"][store.rows_of(places)] == (-1 if canaries is None else canaries)
            return np.where(left_out, -1, first_renderings(store, places))

        return Passes.read(lines, name)

    def __len__(self) -> int:
        return len(self.step)

    @property
    def loss(self) -> Floats:
        """Nats per token."""
        return self.nll / self.weight

    @property
    def ends(self) -> tuple[Ints, Ints]:
        """Where the first and the last pass stand of each example that had more than one."""
        _, first = np.unique(self.example, return_index=True)
        _, last = np.unique(self.example[::-1], return_index=True)
        last = len(self.example) - 1 - last
        several = first != last
        return first[several].astype(np.int64), last[several].astype(np.int64)


def first_renderings(store: Store, examples: Ints) -> Ints:
    """The same examples in the first rendering of their rows, so that each has one name at every pass."""
    rows = store.rows_of(examples)
    counts, renderings = (store.rows[name][rows].astype(np.int64) for name in ("examples", "renderings"))
    first: Ints = store.first_example[rows]
    found: Ints = first + (examples - first) % (counts // np.maximum(renderings, 1))
    return found


def _number(example: Ints) -> Ints:
    """How often each was there before, and 1."""
    order = np.argsort(example, kind="stable")
    ordered = example[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    number = np.empty(len(example), dtype=np.int64)
    number[order] = np.arange(len(example)) - np.repeat(starts, np.diff(starts, append=len(example))) + 1
    return number
