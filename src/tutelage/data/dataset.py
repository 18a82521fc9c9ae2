"""From the recipe's `data` section to examples: read, split, render, encode, and account for every row.

    sources -> records -> demonstrations -> side of the split -> examples
                  \\            \\                                   \\
                   bad rows      empty answers                       over-long ...        all in the ledger
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tutelage.data import formats, sources
from tutelage.data.encode import Encoder, OverLong
from tutelage.data.ledger import Ledger
from tutelage.data.split import is_heldout, position, prompt_key
from tutelage.errors import DataError, Problem, TutelageError
from tutelage.recipe import DataOptions, HeldoutFile, Source
from tutelage.types import Completion, Conversation, Demonstration, Example, Message, Origin, Record

Progress = Callable[[str, int], None]
"""Called with the name of the stage and how many rows it has done since the last call."""


@dataclass(frozen=True, slots=True)
class Row:
    """A demonstration that stayed, with its side and its examples."""

    demonstration: Demonstration
    split: str
    examples: tuple[Example, ...]


@dataclass(slots=True)
class Dataset:
    """What the run trains on and what it holds out."""

    rows: list[Row] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    quarantined: list[Problem] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    stop_ids: dict[int, int] = field(default_factory=dict)
    """Token id -> how many trained answers end with it."""

    def examples(self, split: str) -> list[Example]:
        """The examples of `train` or `heldout`, in the order of the files."""
        return [example for row in self.rows if row.split == split for example in row.examples]

    def describe(self) -> dict[str, Any]:
        """What `data.json` says beside the ledger: tokens and lengths, in tokens."""
        train = self.examples("train")
        lengths = np.array([len(e) for e in train] or [0])
        quantiles = {str(q): int(np.percentile(lengths, q)) for q in (50, 90, 99, 100)}
        return {
            "tokens": {
                "train": int(lengths.sum()),
                "supervised": sum(e.supervised for e in train),
                "heldout": sum(len(e) for e in self.examples("heldout")),
                "quantiles": quantiles,
            },
            "sources": self.sources,
        }


def prepare(options: DataOptions, encoder: Encoder, progress: Progress = lambda stage, rows: None) -> Dataset:
    """Every row of every source, accounted for.

    Raises:
        DataError: rows are malformed and the policy is to stop; rows are over-long and there is no policy; too many
            were set aside; nothing is left.
        ModelError: the template refuses the rows or writes no stop token.
    """
    dataset = Dataset()
    read = list(_read_all(options, dataset, encoder, progress))
    problems = [item for item in read if isinstance(item, Problem)]
    kept = _split([item for item in read if not isinstance(item, Problem)], options, dataset)
    encoded = encoder.encode(
        [demonstration for demonstration, _ in kept],
        max_length=options.max_length,
        trim=options.over_long == "trim-context",
    )
    over_long: list[OverLong] = []
    for (demonstration, split), result in zip(kept, encoded, strict=True):
        progress("encoding", 1)
        if isinstance(result, Problem):
            problems.append(result)
        elif isinstance(result, OverLong):
            over_long.append(result)
            dataset.ledger.drop("over-long", result.origin)
        else:
            dataset.rows.append(Row(demonstration, split, tuple(result)))
            dataset.ledger.keep(split, len(result))
    _settle_bad_rows(problems, len(read), options, dataset)
    if over_long and options.over_long == "error":
        raise _over_long_error(over_long, dataset, options.max_length)
    dataset.ledger.notices.update(encoder.notices)
    dataset.stop_ids = dict(encoder.stop_ids)
    dataset.ledger.balance(len(read))
    if not dataset.ledger.trained:
        raise DataError(Problem("data/no-rows", "no row is left to train on", found=dataset.ledger.summary()))
    return dataset


Parsed = tuple[Demonstration, bool]
"""A demonstration, and whether it came from the held-out file."""


def _read_all(
    options: DataOptions, dataset: Dataset, encoder: Encoder, progress: Progress
) -> Iterator[Parsed | Problem]:
    for source in options.train:
        yield from ((d, False) if not isinstance(d, Problem) else d for d in _read(source, dataset, encoder, progress))
    if isinstance(options.heldout, HeldoutFile):
        heldout = _read(options.heldout, dataset, encoder, progress)
        yield from ((d, True) if not isinstance(d, Problem) else d for d in heldout)


def _read(
    source: Source | HeldoutFile, dataset: Dataset, encoder: Encoder, progress: Progress
) -> Iterator[Demonstration | Problem]:
    records: list[Record] = []
    count = 0
    for item in sources.read(source):
        count += 1
        progress("reading", 1)
        if isinstance(item, Problem):
            yield item
        else:
            records.append(item)
    if not records:
        return
    named = source.format
    format = formats.detect(formats.sample(records), source=source.path) if named == "auto" else named
    dataset.sources.append({**sources.fingerprint(source), "format": format, "rows": count})
    weight = source.weight if isinstance(source, Source) else 1.0
    for record in records:
        try:
            row = formats.parse(record, format, completion_after=source.completion_after, weight=weight)
        except DataError as error:
            yield error.problems[0]
        else:
            yield as_turns(row) if encoder.template is not None else row


def as_turns(row: Demonstration) -> Demonstration:
    """A prompt and completion as one user turn and one answer, for a model that is served through a template."""
    if isinstance(row, Completion):
        messages = (Message("user", row.prompt), Message("assistant", row.completion))
        return Conversation(row.origin, messages, row.weight)
    return row


def _split(parsed: list[Parsed], options: DataOptions, dataset: Dataset) -> list[tuple[Demonstration, str]]:
    keys = [prompt_key(row) for row, _ in parsed]
    seen: set[str] = set()
    for key, (row, _) in zip(keys, parsed, strict=True):
        if key in seen:
            dataset.ledger.repeat(row.origin)
        seen.add(key)
    if isinstance(options.heldout, HeldoutFile):
        named = {key for key, (_, heldout) in zip(keys, parsed, strict=True) if heldout}
        kept: list[tuple[Demonstration, str]] = []
        for key, (row, heldout) in zip(keys, parsed, strict=True):
            if heldout or key not in named:
                kept.append((row, "heldout" if heldout else "train"))
            else:
                dataset.ledger.drop("prompt is also held out", row.origin)
        return kept
    share = options.heldout
    chosen = {key for key in keys if is_heldout(key, share)}
    if share > 0 and not chosen and len(set(keys)) > 1:
        chosen = {min(keys, key=position)}
    return [(row, "heldout" if key in chosen else "train") for key, (row, _) in zip(keys, parsed, strict=True)]


def _settle_bad_rows(problems: list[Problem], rows: int, options: DataOptions, dataset: Dataset) -> None:
    if not problems:
        return
    if options.on_bad_row == "stop":
        shown = problems[:10]
        more = len(problems) - len(shown)
        note = (
            Problem(
                problems[-1].code,
                f"{more:,} more rows have a problem, {len(problems):,} of {rows:,} in all",
                where=f"the last at {problems[-1].where}",
                fix="data.on_bad_row=quarantine sets bad rows aside, up to data.max_quarantined of all rows",
            ),
        )
        raise TutelageError.of([*shown, *(note if more else ())])
    for problem in problems:
        dataset.ledger.drop(problem.code.partition("/")[2], _origin(problem.where))
    dataset.quarantined = problems
    if len(problems) > options.max_quarantined * rows:
        raise DataError(
            Problem(
                "data/too-many-dropped",
                f"{len(problems):,} of {rows:,} rows are bad, more than data.max_quarantined allows",
                where=", ".join(p.where for p in problems[:5]),
                found=f"{len(problems) / rows:.1%}; the limit is {options.max_quarantined:.1%}",
                fix="mend the rows, or raise data.max_quarantined",
            ),
            *problems[:5],
        )


def _origin(where: str) -> Origin:
    file, _, line = where.rpartition(":")
    return Origin(file, int(line)) if line.isdigit() else Origin(where, 0)


def _over_long_error(over_long: list[OverLong], dataset: Dataset, limit: int) -> DataError:
    lengths = [len(example) for row in dataset.rows for example in row.examples]
    lengths += [row.length for row in over_long]
    quantiles = ", ".join(f"{q} % up to {int(np.percentile(lengths, q)):,}" for q in (50, 90, 99))
    places = ", ".join(str(row.origin) for row in over_long[:5])
    more = f" and {len(over_long) - 5:,} more" if len(over_long) > 5 else ""
    return DataError(
        Problem(
            "data/over-long",
            f"{len(over_long):,} of {dataset.ledger.rows:,} rows are longer than data.max_length = {limit:,} tokens",
            where=places + more,
            found=f"lengths in tokens: {quantiles}, the longest {max(lengths):,}",
            why="cutting a row would cut its answer and its stop token",
            fix=f"data.max_length={max(lengths)} keeps every row; data.over_long=drop drops and counts them; "
            "data.over_long=trim-context leaves early turns out",
        )
    )
