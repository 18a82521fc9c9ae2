"""The rows of all sources, one after another: read, parsed, cleaned and compared with evaluation sets.

    sources ──> records ──> demonstrations ──> cleaned ──> not an evaluation question ──> Parsed
                   \\             \\                \\                  \\
                    Problem         Problem          Dropped              Dropped

Nothing is held but the row at hand, and nothing is lost: each row of a source is yielded exactly once, as what
became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from tutelage.data import formats, sources
from tutelage.data.clean import Cleaner, Finding
from tutelage.data.repeats.decontaminate import Decontaminator, Hit
from tutelage.data.sources.selected import Selected
from tutelage.errors import DataError, Problem
from tutelage.recipe import DataOptions, HeldoutFile, Rows, Source
from tutelage.types import Completion, Conversation, Demonstration, Document, Message, Origin, Record

Progress = Callable[[str, int], None]
"""Called with the name of the stage and how many rows it has done since the last call."""

LOOKED_AT = 1000
"""Rows from which a format is recognised."""
LARGEST = 1 << 22
"""Characters of a row that are encoded whatever the limit in tokens is. A tokenizer takes some hundred bytes for each,
so that a single row of a hundred megabytes would fill the memory, only to be found too long."""
_MOST_PER_TOKEN = 16
"""Characters for each token of the limit that are encoded, where these are more."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A row that goes on to be encoded."""

    row: Demonstration
    source: int
    """Which source it is of; the held-out file comes after the last."""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that leaves for a named reason."""

    reason: str
    origin: Origin
    findings: tuple[Finding, ...] = ()
    hit: Hit | None = None


Item = Parsed | Dropped | Problem
"""What became of a row; a `Problem` is a malformed one."""


@dataclass(slots=True)
class Stream:
    """The rows of a run's sources, as often as they are asked for."""

    options: DataOptions
    as_chat: bool
    """Whether a prompt and completion become turns, for a model that is served through a template."""
    progress: Progress = lambda stage, rows: None
    formats: dict[int, str] = field(default_factory=dict)
    """The format of each source that was begun."""
    counts: dict[int, int] = field(default_factory=dict)
    """Rows read of each source so far."""
    selected: dict[int, Selected] = field(default_factory=dict)
    """What `where` kept of each source that has one."""
    clean: Cleaner = field(init=False)
    decontaminate: Decontaminator | None = field(init=False)

    def __post_init__(self) -> None:
        self.clean = Cleaner(self.options.clean)
        against = self.options.decontaminate
        self.decontaminate = Decontaminator(against) if against.against else None

    def describe(self, index: int) -> dict[str, Any]:
        """What is known of a source that was read: its format, its rows, and how many `where` left out."""
        selected = self.selected.get(index)
        where = {} if selected is None else {"left_out": selected.left_out}
        return {"format": self.formats.get(index, ""), "rows": self.counts.get(index, 0), **where}

    def items(self, *, skip: int = 0, only: Collection[tuple[int, Origin]] | None = None) -> Iterator[Item]:
        """What became of each row, in order, but for the first `skip`.

        With `only`, rows other than these (source, origin) are passed over, and reading ends with the last of them.
        """
        wanted = None if only is None else {(source, str(origin)) for source, origin in only}
        seen: set[tuple[int, str]] = set()
        for index, source in enumerate(sources_of(self.options)):
            for record in self._records(index, source):
                if wanted is not None:
                    place = index, (record.where if isinstance(record, Problem) else str(record.origin))
                    if place not in wanted:
                        if seen == wanted:
                            return
                        continue
                    seen.add(place)
                if skip:
                    skip -= 1
                else:
                    yield self._item(record, index, source) if isinstance(record, Record) else record

    def _records(self, index: int, source: Rows) -> Iterator[Record | Problem | Dropped]:
        """The records of one source, each that holds several rows taken apart."""
        self.counts[index] = 0
        read = sources.read(source)
        if read.selected is not None:
            self.selected[index] = read.selected
        first = list(islice(read, LOOKED_AT))
        records = [item for item in first if isinstance(item, Record)]
        if records and source.format == "auto":
            named = source.path if isinstance(source.path, str) else ", ".join(source.path)
            self.formats[index] = formats.detect(formats.sample(records), source=named)
        elif records:
            self.formats[index] = source.format
        for item in chain(first, read):
            self.progress("reading", 1)
            if isinstance(item, Problem):
                self.counts[index] += 1
                yield item
                continue
            try:
                parts: tuple[Record | Problem | Dropped, ...] = formats.expand(item, self._format(index, records))
            except DataError as error:
                parts = (refused(error, item.origin),)
            self.counts[index] += len(parts)
            yield from parts

    def _format(self, index: int, seen: list[Record]) -> Any:
        if index not in self.formats:  # no row among the first could be read
            raise DataError(
                Problem("data/unreadable", f"none of the first {LOOKED_AT:,} rows can be read", found=f"{len(seen)}")
            )
        return self.formats[index]

    def _item(self, record: Record, index: int, source: Rows) -> Item:
        weight = source.weight if isinstance(source, Source) else 1.0
        named: Any = self.formats[index]
        try:
            row = formats.parse(record, named, completion_after=source.completion_after, weight=weight)
        except DataError as error:
            return refused(error, record.origin)
        if (size := _characters(row)) > max(LARGEST, _MOST_PER_TOKEN * self.options.max_length):
            return _too_large(size, record.origin)
        cleaned = self.clean(as_turns(row) if self.as_chat else row)
        if cleaned.row is None:
            rule = next(f.rule for f in cleaned.findings if f.action == "dropped")
            return Dropped(rule.replace("_", " "), record.origin, cleaned.findings)
        if self.decontaminate is not None and index < len(self.options.train):
            hit = self.decontaminate.hit(cleaned.row)
            if hit is not None:
                return Dropped(f"in evaluation set {hit.set}", record.origin, cleaned.findings, hit)
        return Parsed(cleaned.row, index, cleaned.findings)


def _characters(row: Demonstration) -> int:
    """Characters of a row, those of its calls and tools as they would be printed."""
    if isinstance(row, Completion):
        return len(row.prompt) + len(row.completion)
    if isinstance(row, Document):
        return len(row.text)
    size = len(str(row.tools)) if row.tools else 0
    for message in row.messages:
        size += len(message.content)
        if message.thinking is not None:
            size += len(message.thinking)
        if message.tool_calls:
            size += len(str(message.tool_calls))
    return size


def _too_large(size: int, origin: Origin) -> Problem:
    what, found = "the row is too large to be encoded", f"{size:,} characters"
    return Problem("data/too-large", what, str(origin), found, fix="split it, or remove it")


def refused(error: DataError, origin: Origin) -> Dropped | Problem:
    """What becomes of a row that cannot be read: some leave for a reason that is no fault of theirs."""
    problem = error.problems[0]
    reason = formats.LEFT_OUT.get(problem.code)
    return problem if reason is None else Dropped(reason, origin)


def sources_of(options: DataOptions) -> list[Rows]:
    """The sources, with the held-out file, if there is one, at the end."""
    return [*options.train, *([options.heldout] if isinstance(options.heldout, HeldoutFile) else [])]


def as_turns(row: Demonstration) -> Demonstration:
    """A prompt and completion as one user turn and one answer, for a model that is served through a template."""
    if isinstance(row, Completion):
        messages = (Message("user", row.prompt), Message("assistant", row.completion))
        return Conversation(row.origin, messages, row.weight, task=row.task)
    return row
