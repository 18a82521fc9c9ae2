"""What held-out examples are made of: whose row each is, where its answers lie, and what in them is thinking.

A row goes by a hash of what it asks and answers, so that it has the same name in every run, whatever the recipe, the
tokenizer or the template. Of equal rows, the second is called NAME-2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutelage.data.dataset import Dataset
from tutelage.data.encode.thinking import CLOSE, thinking_span
from tutelage.data.encode.tokenizer import Tokenizer
from tutelage.data.examples import Examples
from tutelage.types import Example, Origin

_BEFORE = 8
"""Tokens of a prompt that are read to see whether it ends by opening the thinking."""


class Piece(NamedTuple):
    """Trained tokens of one example, one after the other, that are all thinking or all answer."""

    example: int
    """Its place among the examples."""
    first: int
    last: int
    """The place after its last token."""
    turn: int
    """Which trained answer of the row it belongs to, from 1."""
    thinking: bool
    stops: bool
    """Whether it ends with a stop token."""
    tokens: int
    bytes: int
    """Of its text, without the stop token."""
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """Of examples, in their order."""

    rows: tuple[str, ...]
    """The name of each example's row; the examples of one row share it."""
    origins: tuple[Origin, ...]
    sources: tuple[str, ...]
    tasks: tuple[str, ...]
    """What each row names in its column `task`; "" where it names none."""
    renderings: tuple[str, ...]
    """In which words each is; "" where there is one wording alone."""
    pieces: tuple[Piece, ...]
    """Those of the first example, then those of the next."""

    def column(self, name: str) -> NDArray[np.float64]:
        """A number of each piece."""
        return np.array([getattr(piece, name) for piece in self.pieces], dtype=np.float64)

    def by_example(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """A sum over the pieces of each example."""
        owners = self.column("example").astype(np.int64)
        return np.bincount(owners, weights=values, minlength=len(self.rows))

    @property
    def row_numbers(self) -> NDArray[np.int64]:
        """The row of each example, as a number."""
        known: dict[str, int] = {}
        return np.array([known.setdefault(name, len(known)) for name in self.rows], dtype=np.int64)


def anatomy(dataset: Dataset, examples: Examples, tokenizer: Tokenizer) -> Anatomy:
    """What these examples of a data set are made of. O(their tokens); what is kept is O(their answers)."""
    stored = dataset.rows_of(examples)
    renderings = dataset.rendering_of(examples)
    names = [source["name"] for source in dataset.sources]
    sources = [names[int(number)] for number in dataset.store.rows["source"][stored]]
    tasks = [dataset.store.facts["tasks"][int(number)] for number in dataset.store.rows["task"][stored]]
    origins = [dataset.store.origin(int(row)) for row in stored]
    pieces: list[Piece] = []
    turns: Counter[tuple[int, str]] = Counter()
    for place, example in enumerate(examples):
        key = int(stored[place]), renderings[place]
        pieces += _pieces(place, example, turns[key], tokenizer, dataset.stop_ids)
        turns[key] = pieces[-1].turn if pieces and pieces[-1].example == place else turns[key]
    told = (_names(dataset, stored), origins, sources, tasks, renderings)
    return Anatomy(*map(tuple, told), tuple(pieces))


def _names(dataset: Dataset, stored: NDArray[np.int64]) -> Iterator[str]:
    """The name of each stored row, which several examples in a row may share."""
    given: dict[int, str] = {}
    seen: Counter[int] = Counter()
    for row in map(int, stored):
        if row not in given:
            pair = int(dataset.store.rows["pair"][row])
            seen[pair] += 1
            given[row] = f"{pair:016x}" + (f"-{seen[pair]}" if seen[pair] > 1 else "")
        yield given[row]


def _pieces(
    place: int, example: Example, before: int, tokenizer: Tokenizer, stop_ids: dict[int, int]
) -> Iterator[Piece]:
    """The pieces of an example; `before` answers of its row stand in earlier ones."""
    trained = np.flatnonzero(example.weights)
    if not len(trained):
        return
    breaks = np.flatnonzero(np.diff(trained) > 1)
    starts = trained[np.concatenate([[0], breaks + 1])]
    ends = trained[np.concatenate([breaks, [len(trained) - 1]])] + 1
    for turn, (first, last) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True), start=before + 1):
        ids = example.input_ids[first:last].tolist()
        stops = ids[-1] in stop_ids
        thought = _thought(example, first, ids, tokenizer)
        for begin, end, thinking in ((first, first + thought, True), (first + thought, last, False)):
            if begin == end:
                continue
            here = ids[begin - first : end - first]
            ends_here = stops and end == last
            text = tokenizer.decode(here[:-1] if ends_here else here)
            size = len(text.encode("utf-8", "surrogatepass"))
            weight = float(example.weights[begin:end].sum(dtype=np.float64))
            yield Piece(place, begin, end, turn, thinking, ends_here, end - begin, size, weight)


def _thought(example: Example, first: int, ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """How many of an answer's first tokens are thinking."""
    text = tokenizer.decode(ids)
    if CLOSE not in text:
        return 0
    prompt = tokenizer.decode(example.input_ids[max(0, first - _BEFORE) : first].tolist())
    start, end = thinking_span(ids, text, prompt, None, tokenizer)
    return end if start == 0 else 0
