"""Fills a token store: rows of the stream are encoded and written part by part, in bounded memory.

After each part the state of everything that is counted goes to disk with it. A building that was killed takes up
the state of the last whole part, passes over the rows that it had reached, and goes on as if nothing had been.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data.encode import Encoder, OverLong
from tutelage.data.ledger import Ledger
from tutelage.data.renderings import rendered
from tutelage.data.repeats.dedup import search
from tutelage.data.split import asked, keys
from tutelage.data.store import Entry, Writer, parts_of
from tutelage.data.stream import Dropped, Item, Parsed, Stream
from tutelage.errors import Problem
from tutelage.recipe import DataOptions, Rendering
from tutelage.types import Conversation, Demonstration, Example, Origin

PART_TOKENS = 2_000_000
PART_ROWS = 25_000
TASKS = 1_000
"""How many tasks are told apart; those of the rows after them count as one."""
OTHERS = "other tasks"
LENGTHS = 10_000
"""How many lengths of rows that are too long are remembered; all are counted."""


@dataclass(slots=True)
class Progressed:
    """How far a building has come; what is written after each part."""

    items: int = 0
    """Rows of the stream that are accounted for."""
    ledger: Ledger = field(default_factory=Ledger)
    files: dict[str, int] = field(default_factory=dict)
    """Number of each file that rows came from."""
    tasks: dict[str, int] = field(default_factory=lambda: {"": 0})
    """Number of each task that rows name."""
    stop_ids: dict[int, int] = field(default_factory=dict)
    """Token id -> how many stored answers end with it."""
    over_long: list[tuple[Origin, int]] = field(default_factory=list)
    """Origin and length of rows that are too long, where that is an error."""
    bad: int = 0
    """Malformed rows."""

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "items": self.items,
            "ledger": self.ledger.state(),
            "files": list(self.files),
            "tasks": list(self.tasks),
            "stop_ids": {str(id): count for id, count in self.stop_ids.items()},
            "over_long": [[origin.file, origin.line, length] for origin, length in self.over_long],
            "bad": self.bad,
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Progressed:
        """The one whose state this was."""
        return cls(
            state["items"],
            Ledger.restored(state["ledger"]),
            {name: number for number, name in enumerate(state["files"])},
            {name: number for number, name in enumerate(state["tasks"])},
            {int(id): count for id, count in state["stop_ids"].items()},
            [(Origin(file, line), length) for file, line, length in state["over_long"]],
            state["bad"],
        )


class Building:
    """One filling of a store."""

    def __init__(self, folder: Path, stream: Stream, encoder: Encoder, options: DataOptions) -> None:
        self.folder = folder
        self.stream = stream
        self.encoder = encoder
        self.options = options
        self.renderings = stored_renderings(options)
        self.done = Progressed()
        self.problems: list[Problem] = []
        """Malformed rows since the last part."""
        self._writer = Writer(folder, 1 + max(encoder.tokenizer.backend.get_vocab().values()))
        self._near = search(options.duplicates)
        self._searched = 0
        """Prompts that the parts on disk hold for the search for near-duplicates."""
        self._waiting: deque[tuple[Item | None, int]] = deque()
        """Rows on their way through the encoder, with the renderings of each; None for one that is only counted."""

    def run(self) -> None:
        """Fill the store and complete it.

        Raises:
            Unsteady: rows may have been rendered wrongly; the same encoder, asked again, renders them as it should.
        """
        self._continue()
        with _uncollected():
            self._encode()
        arrays: dict[str, NDArray[Any]] = {} if self._near is None else {"near": self._near.groups()}
        facts = {**self.done.state(), "renderings": list(self.renderings), "sources": self._sources()}
        self._writer.finish(facts, arrays)

    def _encode(self) -> None:
        encoded = self.encoder.encode(
            self._rows_to_encode(),
            max_length=self.options.max_length,
            trim=self.options.over_long == "trim-context",
        )
        results: list[list[Example] | OverLong | Problem] = []
        for result in encoded:
            self._settle_waiting()
            results.append(result)
            item, renderings = self._waiting[0]
            if len(results) == renderings:
                self._waiting.popleft()
                assert isinstance(item, Parsed)
                self._store(item, results)
                results = []
        self._settle_waiting()
        self._commit()

    def _continue(self) -> None:
        """Take up what an earlier building left."""
        parts = parts_of(self.folder)
        if not parts:
            return
        names = () if self._near is None else self._near.state()
        try:
            state = json.loads((parts[-1] / "part.json").read_text("utf-8"))
            searched = [{name: np.load(part / f"near-{name}.npy") for name in names} for part in parts]
        except (OSError, ValueError):  # somebody took a part of it away: begin anew
            shutil.rmtree(self.folder)
            self.folder.mkdir()
            return
        self.done = Progressed.restored(state["progress"])
        self._writer.parts = len(parts)
        self.encoder.take_up()
        if self._near is not None:
            for part in searched:
                self._near.restore(part)
            self._searched = len(self._near)

    def _rows_to_encode(self) -> Iterator[Demonstration]:
        """The rows that go to the encoder, each in all its renderings; all others wait for their turn to be counted.

        After the first malformed row that stops the run nothing more is encoded, but everything is read, so that
        all malformed rows are listed at once.
        """
        stopped = False
        for item in self.stream.items(skip=self.done.items):
            stopped = stopped or (isinstance(item, Problem) and self.options.on_bad_row == "stop")
            if isinstance(item, Parsed) and not stopped:
                variants = self._variants(item.row)
                self._waiting.append((item, len(variants)))
                yield from variants
            else:
                self._waiting.append((None if isinstance(item, Parsed) else item, 0))
                self._settle_waiting()

    def _variants(self, row: Demonstration) -> list[Demonstration]:
        if self.renderings != ("plain",) and isinstance(row, Conversation) and row.instruction is not None:
            return [rendered(row, name) for name in self.renderings]
        return [row]

    def _settle_waiting(self) -> None:
        """Count the rows that were not sent to the encoder, up to the next that was."""
        while self._waiting and self._waiting[0][1] == 0:
            item, _ = self._waiting.popleft()
            self.done.items += 1
            if isinstance(item, Problem):
                self._bad(item)
            elif isinstance(item, Dropped):
                self.done.ledger.leave(item)

    def _bad(self, problem: Problem) -> None:
        self.done.bad += 1
        self.problems.append(problem)
        self.done.ledger.refuse(problem)
        if len(self.problems) == PART_ROWS:
            self._commit()

    def _store(self, item: Parsed, results: list[list[Example] | OverLong | Problem]) -> None:
        """One row with the results of all its renderings."""
        self.done.items += 1
        row, origin = item.row, item.row.origin
        examples: list[Example] = []
        for result in results:
            if isinstance(result, Problem):
                return self._bad(result)
            if isinstance(result, OverLong):
                self.done.ledger.clean(origin, item.findings)
                self.done.ledger.drop("over-long", origin)
                if self.options.over_long == "error" and len(self.done.over_long) < LENGTHS:
                    self.done.over_long.append((origin, result.length))
                return None
            examples += result
        self.done.ledger.clean(origin, item.findings)
        self.stream.progress("encoding", 1)
        renderings = len(results)
        if len({len(result) for result in results}) > 1:  # type: ignore[arg-type]
            # The template joins the turns of one rendering and not those of another: they cannot take turns.
            examples, renderings = results[0], 1  # type: ignore[assignment]
        file = self.done.files.setdefault(origin.file, len(self.done.files))
        if self._near is not None:
            self._near.add("\n".join(asked(row)))
        entry = Entry(file, origin.line, item.source, self._task(row.task), *keys(row), renderings, examples)
        self._writer.add(entry)
        if self._writer.tokens >= PART_TOKENS or len(self._writer.entries) >= PART_ROWS:
            self._commit()
        return None

    def _task(self, name: str) -> int:
        known = self.done.tasks
        return known.setdefault(name if name in known or len(known) < TASKS else OTHERS, len(known))

    def _commit(self) -> None:
        """Write a part."""
        if self._writer.entries or self.problems:
            self.done.ledger.notices.update(self.encoder.notices)
            self.encoder.notices.clear()
            problems = [asdict(problem) for problem in self.problems]
            searched = {} if self._near is None else self._near.state(self._searched)
            arrays = {f"near-{name}": array for name, array in searched.items()}
            for id, count in self.encoder.stop_ids.items():
                self.done.stop_ids[id] = self.done.stop_ids.get(id, 0) + count
            self.encoder.stop_ids.clear()
            self._writer.commit({"progress": self.done.state(), "problems": problems}, arrays)
            self.problems = []
            self._searched = 0 if self._near is None else len(self._near)
            gc.collect(1)

    def _sources(self) -> list[dict[str, Any]]:
        return [self.stream.describe(index) for index in sorted(self.stream.counts)]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Collect cycles now and then only: looking for them all the time, where there are none, takes a fifth of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def stored_renderings(options: DataOptions) -> tuple[Rendering, ...]:
    """Every rendering that training or measuring asks for, each once; a row is stored in all of them."""
    return tuple(dict.fromkeys([*options.renderings.train, *options.renderings.heldout]))
