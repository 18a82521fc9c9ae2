"""A model in this process as a writer of answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tutelage.data.encode import Encoder
from tutelage.errors import ModelError, Problem
from tutelage.generate.engine import IN_FLIGHT, generate
from tutelage.generate.generation import Generation, Likelihood, Progress, Prompt
from tutelage.generate.likelihood import likelihoods
from tutelage.generate.sampling import Sampling
from tutelage.models.forward import Forward
from tutelage.types import Message


class Local:
    """Answers by our own engine."""

    def __init__(
        self, forward: Forward, encoder: Encoder, *, stop_ids: Collection[int], in_flight: int = IN_FLIGHT
    ) -> None:
        self.forward, self.encoder = forward, encoder
        self.stop_ids, self.in_flight = frozenset(stop_ids), in_flight

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
        return generate(
            self.forward,
            [prompt_ids(prompt, self.encoder) for prompt in prompts],
            stop_ids=self.stop_ids,
            max_new_tokens=max_new_tokens,
            stop=stop,
            tokenizer=self.encoder.tokenizer,
            sampling=sampling,
            rows=names(prompts),
            in_flight=self.in_flight,
            progress=progress,
        )

    def likelihoods(
        self,
        prompts: Sequence[Prompt],
        continuations: Sequence[Sequence[tuple[int, ...]]],
        *,
        progress: Progress = lambda prompts: None,
    ) -> list[list[Likelihood]]:
        """How likely each continuation of each prompt is."""
        ids = [prompt_ids(prompt, self.encoder) for prompt in prompts]
        return likelihoods(self.forward, ids, continuations, progress=progress)


def prompt_ids(prompt: Prompt, encoder: Encoder) -> list[int]:
    """The ids that a server would send to the model for this prompt.

    Raises:
        ModelError: template/missing, for messages to a model without a template.
    """
    content = prompt.content
    if isinstance(content, str):
        return encoder.tokenizer.encode_text(content)
    messages = [part for part in content if isinstance(part, Message)]
    if messages and encoder.template is None:
        what = "a conversation was to be answered, and the tokenizer has no chat template"
        fix = "name one with `model.template`, or ask with plain text"
        raise ModelError(Problem("template/missing", what, where=prompt.row, fix=fix))
    if messages:
        return encoder.prompt_ids(messages)
    return [part for part in content if isinstance(part, int)]


def names(prompts: Sequence[Prompt]) -> list[object]:
    """The rows' names; a prompt without one is named by its place."""
    return [prompt.row or place for place, prompt in enumerate(prompts)]
