"""The loss of each row at each pass, and how far that is from rows like it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from tutelage.data.store import Store
from tutelage.evaluate.passes import Floats, Ints, Passes

LENGTHS = 10
"""Groups of rows of about the same length."""
LIKE = 12
"""Rows that a group has at least, where its source has so many; smaller ones join the next shorter rows."""
PASSES = 64
"""Of a row that are looked at, the last one among them."""
AT_ONCE = 40
"""Rows that were trained on at about the same time, over which the course of learning itself is taken out."""
NORMAL = 1.4826
"""The standard deviation of normal numbers, as a multiple of their median distance from the median."""
LEAST = 0.02
"""Nats per token: losses that are closer than this are the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Courses:
    """Rows by passes: matrices with one line a row; not a number where a row had fewer passes."""

    rows: Ints
    """Stored rows."""
    loss: Floats
    """Nats per token, before the update of the step that trained on the row."""
    step: Floats
    """When that was."""
    score: Floats
    """How far the loss is above those of like rows at the same pass and time, in robust standard deviations."""
    like: Floats
    """The median loss of like rows."""
    last: Ints
    """The number of each row's last pass, counted from 0."""

    @staticmethod
    def of(passes: Passes, store: Store) -> Courses:
        """From the record, whose examples are named by their place in the first rendering."""
        if not len(passes):
            empty = np.zeros((0, 1))
            none = np.zeros(0, dtype=np.int64)
            return Courses(none, empty, empty, empty, empty, none)
        rows, row = np.unique(store.rows_of(passes.example), return_inverse=True)
        passes, row = _few(passes, row)
        shape = (len(rows), int(passes.number.max()))
        cell = row * shape[1] + passes.number - 1
        nll, weight, times, count = (
            np.bincount(cell, weights=values, minlength=shape[0] * shape[1]).reshape(shape)
            for values in (passes.nll, passes.weight, passes.step, np.ones(len(cell)))
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            loss, step = nll / weight, times / count
        tokens = weight.sum(axis=1) / np.maximum(count.sum(axis=1), 1)
        group = _groups(store.rows["source"][rows].astype(np.int64), tokens)
        score, like = np.full(shape, np.nan), np.full(shape, np.nan)
        for number in range(shape[1]):
            there = np.flatnonzero(~np.isnan(loss[:, number]))
            found = _compared(loss[there, number], step[there, number], group[there])
            score[there, number], like[there, number] = found
        last = shape[1] - 1 - np.argmax(~np.isnan(loss[:, ::-1]), axis=1)
        return Courses(rows, loss, step, score, like, last.astype(np.int64))

    def at_last(self, values: Floats) -> Floats:
        """Of each row what a matrix says of its last pass."""
        found: Floats = values[np.arange(len(self.rows)), self.last]
        return found


def _few(passes: Passes, row: Ints) -> tuple[Passes, Ints]:
    """The first passes of each row and its last one, so that a row seen thousands of times takes no more room."""
    if int(passes.number.max()) <= PASSES:
        return passes, row
    most = np.zeros(int(row.max()) + 1, dtype=np.int64)
    np.maximum.at(most, row, passes.number)
    kept = (passes.number < PASSES) | (passes.number == most[row])
    few = Passes(*(getattr(passes, column.name)[kept] for column in fields(passes)))
    return replace(few, number=np.minimum(few.number, PASSES)), row[kept]


def _groups(source: Ints, tokens: Floats) -> Ints:
    """A number for each row, equal for rows of one source and about the same length."""
    group = np.zeros(len(source), dtype=np.int64)
    free = 0
    for each in np.unique(source):
        mine = np.flatnonzero(source == each)
        parts = min(LENGTHS, max(1, len(mine) // LIKE))
        # Rows of one length are in one group, whichever tenth they would begin.
        shorter = np.searchsorted(np.sort(tokens[mine]), tokens[mine])
        part = shorter * parts // len(mine)
        for small in range(parts - 1, 0, -1):
            if 0 < (part == small).sum() < LIKE:
                part[part == small] = max(part[part < small], default=small)
        group[mine] = free + part
        free += parts
    return group


def _compared(loss: Floats, step: Floats, group: Ints) -> tuple[Floats, Floats]:
    """(score, median of like rows) of rows at one pass."""
    level = _level(loss, step)
    above = loss - level
    score, like = np.zeros(len(loss)), np.zeros(len(loss))
    for each in np.unique(group):
        mine = group == each
        middle = float(np.median(above[mine]))
        apart = above[mine] - middle
        spread = max(NORMAL * float(np.median(np.abs(apart))), 0.1 * float(np.median(np.abs(loss[mine]))), LEAST)
        score[mine] = apart / spread
        like[mine] = level[mine] + middle
    return score, like


def _level(loss: Floats, step: Floats) -> Floats:
    """The median loss at about each row's time: what is lower late in a pass is so for all rows."""
    order = np.argsort(step, kind="stable")
    parts: list[NDArray[np.int64]] = np.array_split(order, max(1, len(loss) // AT_ONCE))
    level = np.zeros(len(loss))
    for part in parts:
        level[part] = np.median(loss[part])
    return level
