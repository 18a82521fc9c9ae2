"""Turns to examples: answers cut at their stop tokens, and turns of one conversation in one sequence where they fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.data.encode.render import Turn
from tutelage.data.encode.thinking import thinking_span
from tutelage.data.encode.tokenizer import Tokenizer
from tutelage.errors import ModelError, Problem
from tutelage.types import Example, Origin


class Sequences:
    """Puts the encoded turns of a conversation together."""

    def __init__(self, tokenizer: Tokenizer, thinking_weight: float) -> None:
        self._tokenizer = tokenizer
        self._thinking_weight = thinking_weight

    def joined(self, turns: Sequence[Turn], origin: Origin, stop_id: int) -> list[Example]:
        """One example for all turns as long as each prompt begins with all that came before it, id for id.

        Raises:
            ModelError: template/no-stop-token, where an answer has none.
        """
        examples: list[Example] = []
        ids: list[int] = []
        spans: list[tuple[int, int, float]] = []
        for turn in turns:
            self._cut_at_stop(turn, origin, stop_id)
            if ids and turn.prompt_ids[: len(ids)] != ids:
                examples.append(example(origin, ids, spans))
                spans = []
            ids = turn.prompt_ids + turn.completion_ids
            spans.append((len(turn.prompt_ids), len(ids), turn.weight))
            if self._thinking_weight != 1.0:
                spans.append(self._thinking(turn))
        if ids:
            examples.append(example(origin, ids, spans))
        return examples or [example(origin, [], [])]

    def _thinking(self, turn: Turn) -> tuple[int, int, float]:
        first, last = thinking_span(turn.completion_ids, turn.completion, turn.prompt, turn.thinking, self._tokenizer)
        before = len(turn.prompt_ids)
        return before + first, before + last, turn.weight * self._thinking_weight

    def _cut_at_stop(self, turn: Turn, origin: Origin, stop_id: int) -> None:
        """Leave out what follows the stop token: the template's own where there is one, else the last control token."""
        ids, control = turn.completion_ids, self._tokenizer.control_ids
        places = range(len(ids) - 1, -1, -1)
        end = next((place for place in places if ids[place] == stop_id), -1)
        if end < 0:
            end = next((place for place in places if ids[place] in control), -1)
            if end < 0 or self._tokenizer.decode(ids[end + 1 :]).strip():
                raise ModelError(
                    Problem(
                        "template/no-stop-token",
                        "the chat template writes no stop token after this answer",
                        where=str(origin),
                        found=f"an answer that ends in {self._tokenizer.decode(ids[-8:])!r}",
                        fix="name another template, as in model.template=chatml",
                    )
                )
        del ids[end + 1 :]


def example(origin: Origin, ids: Sequence[int], spans: Sequence[tuple[int, int, float]]) -> Example:
    """An example whose tokens have the weights of the spans (first, one after the last, weight), later ones last."""
    weights: NDArray[np.float32] = np.zeros(len(ids), dtype=np.float32)
    for first, last, weight in spans:
        weights[first:last] = weight
    weights[:1] = 0.0
    # Where thinking has no weight the prompt still ends where the answer begins.
    prompt = next((max(first, 1) for first, last, weight in spans if weight > 0 and last > max(first, 1)), len(weights))
    return Example(np.asarray(ids, dtype=np.int32), weights, origin, prompt)
