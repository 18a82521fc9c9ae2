"""The same task in other wordings: a score that hangs on a colon says little about a model.

What is varied is what does not change the meaning (Sclar et al. 2023, arXiv:2310.11324): the case of the labels, what
stands between a label and its text, the space between parts, labels where there are none, and a sentence that says
what to do, before or after the question. Which of the many come first is decided by a hash.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tutelage.errors import Problem, RecipeError
from tutelage.tasks.task import Task, Turn

_LABEL = re.compile(r"(?m)^([A-Z]\w*(?: \w+){0,2}):( |$)")
_BEFORE, _AFTER = "Answer the following question.", "Answer the question above."
_CASES, _SEPARATORS = ("own", "upper", "lower"), (": ", ":\n", " - ", " :: ")
_FIXED = ("ifeval", "code")
"""Scorers of tasks whose wording is what is asked: what is added to it would be one more instruction, or code."""


@dataclass(frozen=True, slots=True)
class _Change:
    """One choice of everything that is varied."""

    case: str
    separator: str
    spaced: bool
    """Whether an empty line stands between the parts."""
    instruction: str
    labelled: bool
    """Whether labels are added where there are none."""

    def applied(self, prompt: str) -> str:
        """The prompt in these words."""
        if self.labelled and not _LABEL.search(prompt):
            prompt = f"Question: {prompt}\nAnswer:"
        if self.spaced:
            prompt = re.sub(r"\n+", "\n\n", prompt)
        cue = prompt.rpartition("\n")[2]
        cue = cue if _LABEL.fullmatch(cue) else ""
        if self.instruction == "before":
            prompt = f"{_BEFORE}\n\n{prompt}"
        elif self.instruction == "after":
            prompt = f"{prompt.removesuffix(cue).rstrip()}\n\n{_AFTER}" + (f"\n\n{cue}" if cue else "")
        return self.relabelled(prompt)

    def relabelled(self, text: str) -> str:
        """A text with its labels in these words."""
        return _LABEL.sub(lambda label: self._cased(label[1]) + self.separator[: None if label[2] else -1], text)

    def stop(self, text: str, labels: set[str]) -> str:
        """A text that ends an answer, which may be one of the prompt's labels."""
        for label in labels:
            text = re.sub(rf"(?m)^{re.escape(label)}$", self._cased(label), text)
        return self.relabelled(text)

    def _cased(self, name: str) -> str:
        return {"upper": name.upper(), "lower": name.lower()}.get(self.case, name)


def formats(task: Task, count: int) -> list[Task]:
    """The task, and then the same in other wordings, as many as `count` in all: first those that it lists itself.

    Raises:
        RecipeError: recipe/conflict, where its wording cannot be changed; recipe/bad-value, where it has fewer.
    """
    made = [task, *(_reworded(task, words, None) for words in task.formats)][:count]
    if len(made) == count:
        return made
    if task.scorer.kind in _FIXED:
        what = f"the wording of `{task.name}` is a part of what is asked, so it is not varied"
        fix = "list wordings of your own in the task, as `formats: [...]`, or leave the task out"
        raise RecipeError(Problem("recipe/conflict", what, fix=fix))
    for change in _changes(task):
        other = _reworded(task, change.applied(task.turns[-1].content), change)
        if all(other.turns != known.turns for known in made):
            made.append(other)
        if len(made) == count:
            return made
    what, fix = f"`{task.name}` has {len(made)} wordings", "ask for fewer, or list more in the task as `formats: [...]`"
    raise RecipeError(Problem("recipe/bad-value", what, found=f"formats {count}", fix=fix))


def _changes(task: Task) -> Iterator[_Change]:
    """All of them, in the order of a hash that depends on the task's seed."""
    every = itertools.product(_CASES, _SEPARATORS, (False, True), ("none", "before", "after"), (False, True))
    changes = [_Change(*choice) for choice in every]
    return iter(sorted(changes, key=lambda change: hashlib.sha256(f"{task.seed}/{change}".encode()).digest()))


def _reworded(task: Task, words: str, change: _Change | None) -> Task:
    last = Turn(role="user", content=words)
    turns = (*task.turns[:-1], last)
    labels = {label[1] for turn in task.turns for label in _LABEL.finditer(turn.content)}
    update: dict[str, Any] = {"messages": turns} if task.messages else {"prompt": words}
    if change is not None:
        update["stop"] = tuple(change.stop(text, labels) for text in task.stop)
        update["stop_plain"] = tuple(change.stop(text, labels) for text in task.stop_plain)
    return task.model_copy(update=update)
