"""Greedy answers to many prompts at once, without padding; a finished row makes room for the next prompt.

Prompts are computed as flat rows, as in training; then each decoding step computes one token for every row in
flight. A model that cannot run that way answers one prompt at a time through `transformers`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.generate.cache import SlotCache
from tutelage.models.adapters import base_of
from tutelage.models.forward import Forward

IN_FLIGHT = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model wrote after a prompt, the stop token left out."""

    input_ids: tuple[int, ...]
    stopped: bool
    """Whether it stopped by itself, before the limit."""


@dataclass(slots=True)
class _Row:
    index: int
    ids: list[int]
    limit: int


def generate(
    forward: Forward,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Collection[int],
    max_new_tokens: int,
    in_flight: int = IN_FLIGHT,
    progress: Callable[[int], None] = lambda answers: None,
) -> list[Answer]:
    """The greedy answer to each prompt."""
    answers: list[Answer | None] = [None] * len(prompts)
    for index, answer in _answers(forward, prompts, frozenset(stop_ids), max_new_tokens, in_flight):
        answers[index] = answer
        progress(1)
    return [answer for answer in answers if answer is not None]


def room(forward: Forward, prompt: Sequence[int], limit: int) -> int:
    """How many tokens may follow the prompt: `limit`, or as many as the model has positions for."""
    positions = getattr(base_of(forward.model).config.get_text_config(), "max_position_embeddings", None)
    return limit if positions is None else max(1, min(limit, positions - len(prompt) + 1))


@torch.no_grad()
def stream(forward: Forward, prompt: Sequence[int], *, stop_ids: Collection[int], max_new_tokens: int) -> Iterator[int]:
    """The greedy answer to one prompt, token by token, the stop token left out."""
    forward.model.eval()
    max_new_tokens = room(forward, prompt, max_new_tokens)
    if not forward.packed:
        yield from _by_model(forward, prompt, stop_ids, max_new_tokens)[0]
        return
    cache = SlotCache(1, len(prompt) + max_new_tokens, forward.backends)
    token = _admit(forward, cache, [prompt], [0])[0]
    for left in reversed(range(max_new_tokens)):
        if token in stop_ids:
            return
        yield token
        if left:
            token = _step(forward, cache, [token])[0]


@torch.no_grad()
def _answers(
    forward: Forward, prompts: Sequence[Sequence[int]], stop_ids: frozenset[int], limit: int, in_flight: int
) -> Iterator[tuple[int, Answer]]:
    forward.model.eval()
    # Longest first: the last rows in flight are short ones, and what is left waits for few.
    waiting = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    if not forward.packed:
        for index in waiting:
            ids, stopped = _by_model(forward, prompts[index], stop_ids, room(forward, prompts[index], limit))
            yield index, Answer(tuple(ids), stopped)
        return
    if not prompts:
        return
    slots = min(in_flight, len(prompts))
    cache = SlotCache(slots, max(map(len, prompts)) + limit, forward.backends)
    active: list[_Row] = []
    while waiting or active:
        new = [waiting.pop() for _ in range(min(len(waiting), slots - len(active)))]
        if new:
            first = _admit(forward, cache, [prompts[i] for i in new], range(len(active), len(active) + len(new)))
            active += [
                _Row(index, [token], room(forward, prompts[index], limit))
                for index, token in zip(new, first, strict=True)
            ]
        yield from _retire(active, cache, stop_ids)
        if active and (len(active) == slots or not waiting):
            tokens = _step(forward, cache, [row.ids[-1] for row in active])
            for row, token in zip(active, tokens, strict=True):
                row.ids.append(token)


def _retire(active: list[_Row], cache: SlotCache, stop_ids: frozenset[int]) -> Iterator[tuple[int, Answer]]:
    """Take finished rows out, the last row moving into each freed slot."""
    slot = 0
    while slot < len(active):
        row = active[slot]
        stopped = row.ids[-1] in stop_ids
        if not stopped and len(row.ids) < row.limit:
            slot += 1
            continue
        yield row.index, Answer(tuple(row.ids[:-1] if stopped else row.ids), stopped)
        last = active.pop()
        if slot < len(active):
            cache.move(len(active), slot)
            active[slot] = last


def _admit(forward: Forward, cache: SlotCache, prompts: Sequence[Sequence[int]], slots: Sequence[int]) -> list[int]:
    """Compute the prompts into their slots; the first token of each answer."""
    lengths = [len(prompt) for prompt in prompts]
    cache.admit(lengths, slots)
    device = forward.device
    ids = torch.tensor([id for prompt in prompts for id in prompt], device=device)
    positions = torch.cat([torch.arange(n, device=device) for n in lengths])
    hidden = forward.hidden(ids, positions, cache=cache)
    ends = torch.tensor(lengths, device=device).cumsum(0) - 1
    return _choose(forward, hidden[ends])


def _step(forward: Forward, cache: SlotCache, tokens: Sequence[int]) -> list[int]:
    """One more token for each row in flight."""
    positions = torch.tensor(cache.lengths[: len(tokens)], device=forward.device)
    cache.advance(len(tokens), forward.device)
    hidden = forward.hidden(torch.tensor(tokens, device=forward.device), positions, cache=cache)
    return _choose(forward, hidden)


def _choose(forward: Forward, hidden: Tensor) -> list[int]:
    assert forward.head is not None
    return forward.head.logits(hidden).argmax(-1).tolist()


def _by_model(forward: Forward, prompt: Sequence[int], stop_ids: Collection[int], limit: int) -> tuple[list[int], bool]:
    model = base_of(forward.model)
    output = model.generate(
        torch.tensor([list(prompt)], device=forward.device),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=sorted(stop_ids) or None,
        pad_token_id=min(stop_ids, default=0),
        use_cache=True,
    )
    ids = output[0, len(prompt) :].tolist()
    stopped = bool(ids) and ids[-1] in stop_ids
    return (ids[:-1] if stopped else ids), stopped
