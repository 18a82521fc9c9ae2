"""Any endpoint that speaks OpenAI's protocol (vLLM, llama.cpp's server, `transformers serve`, a hosted model)."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

from tutelage.errors import MachineError, Problem, SecurityError
from tutelage.generate.exchange import PATIENT, Exchange, Failed, Patience, refuse_address
from tutelage.generate.generation import Generation, Likelihood, Progress, Prompt
from tutelage.generate.kept import Kept, request_key
from tutelage.generate.protocol import Protocol, generation, scored
from tutelage.generate.sampling import Sampling

Result = TypeVar("Result")

UNREADABLE = (KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What reading an answer raises that is not made as the protocol says."""


@dataclass(slots=True)
class Usage:
    """What was asked of an endpoint so far, as it counts."""

    requests: int = 0
    """Answered ones."""
    retries: int = 0
    reused: int = 0
    """Answers that were there from before, and cost nothing."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    untold: int = 0
    """Answers that did not say how many tokens they took."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is served, and how it is asked; it writes answers like a model in this process."""

    url: str
    """Up to the part before `/chat/completions`, as in http://127.0.0.1:8000/v1."""
    model: str
    chat: bool = True
    """Conversations, rendered by the server; otherwise text or token ids are continued."""
    key: str | None = None
    """The name of the environment variable that holds the key; the key itself is never given."""
    concurrency: int = 8
    patience: Patience = PATIENT
    answers: str | Path | None = None
    """A file that keeps the answers, so that a second run asks only for what is missing."""
    logprobs: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields added to each request, or taken out of it where they are None."""
    usage: Usage = field(default_factory=Usage, compare=False)

    def __post_init__(self) -> None:
        """Refuse an address that is none, and a key where it would be seen.

        Raises:
            RecipeError: recipe/bad-value. SecurityError: security/secret, security/key-in-clear.
        """
        refuse_address(self.url, key=self.key is not None)
        named = self.key is None or (len(self.key) <= 64 and re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", self.key))
        if not named:
            what = "the endpoint's key must be the name of an environment variable, in capitals, and looks like a key"
            fix = "put the key into a variable, for example OPENAI_API_KEY, and give the variable's name"
            raise SecurityError(Problem("security/secret", what, where=self.url, fix=fix))

    def write(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        progress: Progress = lambda answers: None,
    ) -> list[Generation]:
        """`sampling.samples` answers to each prompt; one that failed for good holds its problem.

        Raises:
            MachineError: machine/endpoint-failed, machine/endpoint-refused or machine/endpoint-answer, when not one
                request was answered; machine/no-key; machine/missing-package.
        """
        protocol = self._protocol()
        requests = [
            protocol.request(prompt, place, sample, sampling, max_new_tokens, stop)
            for place, prompt in enumerate(prompts)
            for sample in range(sampling.samples)
        ]
        problems: dict[int, Problem] = {}
        found = self._ask(
            protocol.path, requests, lambda answer: generation(answer, chat=self.chat), problems, progress
        )
        return [
            found[number] if number in found else Generation((), False, problem=problems[number])
            for number in range(len(requests))
        ]

    def likelihoods(
        self,
        prompts: Sequence[Prompt],
        continuations: Sequence[Sequence[tuple[int, ...]]],
        *,
        progress: Progress = lambda prompts: None,
    ) -> list[list[Likelihood]]:
        """How likely each continuation of each prompt is, where the endpoint repeats the prompt with probabilities.

        The prompts must be token ids. `progress` is told of each continuation.

        Raises:
            MachineError: as for `write`, and where a single request fails for good.
        """
        protocol = replace(self._protocol(), chat=False)
        asked = [
            (protocol.scoring(prompt, option), row, len(option))
            for row, (prompt, options) in enumerate(zip(prompts, continuations, strict=True))
            for option in options
        ]
        problems: dict[int, Problem] = {}
        bodies = [body for body, _, _ in asked]
        told = self._ask(protocol.path, bodies, lambda answer: answer, problems, progress)
        if problems:
            raise MachineError(*dict.fromkeys(problems.values()))
        result: list[list[Likelihood]] = [[] for _ in prompts]
        for number, (body, row, length) in enumerate(asked):
            result[row].append(scored(told[number], len(body["prompt"]), length, self.url + protocol.path))
        return result

    def _protocol(self) -> Protocol:
        return Protocol(self.model, self.chat, self.logprobs, dict(self.extra))

    def _ask(
        self,
        path: str,
        bodies: Sequence[dict[str, Any]],
        read: Callable[[dict[str, Any]], Result],
        problems: dict[int, Problem],
        progress: Progress,
    ) -> dict[int, Result]:
        """What each request was answered, read; why not, in `problems`."""
        kept = Kept(self.answers)
        keys = [request_key(self.url, path, body) for body in bodies]
        found: dict[int, Result] = {}
        for number, key in enumerate(keys):
            known = kept.get(key)
            with contextlib.suppress(*UNREADABLE):
                if known is not None:
                    found[number] = read(known)
        self.usage.reused += len(found)
        progress(len(found))
        missing = [number for number in range(len(bodies)) if number not in found]
        if not missing:
            return found
        counting = Lock()
        with self._connected() as exchange:

            def ask(number: int) -> Result:
                answer = exchange.post(path, bodies[number])
                try:
                    result = read(answer)
                except UNREADABLE as error:
                    what = "the endpoint's answer does not have the parts that its protocol names"
                    told = f"{type(error).__name__}: {error}"
                    problem = Problem("machine/endpoint-answer", what, where=self.url + path, found=told)
                    raise Failed(problem) from None
                kept.put(keys[number], answer)
                with counting:
                    _count(self.usage, answer)
                return result

            _all(ask, missing, exchange, found, problems, self, progress)
        if problems and not found:
            raise MachineError(*dict.fromkeys(problems.values()))
        return found

    @contextmanager
    def _connected(self) -> Iterator[Exchange]:
        key = None
        if self.key is not None:
            key = os.environ.get(self.key, "").strip()
            if not key:
                what = "the environment variable that should hold the endpoint's key is not set"
                raise MachineError(
                    Problem("machine/no-key", what, where=self.url, found=self.key, fix=f"export {self.key}=…")
                )
        exchange = Exchange(self.url, key, self.patience, connections=self.concurrency)
        try:
            yield exchange
        finally:
            self.usage.retries += exchange.retries
            exchange.close()


def _all(
    ask: Callable[[int], Result],
    numbers: Sequence[int],
    exchange: Exchange,
    found: dict[int, Result],
    problems: dict[int, Problem],
    endpoint: Endpoint,
    progress: Progress,
) -> None:
    """Ask for all, some at a time; once one fails as all would, the rest are not asked for."""
    waiting: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[tuple[int, Result | BaseException]] = SimpleQueue()
    for number in numbers:
        waiting.put(number)

    def work() -> None:
        while not exchange.stopped.is_set():
            try:
                number = waiting.get_nowait()
            except Empty:
                return
            try:
                done.put((number, ask(number)))
            except BaseException as error:
                done.put((number, error))

    # Threads that a stopped command does not wait for, as it would for those of a pool.
    threads = [
        Thread(target=work, name="endpoint", daemon=True) for _ in range(min(endpoint.concurrency, len(numbers)))
    ]
    for thread in threads:
        thread.start()
    broken = 0
    try:
        for _ in numbers:
            number, result = done.get()
            if isinstance(result, BaseException) and not isinstance(result, Failed):
                raise result
            if isinstance(result, Failed):
                problems[number] = result.problem
                # All patience was used up for each of so many in a row: the server is not coming back.
                broken += result.problem.code == "machine/endpoint-failed"
            else:
                found[number], broken = result, 0
            progress(1)
            if isinstance(result, Failed) and (result.everyone or broken >= max(3, endpoint.concurrency)):
                _give_up(result.problem, numbers, exchange, threads, done, found, problems)
                return
    finally:
        exchange.stopped.set()


def _give_up(
    problem: Problem,
    numbers: Sequence[int],
    exchange: Exchange,
    threads: Sequence[Thread],
    done: SimpleQueue[tuple[int, Result | BaseException]],
    found: dict[int, Result],
    problems: dict[int, Problem],
) -> None:
    """Take what is on its way, and give the rest this problem."""
    exchange.stopped.set()
    for thread in threads:
        thread.join()
    while not done.empty():
        number, result = done.get()
        if not isinstance(result, BaseException):
            found[number] = result
    problems.update({number: problem for number in numbers if number not in found and number not in problems})


def _count(usage: Usage, answer: dict[str, Any]) -> None:
    usage.requests += 1
    told = answer.get("usage")
    told = told if isinstance(told, dict) else {}
    prompt, completion = told.get("prompt_tokens"), told.get("completion_tokens")
    if type(prompt) is int and type(completion) is int:
        usage.prompt_tokens += prompt
        usage.completion_tokens += completion
    else:
        usage.untold += 1
