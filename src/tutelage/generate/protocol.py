"""OpenAI's protocol: requests as objects, and answers read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.errors import MachineError, Problem, RecipeError
from tutelage.generate.generation import Generation, Likelihood, Prompt
from tutelage.generate.sampling import Sampling
from tutelage.seeds import derive
from tutelage.types import Message

CUT_OFF = ("length", "max_tokens", "max_length", "model_length", "content_filter")
"""What servers call it when an answer did not stop by itself; for stopping, each has words of its own."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How requests are made."""

    model: str
    chat: bool
    logprobs: bool
    extra: dict[str, Any]

    @property
    def path(self) -> str:
        """What follows the endpoint's address."""
        return "/chat/completions" if self.chat else "/completions"

    def request(
        self, prompt: Prompt, place: int, sample: int, sampling: Sampling, max_new_tokens: int, stop: Sequence[str]
    ) -> dict[str, Any]:
        """A request for one answer. Several samples are several requests: not every server takes `n`."""
        body: dict[str, Any] = {"model": self.model, **self._asked(prompt), "max_tokens": max_new_tokens}
        body["temperature"] = sampling.temperature
        # Only what differs from the default is named, because not every server knows it all.
        if sampling.temperature > 0:
            body["seed"] = derive(sampling.seed, f"endpoint/{prompt.row or place}", sample) & 0x7FFFFFFF
            body |= {"top_p": sampling.top_p} if sampling.top_p < 1 else {}
            body |= {"top_k": sampling.top_k} if sampling.top_k else {}
            body |= {"min_p": sampling.min_p} if sampling.min_p else {}
        if stop:
            body["stop"] = list(stop)
        if self.logprobs:
            body["logprobs"] = True if self.chat else 0
        return {name: value for name, value in {**body, **self.extra}.items() if value is not None}

    def scoring(self, prompt: Prompt, continuation: Sequence[int]) -> dict[str, Any]:
        """A request for the log-probabilities of a prompt and what follows it; the one token written is not used."""
        content = prompt.content
        ids = [] if isinstance(content, str) else [part for part in content if isinstance(part, int)]
        if not ids:
            what = "a likelihood is asked of an endpoint for token ids alone"
            raise RecipeError(Problem("recipe/bad-value", what, where=prompt.row, fix="encode the prompt first"))
        body: dict[str, Any] = {"model": self.model, "prompt": [*ids, *continuation], "max_tokens": 1}
        body |= {"temperature": 0, "echo": True, "logprobs": 1}
        return {name: value for name, value in {**body, **self.extra}.items() if value is not None}

    def _asked(self, prompt: Prompt) -> dict[str, Any]:
        content = prompt.content
        messages = [] if isinstance(content, str) else [part for part in content if isinstance(part, Message)]
        if self.chat and isinstance(content, str):
            return {"messages": [{"role": "user", "content": content}]}
        if self.chat and messages:
            return {"messages": [_message(message) for message in messages]}
        if not self.chat and not messages:
            return {"prompt": content if isinstance(content, str) else list(content)}
        held = "messages, and this endpoint continues text" if messages else "token ids, and this endpoint takes chats"
        fix = "set `chat`" if messages else "ask with messages or text, or switch `chat` off"
        raise RecipeError(Problem("recipe/conflict", f"a prompt holds {held}", where=prompt.row, fix=fix))


def generation(answer: dict[str, Any], *, chat: bool) -> Generation:
    """The answer that a server gave; what is missing in it raises KeyError and the like."""
    choice = answer["choices"][0]
    reason = choice["finish_reason"]
    text = choice["message"]["content"] if chat else choice["text"]
    if not isinstance(text, str | None) or not isinstance(reason, str):
        raise TypeError(f"text is {type(text).__name__}, finish_reason is {type(reason).__name__}")
    told = choice.get("logprobs") or {}
    logprobs = [one["logprob"] for one in told.get("content") or ()] if chat else told.get("token_logprobs") or ()
    problem = None
    if reason == "content_filter":
        problem = Problem("machine/endpoint-refused", "the endpoint's filter withheld the answer")
    stopped = reason.lower() not in CUT_OFF
    return Generation((), stopped, tuple(float(one) for one in logprobs), text=text or "", problem=problem)


def scored(answer: dict[str, Any], tokens: int, last: int, where: str) -> Likelihood:
    """How likely the last tokens of a repeated prompt of so many tokens are.

    Raises:
        MachineError: machine/endpoint-answer, when the prompt was not repeated.
    """
    try:
        told = answer["choices"][0]["logprobs"]["token_logprobs"][:tokens]
        logprobs = tuple(float(one) for one in told[tokens - last :])
    except (KeyError, IndexError, TypeError, ValueError):
        logprobs = ()
    if len(logprobs) != last or not last:
        what = "the endpoint does not tell how likely a prompt's tokens are"
        fix = "serve the model with vLLM, which does, or measure likelihoods in this process"
        raise MachineError(Problem("machine/endpoint-answer", what, where=where, fix=fix))
    return Likelihood(logprobs)


def _message(message: Message) -> dict[str, Any]:
    known = {"tool_calls": [dict(call) for call in message.tool_calls] or None, "name": message.name}
    known["tool_call_id"] = message.tool_call_id
    return {"role": message.role, "content": message.content} | {k: v for k, v in known.items() if v is not None}
