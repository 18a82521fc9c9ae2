"""Prompts that are nearly the same: runs of words in common, counted exactly.

A prompt is the set of its runs of a few words; two are nearly the same from a Jaccard similarity on, and a group is
what chains of such pairs connect. Prompts with fewer words than a run are the same only when all their words are.
Every run is kept as a hash of 32 bits, so memory is 4 bytes a word and 12 a row, and a pair is judged wrongly only
where hashes of its own two prompts collide: about once in ten million pairs of twenty words each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data.repeats.similarity import Sets, components
from tutelage.data.repeats.words import words as words_of
from tutelage.recipe import DuplicateOptions

_ROWS_AT_ONCE = 4096
_WORDS_AT_ONCE = 1 << 18
_WORDS_REMEMBERED = 1 << 19
_FACTOR = 0x9E3779B97F4A7C15
"""Odd, so that the hash of a run loses no bit of a word; its size is that of a 64-bit number."""


class NearDuplicates:
    """Prompts in the order of their rows, and the groups that they make."""

    def __init__(self, *, threshold: float, words: int) -> None:
        self.threshold = threshold
        self.words = words
        self._waiting: list[list[str]] = []
        self._words_waiting = 0
        self._hashes = _WordHashes()
        self._parts: list[_Part] = []

    def __len__(self) -> int:
        return sum(len(part.keys) for part in self._parts) + len(self._waiting)

    def add(self, text: str) -> None:
        """Take the prompt of the next row."""
        words = words_of(text)
        self._waiting.append(words)
        self._words_waiting += len(words)
        if len(self._waiting) >= _ROWS_AT_ONCE or self._words_waiting >= _WORDS_AT_ONCE:
            self._take_in()

    def groups(self) -> NDArray[np.int64]:
        """For each row the first row of its group; itself where it is alone."""
        whole = self._whole()
        if not len(whole.keys):
            return np.zeros(0, dtype=np.int64)
        _, first, inverse = np.unique(whole.keys, return_index=True, return_inverse=True)
        rows = np.sort(first)  # one for each different prompt
        found = components(_chosen(whole, rows), self.threshold)
        label: NDArray[np.int64] = np.zeros(len(whole.keys), dtype=np.int64)
        label[rows] = rows[found]
        return label[first[inverse]]

    def state(self, start: int = 0) -> dict[str, NDArray[Any]]:
        """What `restore` needs of the rows from `start` on; what lies before is not touched."""
        self._take_in()
        left: list[_Part] = []
        end = len(self)
        for part in reversed(self._parts):
            first = end - len(part.keys)
            if end <= start:
                break
            skip = max(0, start - first)
            left.append(_Part(part.keys[skip:], part.sizes[skip:], part.runs[int(part.sizes[:skip].sum()) :]))
            end = first
        whole = _together(left[::-1] or [_hashed([], self.words, self._hashes)])
        return {"keys": whole.keys, "sizes": whole.sizes, "runs": whole.runs}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take rows that another had been given, after those that are here; threshold and words must be the same."""
        self._take_in()
        self._parts.append(_Part(state["keys"], state["sizes"], state["runs"]))

    def _take_in(self) -> None:
        """Turn the words that wait into hashes."""
        if self._waiting:
            self._parts.append(_hashed(self._waiting, self.words, self._hashes))
            self._waiting, self._words_waiting = [], 0

    def _whole(self) -> _Part:
        """All rows as one part."""
        self._take_in()
        if len(self._parts) != 1:
            parts, self._parts = self._parts or [_hashed([], self.words, self._hashes)], []
            self._parts = [_together(parts)]
        return self._parts[0]


def search(options: DuplicateOptions) -> NearDuplicates | None:
    """The search that the options ask for; None where they switch it off."""
    return None if options.near == "off" else NearDuplicates(threshold=options.threshold, words=options.words)


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Prompts that were given different answers."""

    prompts: int
    """How many such prompts."""
    rows: int
    """How many rows have one of them."""
    examples: tuple[tuple[int, ...], ...]
    """For some of them, in order, the first row with each answer."""


def conflicts(prompts: NDArray[Any], answers: NDArray[Any], *, examples: int = 100) -> Conflicts:
    """Prompts with different answers, from each row's key of its prompt and key of its answer (or of both)."""
    if not len(prompts):
        return Conflicts(0, 0, ())
    prompt = np.unique(prompts, return_inverse=True)[1]
    answer = np.unique(answers, return_inverse=True)[1]
    pair = prompt.astype(np.int64) * len(prompts) + answer
    first = np.sort(np.unique(pair, return_index=True)[1])  # the first row of each different pair
    different = np.bincount(prompt[first])
    several = different > 1
    rows = first[several[prompt[first]]]
    by_prompt: dict[int, list[int]] = {}
    for row in rows.tolist():
        found = by_prompt.get(int(prompt[row]))
        if found is not None:
            found.append(row)
        elif len(by_prompt) < examples:
            by_prompt[int(prompt[row])] = [row]
    return Conflicts(int(several.sum()), int(several[prompt].sum()), tuple(map(tuple, by_prompt.values())))


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows: a hash of the whole prompt, how many different runs it has, and their hashes."""

    keys: NDArray[np.uint64]
    sizes: NDArray[np.uint32]
    runs: NDArray[np.uint32]


class _WordHashes(dict[str, int]):
    """Word -> 64-bit hash, the same on every machine."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _WORDS_REMEMBERED:
            self.clear()
        value = self[word] = _hash(word)
        return value


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _together(parts: Sequence[_Part]) -> _Part:
    """The parts as one."""
    return _Part(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("keys", "sizes", "runs")))


def _hashed(rows: list[list[str]], length: int, hashes: _WordHashes) -> _Part:
    """The runs of `length` words of each row, each once."""
    keys = np.array([_hash(" ".join(words)) for words in rows], dtype=np.uint64)
    counts = np.array([len(words) for words in rows], dtype=np.int64)
    flat = np.fromiter(map(hashes.__getitem__, chain.from_iterable(rows)), dtype=np.uint64, count=int(counts.sum()))
    runs = _rolled(flat, length)
    ends = np.cumsum(counts)
    owner = np.repeat(np.arange(len(rows), dtype=np.uint64), counts)[: len(runs)]
    inside = np.arange(len(runs)) + length <= ends[owner.astype(np.int64)]  # not across the end of a row
    found = np.unique((owner[inside] << np.uint64(32)) | (runs[inside] >> np.uint64(32)))
    sizes = np.bincount((found >> np.uint64(32)).astype(np.int64), minlength=len(rows))
    return _Part(keys, sizes.astype(np.uint32), found.astype(np.uint32))


def _rolled(values: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """A 64-bit hash of each run of `length` values, in order."""
    count = max(0, len(values) - length + 1)
    total = np.zeros(count, dtype=np.uint64)
    for start in range(length):
        total = total * np.uint64(_FACTOR) + values[start : start + count]
    for shift, factor in ((32, 0xD6E8FEB86659FD93), (29, 0xFF51AFD7ED558CCD)):  # every bit reaches the upper half
        total = (total ^ (total >> np.uint64(shift))) * np.uint64(factor)
    return total


def _chosen(part: _Part, rows: NDArray[np.int64]) -> Sets:
    """The sets of some rows, in order."""
    sizes = part.sizes.astype(np.int64)
    if len(rows) == len(sizes):
        return Sets.of(sizes, part.runs)
    kept = np.zeros(len(sizes), dtype=bool)
    kept[rows] = True
    return Sets.of(sizes[rows], part.runs[np.repeat(kept, sizes)])
