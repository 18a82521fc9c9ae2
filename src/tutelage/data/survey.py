"""Rows looked at without a tokenizer: counted, keyed and selected as a run would, then read again to be written.

The first pass keeps a few numbers of each row; the second yields the rows with what became of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data.ledger import Ledger
from tutelage.data.mixture import name_of
from tutelage.data.refusals import refuse_bad_rows
from tutelage.data.repeats.dedup import search
from tutelage.data.selection import Selection, select
from tutelage.data.split import asked, keys
from tutelage.data.statistics import Statistics
from tutelage.data.store import ROW, row_of
from tutelage.data.stream import Dropped, Parsed, Progress, Stream
from tutelage.errors import Problem
from tutelage.recipe import DataOptions
from tutelage.types import Origin

BLOCK = 1 << 16
"""Rows whose keys are put into an array at once."""


class Survey:
    """The rows of some sources, known by their keys."""

    def __init__(
        self, options: DataOptions, progress: Progress = lambda stage, rows: None, *, as_chat: bool = True
    ) -> None:
        """Read every row once; `as_chat` makes turns of prompts and completions.

        Raises:
            DataError: rows are malformed and the policy is to stop; too many are; a file cannot be read.
        """
        self.options = options
        self.stream = Stream(options, as_chat=as_chat, progress=progress)
        self.ledger = Ledger()
        self.statistics = Statistics()
        self._source_names = [*map(name_of, options.train), "held out"]
        self.problems: list[Problem] = []
        self.kinds: set[type] = set()
        """The classes of the rows that were parsed."""
        self._files: dict[str, int] = {}
        self._near = search(options.duplicates)
        self.rows = self._keys()
        self._groups = None if self._near is None else self._near.groups()
        self._names = list(self._files)
        refuse_bad_rows(self.problems, {"items": sum(self.stream.counts.values())}, options)
        self.selection: Selection = select(self, options, self.ledger)
        self.ledger.balance(sum(self.stream.counts.values()))

    def array(self, name: str) -> NDArray[Any] | None:
        """The groups of near-duplicates, where they were looked for."""
        return self._groups

    def origin(self, row: int) -> Origin:
        """Where a row came from."""
        return Origin(self._names[self.rows["file"][row]], int(self.rows["line"][row]))

    def items(self) -> Iterator[tuple[Parsed | Dropped | Problem, int, int]]:
        """Each row, read again; one that was parsed with its number and its side, another with -1 for both."""
        sides = self.selection.sides.tolist()
        number = 0
        for item in self.stream.items():
            if isinstance(item, Parsed):
                yield item, number, sides[number]
                number += 1
            else:
                yield item, -1, -1
        assert number == len(sides), "bug: reading the rows again gave other rows"

    def alike(self, row: int) -> Origin | None:
        """Where the first row came from whose prompt is nearly that of this one; None where it is the first."""
        first = row if self._groups is None else int(self._groups[row])
        return None if first == row else self.origin(first)

    def _keys(self) -> NDArray[Any]:
        """Go through the rows; the keys of those that were parsed."""
        blocks: list[NDArray[Any]] = []
        block: list[tuple[int, ...]] = []
        for item in self.stream.items():
            key = self._account(item)
            if key is not None:
                block.append(key)
            if len(block) == BLOCK:
                blocks.append(np.array(block, dtype=ROW))
                block = []
        return np.concatenate([*blocks, np.array(block, dtype=ROW)])

    def _account(self, item: Parsed | Dropped | Problem) -> tuple[int, ...] | None:
        """Count a row; its keys where it goes on."""
        if isinstance(item, Problem):
            self.problems.append(item)
            self.ledger.refuse(item)
            return None
        if isinstance(item, Dropped):
            self.ledger.leave(item)
            return None
        origin = item.row.origin
        self.ledger.clean(origin, item.findings)
        self.kinds.add(type(item.row))
        self.statistics.add(item.row, source=self._source_names[item.source])
        if self._near is not None:
            self._near.add("\n".join(asked(item.row)))
        file = self._files.setdefault(origin.file, len(self._files))
        return row_of(file, origin.line, item.source, *keys(item.row))
