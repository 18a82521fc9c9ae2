"""Answers to many prompts at once, without padding; a finished row makes room for the next prompt.

Prompts are computed as flat rows, as in training, as many together as a budget of tokens allows; then each decoding
step computes one token for every row in flight. Several answers to one prompt go on from the one time that it was
computed. A model that cannot run that way answers one prompt at a time through `transformers`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.data.encode.tokenizer import Tokenizer
from tutelage.generate.alone import write_alone
from tutelage.generate.cache import SlotCache
from tutelage.generate.continuation import Continuation
from tutelage.generate.generation import Generation, Progress
from tutelage.generate.prompts import lay_out
from tutelage.generate.sampling import GREEDY, Sampling
from tutelage.generate.stops import Stops
from tutelage.generate.work import Draft, Work, Written, room, rooms
from tutelage.models.forward import Forward

__all__ = ["CACHE_TOKENS", "IN_FLIGHT", "TOKEN_BUDGET", "Answer", "generate", "room", "stream"]

Answer = Generation
"""What a model answered, as the evaluation calls it."""

IN_FLIGHT = 64
"""Answers written at once."""
TOKEN_BUDGET = 4096
"""Tokens of prompts computed at once; a longer prompt is computed alone."""
CACHE_TOKENS = 1 << 16
"""Tokens whose keys and values are held at once; where prompts are long, fewer answers are in flight."""


@torch.no_grad()
def generate(
    forward: Forward,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Collection[int],
    max_new_tokens: int,
    stop: Sequence[str] = (),
    tokenizer: Tokenizer | None = None,
    sampling: Sampling = GREEDY,
    rows: Sequence[object] | None = None,
    in_flight: int = IN_FLIGHT,
    token_budget: int = TOKEN_BUDGET,
    cache_tokens: int = CACHE_TOKENS,
    progress: Progress = lambda answers: None,
    written: Written = lambda prompt, sample, token: None,
) -> list[Generation]:
    """`sampling.samples` answers to each prompt: all of the first, then all of the second.

    `rows` names the prompts (by default they are numbered): random draws depend on these names, so that a prompt is
    answered alike in any company and order. Stop strings need the tokenizer; with it, answers hold their text.

    Raises:
        DataError: data/bad-row, for a prompt without a token, or longer than the model's positions.
        RecipeError: recipe/bad-value, for a stop string. ModelError: model/bad-weights, for logits that are no numbers.
    """
    forward.model.eval()
    names = range(len(prompts)) if rows is None else rows
    limits = rooms(forward, prompts, [f"prompt {name}" for name in names], max_new_tokens)
    stops = Stops.of(stop_ids, stop, None if tokenizer is None else Continuation(tokenizer))
    work = Work(prompts, names, limits, sampling, stops, written)
    done: list[Generation | None] = [None] * (len(prompts) * sampling.samples)
    for answer, generation in _answers(forward, work, in_flight, token_budget, cache_tokens):
        done[answer.prompt * sampling.samples + answer.sample] = generation
        progress(1)
    return [generation for generation in done if generation is not None]


@torch.no_grad()
def stream(
    forward: Forward,
    prompt: Sequence[int],
    *,
    stop_ids: Collection[int],
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
) -> Iterator[int]:
    """The answer to one prompt, token by token, the stop token left out."""
    forward.model.eval()
    limits = [room(forward, prompt, max_new_tokens)]
    work = Work([prompt], [0], limits, sampling, Stops.of(stop_ids), lambda prompt, sample, token: None)
    if not forward.packed:
        yield from write_alone(forward, work, 0, 0).input_ids
        return
    flight = _Flight(forward, work, [0], 1, limits[0] + len(prompt), TOKEN_BUDGET)
    told = 0
    for answer, generation in flight.steps():
        ids = answer.input_ids if generation is None else generation.input_ids
        yield from ids[told:]
        told = len(ids)


def _answers(
    forward: Forward, work: Work, in_flight: int, token_budget: int, cache_tokens: int
) -> Iterator[tuple[Draft, Generation]]:
    """Every answer once, as it is finished."""
    # Longest first: the last rows in flight are short ones, and what is left waits for few.
    waiting = sorted(range(len(work.prompts)), key=lambda i: len(work.prompts[i]) + work.limits[i])
    if not forward.packed:
        for prompt in reversed(waiting):
            for sample in range(work.sampling.samples):
                yield work.begin(prompt, sample), write_alone(forward, work, prompt, sample)
        return
    while waiting:
        capacity = len(work.prompts[waiting[-1]]) + work.limits[waiting[-1]]
        wanted = min(in_flight, len(waiting) * work.sampling.samples)
        slots = min(wanted, max(1, cache_tokens // capacity))
        some = waiting
        if slots < wanted:
            # The longest prompts keep the others from flying together, so prompts half as long come later.
            some = [i for i in waiting if 2 * (len(work.prompts[i]) + work.limits[i]) > capacity]
        waiting = waiting[: len(waiting) - len(some)]
        flight = _Flight(forward, work, some, slots, capacity, token_budget)
        yield from ((answer, generation) for answer, generation in flight.steps() if generation is not None)


@dataclass(slots=True, eq=False)
class _Prompt:
    """A prompt whose keys and values are in the slots of its answers."""

    index: int
    logits: Tensor | None
    """Of the token that follows it, (vocabulary,); None once each of its answers has begun."""
    begun: int = 0
    """How many of its answers are being written, or are written."""


class _Flight:
    """Answers in flight; the answer number i of `active` has slot i."""

    def __init__(
        self, forward: Forward, work: Work, waiting: Sequence[int], slots: int, capacity: int, token_budget: int
    ) -> None:
        self.forward, self.work, self.token_budget = forward, work, token_budget
        self.cache = SlotCache(slots, capacity)
        self.waiting = list(waiting)
        self.active: list[tuple[_Prompt, Draft]] = []

    def steps(self) -> Iterator[tuple[Draft, Generation | None]]:
        """After each token of an answer that answer, and what it came to where this was the last one."""
        while self._fill():
            begun = [i for i, (_, answer) in enumerate(self.active) if not answer.input_ids]
            if begun:
                prompts = [self.active[i][0] for i in begun]
                logits = torch.stack([prompt.logits for prompt in prompts if prompt.logits is not None])
                self.work.continue_with(logits, [self.active[i][1] for i in begun])
                for prompt in prompts:
                    if prompt.begun == self.work.sampling.samples:
                        prompt.logits = None
                yield from self._land(begun)
            else:
                self.work.continue_with(self._step(), [answer for _, answer in self.active])
                yield from self._land(range(len(self.active)))

    def _fill(self) -> bool:
        """Use the free slots: for answers to prompts that are there, then for new prompts; whether any is used."""
        free = self.cache.slots - len(self.active)
        samples = self.work.sampling.samples
        for slot, (prompt, _) in enumerate(list(self.active)):
            while free and prompt.begun < samples:
                self._begin(prompt, slot)
                free -= 1
        budget = self.token_budget
        chosen: list[int] = []
        while self.waiting and free > 0 and (not chosen or len(self.work.prompts[self.waiting[-1]]) <= budget):
            chosen.append(self.waiting.pop())
            budget -= len(self.work.prompts[chosen[-1]])
            free -= samples
        if chosen:
            self._admit(chosen)
        return bool(self.active)

    def _admit(self, chosen: list[int]) -> None:
        """Compute the prompts, each into a slot of its own."""
        row = lay_out(self.forward, [self.work.prompts[index] for index in chosen])
        first = len(self.active)
        self.cache.admit(row.layout, row.paths, range(first, first + len(chosen)))
        hidden = self.forward.hidden(row.input_ids, row.position_ids, cache=self.cache)
        logits = self._logits(hidden[torch.stack([path[-1] for path in row.paths])])
        for index, last in zip(chosen, logits, strict=True):
            self.active.append((_Prompt(index, last, begun=1), self.work.begin(index, 0)))

    def _begin(self, prompt: _Prompt, slot: int) -> None:
        """Begin the prompt's next answer, in a free slot, from another one that its keys and values are in."""
        target = len(self.active)
        self.cache.copy(slot, target, len(self.work.prompts[prompt.index]))
        self.active.append((prompt, self.work.begin(prompt.index, prompt.begun)))
        prompt.begun += 1

    def _step(self) -> Tensor:
        """Logits of one more token for each answer in flight."""
        device = self.forward.device
        lengths = self.cache.lengths[: len(self.active)]
        self.cache.advance(len(self.active), device)
        last = torch.tensor([answer.input_ids[-1] for _, answer in self.active], device=device)
        return self._logits(self.forward.hidden(last, torch.tensor(lengths, device=device), cache=self.cache))

    def _logits(self, hidden: Tensor) -> Tensor:
        assert self.forward.head is not None
        return self.forward.head.logits(hidden)

    def _land(self, slots: Sequence[int]) -> Iterator[tuple[Draft, Generation | None]]:
        """Tell of the answers in these slots, and take out the finished ones."""
        for slot in reversed(slots):
            prompt, answer = self.active[slot]
            generation = self.work.finished(answer)
            yield answer, generation
            if generation is None:
                continue
            if prompt.begun < self.work.sampling.samples:
                # The prompt is still in the slot, so the next answer begins there.
                self.active[slot] = prompt, self.work.begin(prompt.index, prompt.begun)
                self.cache.lengths[slot] = len(self.work.prompts[prompt.index])
                prompt.begun += 1
                continue
            last = self.active.pop()
            if slot < len(self.active):
                self.cache.copy(len(self.active), slot)
                self.active[slot] = last
