"""The data as tokens with the weight that each is trained with: what `tutelage preview` shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tutelage.data.dataset import Dataset
from tutelage.data.encode.tokenizer import Tokenizer
from tutelage.types import Example


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """An example with its side, its tokens and their weights."""

    example: Example
    split: str
    pieces: list[str]
    """The text of each token."""

    def as_json(self) -> dict[str, Any]:
        """One object of `tutelage preview --json`."""
        return {
            "origin": {"file": self.example.origin.file, "line": self.example.origin.line},
            "input_ids": self.example.input_ids.tolist(),
            "weights": [float(w) for w in self.example.weights],
            "split": self.split,
        }

    def coloured(self) -> dict[str, Any]:
        """A line of `rows.jsonl`: each token's text with its weight."""
        weights: list[float] = self.example.weights.tolist()
        return {
            "origin": {"file": self.example.origin.file, "line": self.example.origin.line},
            "split": self.split,
            "tokens": [[piece, weight] for piece, weight in zip(self.pieces, weights, strict=True)],
        }


def preview_rows(dataset: Dataset, tokenizer: Tokenizer, limit: int | None) -> Iterator[PreviewRow]:
    """The examples one by one, in the order of the files."""
    shown = 0
    for row in dataset.rows():
        for example in row.examples:
            if limit is not None and shown >= limit:
                return
            shown += 1
            yield PreviewRow(example, row.split, tokenizer.pieces(example.input_ids.tolist()))
