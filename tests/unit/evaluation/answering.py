"""A model that is none: its answers follow from the prompts, and it notes what it was asked."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.evaluation import Errand, crew, evaluate
from tutelage.evaluation.subject import Saved
from tutelage.generate.generation import Generation, Likelihood, Prompt
from tutelage.generate.sampling import GREEDY, Sampling
from tutelage.tasks import Asked, Task
from tutelage.tasks.errand import errand

QUESTIONS = [{"q": f"What comes after number {n}?", "a": str(n + 1)} for n in range(24)]


def task(data: Path | str, **options: Any) -> Task:
    """A task of numbers over rows with `q` and `a`."""
    given = {"name": "next", "data": str(data), "prompt": "{q}", "reference": "a", "scorer": {"kind": "number"}}
    return Task.model_validate({**given, **options})


class Scripted:
    """Answers right wherever the hash of the prompt is below `skill`, of 256; a subject and its own writer."""

    def __init__(self, skill: int = 128, *, fails: int | None = None, name: str = "scripted") -> None:
        self.skill, self.name, self.fails = skill, name, fails
        self.asked: list[str] = []

    def settings(self) -> dict[str, Any]:
        return {"skill": self.skill}

    def described(self) -> dict[str, Any]:
        return {"asked_as": "chat"}

    def usage(self) -> dict[str, int]:
        return {}

    def writer(self) -> Scripted:
        return self

    def prompt(self, asked: Asked, name: str) -> Prompt:
        return Prompt(asked.messages, row=name)

    def continuations(self, asked: Asked) -> list[tuple[int, ...]]:
        return [tuple(option.encode()) for option in asked.options]

    def write(self, prompts: Sequence[Prompt], sampling: Sampling, **options: Any) -> list[Generation]:
        """One answer for each sample; a process that is killed after `fails` prompts is one that never returns."""
        if self.fails is not None and len(self.asked) + len(prompts) > self.fails:
            raise KeyboardInterrupt
        self.asked += [prompt.row for prompt in prompts]
        options["progress"](len(prompts))
        return [self._answer(prompt, sample) for prompt in prompts for sample in range(sampling.samples)]

    def likelihoods(self, prompts: Sequence[Prompt], options: Any, **more: Any) -> list[list[Likelihood]]:
        """Longer options are less likely."""
        return [[Likelihood((-1.0,) * len(one)) for one in own] for own in options]

    def _answer(self, prompt: Prompt, sample: int) -> Generation:
        text = prompt.content[-1].content
        number = int(text.removesuffix("?").rsplit(" ", 1)[1])
        right = hashlib.sha256(f"{text}/{sample}".encode()).digest()[0] < self.skill
        answer = f"It is {number + (1 if right else 7)}."
        ids = tuple(answer.encode())
        return Generation(ids, True, (-0.5,) * (len(ids) + 1), text=answer)


def asked(data: Path, skill: int, folder: Path, sampling: Sampling = GREEDY, **options: Any) -> dict[str, Any]:
    """The summary of an evaluation by such a model."""
    own: Errand = errand(task(data, **options))
    (summary,) = evaluate(Scripted(skill), [own], folder, sampling)
    return summary


class Leisurely(Saved):
    """A real model that takes its time, in portions of four rows; also in a process that it was sent to."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        crew.FIRST, crew.QUICK = 4, 0.0
        self.__dict__.update(state)

    def prompt(self, asked: Asked, name: str) -> Prompt:
        time.sleep(0.1)
        return super().prompt(asked, name)
