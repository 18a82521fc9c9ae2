"""Examples on disk: token ids at two or four bytes each, with small indexes beside them; any one is read in O(1).

    part-00000/  tokens.bin      the ids of its examples, end to end
                 spans.npz       (start, length, weight) of each run of trained tokens
                 examples.npz    (length, tokens of the prompt, number of spans)
                 rows.npz        what selection needs to know of a row, and how many examples it has
                 part.json       how far the building had come with this part
    store.json                   what holds for all parts; written last

A part is written under another name, synced and renamed, so that one that has its name is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.types import Example, Origin

SPAN = np.dtype([("start", "<u4"), ("length", "<u4"), ("weight", "<f4")])
EXAMPLE = np.dtype([("length", "<u4"), ("prompt", "<u4"), ("spans", "<u4")])
ROW = np.dtype(
    [
        ("prompt", "<u8"),
        ("pair", "<u8"),
        ("line", "<u4"),
        ("file", "<u4"),
        ("source", "<u2"),
        ("task", "<u2"),
        ("examples", "<u2"),
        ("renderings", "u1"),
    ]
)


def row_of(
    file: int, line: int, source: int, prompt: int, pair: int, task: int = 0, examples: int = 1, renderings: int = 1
) -> tuple[int, ...]:
    """A line of the table of rows, in the order of `ROW`."""
    return prompt, pair, line, file, source, task, examples, renderings


@dataclass(frozen=True, slots=True)
class Entry:
    """A row to be stored; its examples are those of one rendering after another, as many for each."""

    file: int
    line: int
    source: int
    task: int
    prompt: int
    pair: int
    renderings: int
    examples: Sequence[Example]


@dataclass(slots=True)
class Writer:
    """Writes parts one after another."""

    folder: Path
    vocabulary: int
    """Ids are below this number; it decides how many bytes one takes."""
    parts: int = 0
    entries: list[Entry] = field(default_factory=list)
    tokens: int = 0

    def add(self, entry: Entry) -> None:
        """Keep a row for the next part."""
        self.entries.append(entry)
        self.tokens += sum(len(example) for example in entry.examples)

    def commit(self, state: dict[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Write the rows that were added as a part, with how far the building has come and what it needs to go on."""
        examples = [example for entry in self.entries for example in entry.examples]
        lengths = np.array([len(example) for example in examples], dtype=np.int64)
        ids = np.concatenate([e.input_ids for e in examples]) if examples else np.zeros(0, np.int32)
        weights = np.concatenate([e.weights for e in examples]) if examples else np.zeros(0, np.float32)
        spans, counts = _spans(weights, lengths)
        index = np.empty(len(examples), EXAMPLE)
        index["prompt"] = [example.prompt_length for example in examples]
        index["length"], index["spans"] = lengths, counts
        name = f"part-{self.parts:05}"
        folder = self.folder / f"{name}.new"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write(folder / "tokens.bin", ids.astype(_id_type(self.vocabulary)))
        for file, table in {"spans": spans, "examples": index, "rows": self._rows()}.items():
            _write(folder / f"{file}.npz", table)
        for file, array in (arrays or {}).items():
            _write(folder / f"{file}.npy", array)
        write_json(folder / "part.json", {"tokens": len(ids), "examples": len(lengths), **state})
        folder.rename(self.folder / name)
        self.parts, self.entries, self.tokens = self.parts + 1, [], 0

    def _rows(self) -> NDArray[np.void]:
        rows = [
            row_of(e.file, e.line, e.source, e.prompt, e.pair, e.task, len(e.examples), e.renderings)
            for e in self.entries
        ]
        return np.array(rows, dtype=ROW)

    def finish(self, facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Write what holds for all parts; the store is complete with it, and what only the building needed leaves."""
        for name, array in arrays.items():
            _write(self.folder / f"{name}.npy", array)
        whole = {"parts": self.parts, "vocabulary": self.vocabulary, "arrays": sorted(arrays), **facts}
        write_json(self.folder / "store.json", whole)
        for left in self.folder.glob("part-*/near-*.npy"):
            left.unlink()


class Store:
    """A complete store, open for reading; tokens are mapped, so they can be read even after it was removed."""

    def __init__(self, folder: Path) -> None:
        """Open the store; raises OSError, ValueError or KeyError when something of it is missing."""
        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / "store.json").read_text("utf-8"))
        parts = [folder / f"part-{number:05}" for number in range(self.facts["parts"])]
        type = _id_type(self.facts["vocabulary"])
        self._arrays = {name: np.load(folder / f"{name}.npy") for name in self.facts["arrays"]}
        self.states: list[dict[str, Any]] = [json.loads((part / "part.json").read_text("utf-8")) for part in parts]
        """What was written with each part."""
        self._tokens = [_map(part / "tokens.bin", type) for part in parts]
        self.rows = _joined([_table(part / "rows.npz", ROW) for part in parts], ROW)
        examples = [_table(part / "examples.npz", EXAMPLE) for part in parts]
        index = _joined(examples, EXAMPLE)
        self._spans = _joined([_table(part / "spans.npz", SPAN) for part in parts], SPAN)
        self.lengths: NDArray[np.int64] = index["length"].astype(np.int64)
        """Tokens of each example."""
        self._prompts = index["prompt"]
        self._first_span = _starts(index["spans"])
        self._first_example = _starts(np.array([len(part) for part in examples], dtype=np.int64))
        self._first_token = _starts(self.lengths)
        self.first_example: NDArray[np.int64] = _starts(self.rows["examples"])
        """For each row the index of its first example; one more at the end."""
        of_span = np.repeat(np.arange(len(index)), index["spans"])
        self.supervised: NDArray[np.int64] = np.bincount(
            of_span, weights=self._spans["length"], minlength=len(index)
        ).astype(np.int64)
        """Trained tokens of each example."""
        self._row_of_example = np.repeat(np.arange(len(self.rows)), self.rows["examples"])
        self.factors: NDArray[np.float32] | None = None
        """By what the loss of each row is multiplied, for whoever opened the store; nothing that it holds."""

    def __len__(self) -> int:
        return len(self.lengths)

    def rows_of(self, examples: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each of the examples, which are named by their index."""
        return np.searchsorted(self.first_example, examples, side="right") - 1

    def example(self, index: int) -> Example:
        """One example, in O(log parts)."""
        if not 0 <= index < len(self.lengths):
            raise IndexError(index)
        part = int(np.searchsorted(self._first_example, index, side="right")) - 1
        start = int(self._first_token[index] - self._first_token[self._first_example[part]])
        length = int(self.lengths[index])
        ids = self._tokens[part][start : start + length].astype(np.int32)
        weights = np.zeros(length, dtype=np.float32)
        spans = self._spans[self._first_span[index] : self._first_span[index + 1]]
        for begin, count, weight in spans.tolist():
            weights[begin : begin + count] = weight
        if self.factors is not None:
            weights *= self.factors[self._row_of_example[index]]
        return Example(ids, weights, self.origin(int(self._row_of_example[index])), int(self._prompts[index]), index)

    def origin(self, row: int) -> Origin:
        """Where a row came from."""
        return Origin(self.facts["files"][self.rows["file"][row]], int(self.rows["line"][row]))

    def holding(self, ids: range) -> tuple[int, list[int]]:
        """How many tokens have one of the ids, which follow each other, and the rows that they are in, ascending."""
        found = [
            int(self._first_token[self._first_example[number]])
            + np.flatnonzero((part >= ids.start) & (part < ids.stop))
            for number, part in enumerate(self._tokens)
        ]
        tokens = _joined(found, np.dtype(np.int64))
        examples = np.searchsorted(self._first_token, tokens, side="right") - 1
        return len(tokens), np.unique(self._row_of_example[examples]).tolist()

    def array(self, name: str) -> NDArray[Any] | None:
        """An array that was written at the end, or None."""
        return self._arrays.get(name)

    def digest(self) -> str:
        """Of the tokens and of which are trained; stores of the same content have the same, whatever made them."""
        whole = hashlib.sha256()
        for array in (self.lengths, self._prompts, self._first_span, self._spans, *self._tokens):
            whole.update(np.ascontiguousarray(array).data)
        return whole.hexdigest()

    def bytes_on_disk(self) -> int:
        """What the store takes."""
        return size_of(self.folder)


def parts_of(folder: Path) -> list[Path]:
    """The whole parts of a store that is being built, in order."""
    found: list[Path] = []
    while (part := folder / f"part-{len(found):05}").is_dir():
        found.append(part)
    return found


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process may be removing it
            total += file.stat().st_size if file.is_file() else 0
    return total


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8", errors="surrogatepass") as file:
        json.dump(value, file, ensure_ascii=True)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _spans(weights: NDArray[np.float32], lengths: NDArray[np.int64]) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """The runs of equal weights other than 0, and how many each example has.

    No run reaches from one example into the next: an example's first token is never trained.
    """
    changes = np.flatnonzero(np.diff(weights, prepend=np.float32(0)))
    ends = np.append(changes[1:], len(weights))
    trained = weights[changes] != 0
    begins, ends = changes[trained], ends[trained]
    first = _starts(lengths)
    owner = np.searchsorted(first, begins, side="right") - 1
    spans = np.empty(len(begins), SPAN)
    spans["start"], spans["length"], spans["weight"] = begins - first[owner], ends - begins, weights[begins]
    return spans, np.bincount(owner, minlength=len(lengths))


def _starts(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Where each begins when they lie end to end, and where the last ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _joined(arrays: list[NDArray[Any]], type: np.dtype[Any]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.zeros(0, type)


def _id_type(vocabulary: int) -> np.dtype[Any]:
    return np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<u4")


def _map(path: Path, type: np.dtype[Any]) -> NDArray[Any]:
    return np.memmap(path, dtype=type, mode="r") if path.stat().st_size else np.zeros(0, type)


def _table(path: Path, type: np.dtype[Any]) -> NDArray[Any]:
    """A table that was written column by column."""
    with np.load(path) as columns:
        names = type.names or ()
        table = np.empty(len(columns[f"column_{names[0]}"]), type)
        for name in names:
            table[name] = columns[f"column_{name}"]
    return table


def _write(path: Path, array: NDArray[Any]) -> None:
    """Write an array, or a table column by column, compressed: columns of a kind are small."""
    with path.open("wb") as file:
        if path.suffix == ".npz":
            columns: dict[str, Any] = {f"column_{name}": array[name] for name in array.dtype.names or ()}
            np.savez_compressed(file, **columns)
        elif path.suffix == ".npy":
            np.save(file, array)
        else:  # not `tofile`, whose errors do not say that the disk is full
            file.write(np.ascontiguousarray(array).data.cast("B") if len(array) else b"")
        file.flush()
        os.fsync(file.fileno())
