"""The general text on which forgetting is measured: a set that ships with us, and the files that a recipe names.

A run takes a part of each that is cheap to measure, chosen by no chance: of our own set the first text of each kind,
then the second, and so on; of a file the texts whose hashes come first. With a larger limit there are more of them,
and all that there were before.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data import formats
from tutelage.data.encode import Encoder, OverLong
from tutelage.data.sources import read
from tutelage.data.split import answered, asked
from tutelage.data.stream import as_turns
from tutelage.errors import DataError, Problem, TutelageError
from tutelage.recipe import Rows
from tutelage.types import Conversation, Demonstration, Document, Example, Message, Origin, Record

OURS = "general-1"
"""The set that ships with us; another number when a text of it changes, since figures then cannot be compared."""
LIMIT_TOKENS = 4096
PASSAGE = 512
"""Tokens of a text at most: many short texts say more than one long one."""
_ROWS = 10_000
"""Rows of a file that are looked at."""
_PIECE = re.compile(r"\S(?:.{0,1500}\S(?=\s|\Z)|.{0,1500})", re.DOTALL)
"""Of a long text, a piece that ends with a word."""


@dataclass(frozen=True, slots=True, eq=False)
class General:
    """Texts as examples, each of a group."""

    names: tuple[str, ...]
    """The groups: our own set, and each file by its path."""
    examples: tuple[Example, ...]
    groups: NDArray[np.int64]
    """Of each example, the number of its group."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """Of each text, the tokens that are predicted."""
        return np.array([example.supervised for example in self.examples], dtype=np.int64)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where the tokens of each text begin where all texts stand in a row; and the end of the last."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    @property
    def tokens(self) -> int:
        """Tokens that are predicted."""
        return int(self.counts.sum())

    @property
    def hash(self) -> str:
        """Of names and tokens: equal where figures can be compared."""
        digest = hashlib.sha256(json.dumps([self.names, self.groups.tolist()]).encode())
        for example in self.examples:
            digest.update(len(example).to_bytes(8, "little"))
            digest.update(example.input_ids.astype("<i4").tobytes())
            digest.update((example.weights > 0).tobytes())
        return digest.hexdigest()


def load(
    paths: Sequence[str], encoder: Encoder, limit_tokens: int = LIMIT_TOKENS, *, max_length: int = PASSAGE
) -> General:
    """Our own set, and the files; of each at most so many tokens, but always one text.

    Raises:
        DataError: a file cannot be read, has rows of no known format, or holds no text of two tokens.
    """
    # One of its own: an encoder counts what it meets, and these rows are not trained.
    making = _Making(Encoder(encoder.tokenizer, encoder.template), min(max_length, PASSAGE))
    names = tuple(dict.fromkeys([OURS, *paths]))
    found = [making.within(_ours(making), limit_tokens)]
    for path in names[1:]:
        found.append(making.within(_of_file(path, making), limit_tokens))
        if not found[-1]:
            what, fix = "a file of `evaluate.general` holds no text", "name another"
            raise DataError(Problem("data/no-rows", what, where=path, fix=fix))
    numbers = [number for number, examples in enumerate(found) for _ in examples]
    return General(names, tuple(example for group in found for example in group), np.array(numbers, dtype=np.int64))


def passages() -> list[dict[str, Any]]:
    """The texts of our own set: {id, kind, text} or {id, kind, messages}."""
    text = (resources.files("tutelage.evaluate") / f"{OURS}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


@dataclass(frozen=True, slots=True)
class _Making:
    """From texts to examples."""

    encoder: Encoder
    longest: int

    def within(self, examples: Iterable[Example], limit_tokens: int) -> list[Example]:
        """The first of them, up to the first that is too much."""
        chosen: list[Example] = []
        left = limit_tokens
        for example in examples:
            if chosen and example.supervised > left:
                break
            chosen.append(example)
            left -= example.supervised
        return chosen

    def text(self, text: str, origin: Origin) -> Example | None:
        """A text, all of which is predicted but its first token; None where there is nothing more."""
        ids = self.encoder.tokenizer.encode_text(text)[: self.longest]
        weights: NDArray[np.float32] = np.ones(len(ids), dtype=np.float32)
        weights[: max(1, len(self.encoder.tokenizer.opening))] = 0
        return Example(np.asarray(ids, dtype=np.int32), weights, origin, 1) if weights.any() else None

    def row(self, row: Demonstration) -> list[Example]:
        """A row as it would be trained, but each trained token alike; nothing where it is too long.

        Raises:
            DataError, ModelError: the template refuses it.
        """
        (made,) = self.encoder.encode([row], max_length=self.longest)
        if isinstance(made, OverLong):
            return []
        if isinstance(made, Problem):
            raise TutelageError.of([made])
        return [
            Example(one.input_ids, (one.weights > 0).astype(np.float32), one.origin, one.prompt_length) for one in made
        ]


def _ours(making: _Making) -> Iterator[Example]:
    """Our own texts, the kinds in turn."""
    kinds: dict[str, list[tuple[Origin, dict[str, Any]]]] = {}
    for line, passage in enumerate(passages(), start=1):
        kinds.setdefault(passage["kind"], []).append((Origin(OURS, line), passage))
    for place in range(max(map(len, kinds.values()))):
        for of_kind in kinds.values():
            if place < len(of_kind):
                origin, passage = of_kind[place]
                yield from _our_own(making, passage, origin)


def _our_own(making: _Making, passage: dict[str, Any], origin: Origin) -> Iterator[Example]:
    if "messages" in passage:
        messages = tuple(Message(turn["role"], turn["content"]) for turn in passage["messages"])
        if making.encoder.template is not None:
            try:
                yield from making.row(Conversation(origin, messages))
                return
            except TutelageError:
                pass  # A template for a purpose of its own, which knows no such conversation.
        text = "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in messages)
    else:
        text = passage["text"]
    made = making.text(text, origin)
    if made is not None:
        yield made


def _of_file(path: str, making: _Making) -> Iterator[Example]:
    """The texts of a file, in the order of their hashes."""
    pieces: list[tuple[bytes, Demonstration]] = []
    for row in _rows(path):
        if isinstance(row, Document):
            cut = [Document(row.origin, match.group()) for match in _PIECE.finditer(row.text)]
            pieces += [(_hash(piece.text), piece) for piece in cut]
        else:
            row = row if making.encoder.template is None else as_turns(row)
            pieces.append((_hash("\x1f".join([*asked(row), *answered(row)])), row))
    for _, row in sorted(pieces, key=lambda piece: piece[0]):
        if isinstance(row, Document):
            made = making.text(row.text, row.origin)
            yield from [] if made is None else [made]
        else:
            yield from making.row(row)


def _rows(path: str) -> Iterator[Demonstration]:
    records: list[Record] = []
    for item in islice(read(Rows(path=path)), _ROWS):
        if isinstance(item, Problem):
            raise DataError(item)
        records.append(item)
    format = formats.detect(formats.sample(records), source=Path(path).name)
    for record in records:
        for one in formats.expand(record, format):
            yield formats.parse(one, format)


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
