"""How likely a model finds given continuations: a prompt that several of them go on from is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from tutelage.data.batch import pack
from tutelage.errors import DataError, Problem
from tutelage.generate.generation import Likelihood
from tutelage.generate.prompts import example
from tutelage.generate.work import no_numbers
from tutelage.models.forward import Forward

TOKEN_BUDGET = 4096
"""Tokens computed at once, before sharing; the continuations of one prompt stay together even where they are more."""


@torch.no_grad()
def likelihoods(
    forward: Forward,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
    *,
    token_budget: int = TOKEN_BUDGET,
    progress: Callable[[int], None] = lambda prompts: None,
) -> list[list[Likelihood]]:
    """How likely each continuation of each prompt is; `progress` is told how many prompts are done.

    Raises:
        DataError: data/bad-row, for a prompt or a continuation without a token.
        ModelError: model/bad-weights, where what the model says of one is not a number.
    """
    _refuse_empty(prompts, continuations)
    forward.model.eval()
    found: list[list[Likelihood]] = [[] for _ in prompts]
    for group in _groups(prompts, continuations, token_budget):
        options = [(row, option) for row in group for option in continuations[row]]
        if options:
            rows = [example([*prompts[row], *option], len(prompts[row])) for row, option in options]
            batch = pack(rows, share=forward.share)
            _, nll = forward.nll(batch)
            each = -nll.double().cpu().numpy()[batch.owned]
            ends = np.cumsum([len(option) for _, option in options])[:-1]
            for (row, _), logprobs in zip(options, np.split(each, ends), strict=True):
                if np.isnan(logprobs).any():
                    raise no_numbers(f"prompt {row}", "the log-probability of one of its continuations")
                found[row].append(Likelihood(tuple(logprobs.tolist())))
        progress(len(group))
    return found


def _groups(
    prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]], budget: int
) -> Iterator[list[int]]:
    """Prompts that are computed together; those that begin alike are neighbours, and share that beginning."""
    group: list[int] = []
    left = budget
    for row in sorted(range(len(prompts)), key=lambda row: tuple(prompts[row])):
        tokens = sum(len(prompts[row]) + len(option) for option in continuations[row])
        if group and tokens > left:
            yield group
            group, left = [], budget
        group.append(row)
        left -= tokens
    if group:
        yield group


def _refuse_empty(prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]) -> None:
    problems = [
        Problem(
            "data/bad-row",
            f"a {what} holds no token, so nothing can be said about how likely it is",
            where=f"prompt {row}",
            fix="leave the row out, or begin its prompt with the tokenizer's first token",
        )
        for row, (prompt, options) in enumerate(zip(prompts, continuations, strict=True))
        for what, empty in (("prompt", not len(prompt)), ("continuation", not all(len(option) for option in options)))
        if empty
    ]
    if problems:
        raise DataError(*problems)
