"""What is asked and what comes back, the same for a model in this process, in vLLM, or behind an address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tutelage.errors import Problem
from tutelage.generate.sampling import Sampling
from tutelage.types import Message


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is answered."""

    content: str | tuple[int, ...] | tuple[Message, ...]
    """Plain text that is continued, token ids, or the messages of a conversation."""
    row: str = ""
    """The name of the row: random draws depend on it and not on the prompt's place among others."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model wrote after a prompt, the stop token left out."""

    input_ids: tuple[int, ...]
    """The tokens; with a stop string, those that spell it are the last ones. None where an endpoint tells none."""
    stopped: bool
    """Whether it stopped by itself, before the limit."""
    logprobs: tuple[float, ...] = ()
    """Of each token as the model expects it, in nats, the stop token's last where one was written."""
    drawn: tuple[float, ...] = ()
    """The same in the distribution that it was drawn from: after temperature, top_k, top_p and min_p."""
    text: str | None = None
    """What it reads, without a stop string; None where no tokenizer was given."""
    problem: Problem | None = None
    """Why there is no answer, where a request failed for good."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a given continuation is."""

    logprobs: tuple[float, ...]
    """Of each of its tokens, in nats."""

    @property
    def sum(self) -> float:
        """Of the whole."""
        return sum(self.logprobs)

    @property
    def per_token(self) -> float:
        """The mean over its tokens."""
        return self.sum / len(self.logprobs)

    def per_byte(self, text: str) -> float:
        """The mean over the bytes of its text, which does not depend on how a tokenizer cuts it."""
        return self.sum / len(text.encode())


Progress = Callable[[int], None]
"""Called with how many answers were finished."""


class Writer(Protocol):
    """Writes answers, and tells how likely given ones are."""

    def write(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        progress: Progress = lambda answers: None,
    ) -> list[Generation]:
        """`sampling.samples` answers to each prompt: all of the first, then all of the second."""
        ...

    def likelihoods(
        self,
        prompts: Sequence[Prompt],
        continuations: Sequence[Sequence[tuple[int, ...]]],
        *,
        progress: Progress = lambda prompts: None,
    ) -> list[list[Likelihood]]:
        """How likely each continuation of each prompt is."""
        ...
