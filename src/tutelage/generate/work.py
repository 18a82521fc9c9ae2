"""What is to be written: prompts, how tokens are chosen, and where each answer ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from tutelage.errors import DataError, ModelError, Problem
from tutelage.generate.draw import Chosen, choose, key
from tutelage.generate.generation import Generation
from tutelage.generate.sampling import Sampling
from tutelage.generate.stops import Stops
from tutelage.models.adapters import base_of
from tutelage.models.forward import Forward

Written = Callable[[int, int, int], None]
"""Called for each token with the prompt's number, the sample's number and the id, as it is written."""


@dataclass(slots=True)
class Draft:
    """One answer while it is being written."""

    prompt: int
    sample: int
    limit: int
    input_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    drawn: list[float] = field(default_factory=list)

    def add(self, token: int, logprob: float, drawn: float) -> None:
        """Write a token."""
        self.input_ids.append(token)
        self.logprobs.append(logprob)
        self.drawn.append(drawn)


@dataclass(frozen=True, slots=True)
class Work:
    """Prompts to answer."""

    prompts: Sequence[Sequence[int]]
    rows: Sequence[object]
    """The name of each prompt, on which its random draws depend."""
    limits: Sequence[int]
    """How many tokens may follow each prompt."""
    sampling: Sampling
    stops: Stops
    written: Written

    def __post_init__(self) -> None:
        """Refuse prompts that say nothing.

        Raises:
            DataError: data/bad-row.
        """
        empty = [
            Problem(
                "data/bad-row",
                "a prompt holds no token, so there is nothing to go on from",
                where=f"prompt {row}",
                fix="leave the row out, or begin its prompt with the tokenizer's first token",
            )
            for row, prompt in zip(self.rows, self.prompts, strict=True)
            if not len(prompt)
        ]
        if empty:
            raise DataError(*empty)

    def begin(self, prompt: int, sample: int) -> Draft:
        """An answer without a token."""
        return Draft(prompt, sample, self.limits[prompt])

    def continue_with(self, logits: Tensor, answers: Sequence[Draft]) -> None:
        """Add a token to each answer, chosen from logits (answers, vocabulary).

        Raises:
            ModelError: model/bad-weights, where logits are no numbers, of which any token would be the likeliest.
        """
        keys = []
        if self.sampling.temperature > 0:
            keys = [key(self.sampling, self.rows[a.prompt], a.sample, len(a.input_ids)) for a in answers]
        chosen: Chosen = choose(logits, self.sampling, keys)
        for answer, token, logprob, drawn in zip(answers, *chosen, strict=True):
            if not math.isfinite(logprob):
                raise no_numbers(
                    f"prompt {self.rows[answer.prompt]}", f"after {len(answer.input_ids):,} tokens of the answer"
                )
            answer.add(token, logprob, drawn)
            if token not in self.stops.ids:
                self.written(answer.prompt, answer.sample, token)

    def finished(self, answer: Draft) -> Generation | None:
        """The answer as it is handed out, where its last token ends it."""
        ids = answer.input_ids
        by_token = ids[-1] in self.stops.ids
        text = None if by_token else self.stops.text_before(ids)
        if not by_token and text is None and len(ids) < answer.limit:
            return None
        kept = ids[:-1] if by_token else ids
        if text is None and self.stops.tokenizer is not None:
            stopped, text = by_token, self.stops.tokenizer.decode(kept)
        else:
            stopped = by_token or text is not None
        return Generation(tuple(kept), stopped, tuple(answer.logprobs), tuple(answer.drawn), text)


def no_numbers(where: str, found: str) -> ModelError:
    """The error for a model that expects nothing that is a number."""
    what = "how likely the model finds the next token is not a number, so what it answers says nothing"
    fix = "use weights that are finite; where float16 overflows, float32 or bfloat16"
    return ModelError(Problem("model/bad-weights", what, where, found, fix=fix))


def room(forward: Forward, prompt: Sequence[int], limit: int) -> int:
    """How many tokens may follow the prompt: `limit`, or as many as the model has positions for.

    Raises:
        DataError: data/bad-row, for a prompt that is longer than that.
    """
    (one,) = rooms(forward, [prompt], ["the prompt"], limit)
    return one


def rooms(forward: Forward, prompts: Sequence[Sequence[int]], rows: Sequence[object], limit: int) -> list[int]:
    """The same for each of several prompts, with their names."""
    positions = getattr(base_of(forward.model).config.get_text_config(), "max_position_embeddings", None)
    if positions is None:
        return [limit] * len(prompts)
    problems = [
        Problem(
            "data/bad-row",
            "a prompt is longer than the model has positions for, so it cannot be answered",
            where=str(row),
            found=f"{len(prompt):,} tokens, {positions:,} positions",
            fix="shorten the prompt, or leave the row out",
        )
        for row, prompt in zip(rows, prompts, strict=True)
        if len(prompt) > positions
    ]
    if problems:
        raise DataError(*problems)
    # The last token is written and never read, so it needs no position.
    return [min(limit, positions - len(prompt) + 1) for prompt in prompts]
