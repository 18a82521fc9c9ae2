"""From a task and its rows to what the model is asked, with shots; and the rows whose prompt holds their answer."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.data.sources import read
from tutelage.data.split import normal
from tutelage.errors import DataError, Problem, RecipeError
from tutelage.recipe.data import Rows
from tutelage.scoring.choice import Likelihood
from tutelage.scoring.mark import BadReference, check_texts, texts, written
from tutelage.tasks.task import Task
from tutelage.tasks.wording import BadWording, fill, value
from tutelage.types import Message, Origin, Record

_LONG_ENOUGH = 12
"""Characters from which on an answer of one word counts as standing in a prompt; shorter ones stand in many."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One row as it is asked."""

    origin: Origin
    messages: tuple[Message, ...]
    """The shots, each a prompt and its answer, and the row's own prompt."""
    reference: Any
    options: tuple[str, ...]
    """What is compared by likelihood; empty where an answer is generated."""
    cluster: str | None = None
    """What it has in common with rows that are no draws of their own, such as its document."""

    def text(self) -> str:
        """For a model without a chat template: the turns one after the other, each answer right after its prompt."""
        parts: list[str] = []
        for message in self.messages:
            if message.role == "assistant" and parts:
                joint = "" if parts[-1][-1:].isspace() else " "
                parts[-1] += joint + message.content
            else:
                parts.append(message.content)
        return "\n\n".join(parts)


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked, and what is odd about it."""

    asked: tuple[Asked, ...]
    answer_in_prompt: tuple[Origin, ...]
    """Rows whose prompt already holds the answer that is looked for."""

    def note(self) -> str:
        """What to say of rows whose prompt holds their answer; empty where none does."""
        if not self.answer_in_prompt:
            return ""
        shown = ", ".join(map(str, self.answer_in_prompt[:5]))
        more = len(self.answer_in_prompt) - 5
        return (
            f"in {len(self.answer_in_prompt):,} of {len(self.asked):,} rows the prompt holds the reference answer: "
            f"{shown}{f' and {more:,} more' if more > 0 else ''}"
        )


def ask(task: Task, data: str | None = None) -> Asking:
    """What a task asks of the rows in `data`, or of its own.

    Raises:
        RecipeError: recipe/missing-option, when no rows are named.
        DataError: what is wrong with the rows, or data/bad-row where a row lacks a field that the task names, or holds
            nothing there that an answer can be compared with.
    """
    path = data or task.data
    if path is None:
        what = f"the task `{task.name}` names no rows"
        raise RecipeError(Problem("recipe/missing-option", what, fix="add `data: FILE` to it, or name a file"))
    rows = _records(path)
    pool = _records(task.shots_from) if task.shots and task.shots_from else rows
    return asking(task, rows, pool)


def asking(task: Task, rows: Sequence[Record], pool: Sequence[Record]) -> Asking:
    """What a task asks of these rows, with shots from the pool."""
    problems: list[Problem] = []
    shots = _Shots(task, pool, problems) if task.shots else None
    asked, found = [], []
    for row in _chosen(task, rows):
        try:
            prompt = _prompt(task, row.fields)
            before = shots.before(prompt) if shots else ()
            reference = _reference(task, row.fields)
            options = _options(task, row.fields)
            _check(task, reference, options)
            cluster = written(value(task.cluster, row.fields)) if task.cluster else None
            answers = _answers(task, row.fields, reference)
        except (BadWording, BadReference) as bad:
            what, fix = f"the task `{task.name}` cannot ask this row", "mend the row, or leave it out"
            problems.append(Problem("data/bad-row", what, str(row.origin), str(bad), fix=fix))
            continue
        messages = (*_opening(prompt), *before, *_rest(prompt))
        asked.append(Asked(row.origin, messages, reference, options, cluster))
        if any(stands_in(answer, [message.content for message in messages]) for answer in answers):
            found.append(row.origin)
    if problems:
        raise DataError.of(problems[:10])
    return Asking(tuple(asked), tuple(found))


def stands_in(answer: str, prompt: Iterable[str]) -> bool:
    """Whether a prompt gives the answer away: it holds all its words in order; a short one it must end with."""
    words = normal(answer)
    turns = [f" {normal(text)} " for text in prompt]
    if not words.strip() or not turns:
        return False
    if len(words) >= _LONG_ENOUGH or " " in words:
        return any(f" {words} " in turn for turn in turns)
    return turns[-1].endswith(f" {words} ")


def _records(path: str) -> list[Record]:
    rows = list(read(Rows(path=path)))
    problems = [row for row in rows if isinstance(row, Problem)]
    if problems:
        raise DataError.of(problems[:10])
    return [row for row in rows if isinstance(row, Record)]


def _prompt(task: Task, row: Mapping[str, Any]) -> tuple[Message, ...]:
    return tuple(Message(turn.role, fill(turn.content, row)) for turn in task.turns)


def _opening(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The system message, which stands before the shots."""
    return prompt[:1] if prompt[0].role == "system" else ()


def _rest(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    return prompt[len(_opening(prompt)) :]


def _reference(task: Task, row: Mapping[str, Any]) -> Any:
    if isinstance(task.reference, dict):
        return {name: value(field, row) for name, field in task.reference.items()}
    return None if task.reference is None else value(task.reference, row)


def _options(task: Task, row: Mapping[str, Any]) -> tuple[str, ...]:
    if task.options is None:
        return ()
    found = value(task.options, row)
    if not isinstance(found, list) or None in found:
        raise BadWording(f"`{task.options}` is not a list of options")
    return tuple(map(written, found))


def _check(task: Task, reference: Any, options: Sequence[str]) -> None:
    """Refuse a row that no answer can be right by.

    Raises:
        BadReference: why none can.
    """
    if task.reference is not None and reference is None:
        raise BadReference("the reference is null")
    if isinstance(task.scorer, Likelihood):
        task.scorer.check_options(options, reference)
    else:
        task.scorer.check(reference)


def _answers(task: Task, row: Mapping[str, Any], reference: Any) -> list[str]:
    """The texts that would give the answer away; none where the prompt lists what can be chosen."""
    if task.scorer.kind in ("letter", "likelihood", "ifeval", "pattern"):
        return []
    if task.answer is not None:
        return [fill(task.answer, row)]
    if reference is None or isinstance(task.reference, dict):
        return []
    return texts(reference)


class _Shots:
    """Rows with answers, in the order of a hash: which ones a row gets depends on no other row that is asked."""

    def __init__(self, task: Task, pool: Sequence[Record], problems: list[Problem]) -> None:
        self.task = task
        self.order: list[tuple[int, str, tuple[Message, ...]]] = []
        for row in pool:
            try:
                prompt = _prompt(task, row.fields)
                answer = fill(task.answer, row.fields) if task.answer else _text(_reference(task, row.fields))
            except (BadWording, BadReference) as bad:
                problems.append(Problem("data/bad-row", "a shot cannot be made of this row", str(row.origin), str(bad)))
                continue
            key = _key(prompt)
            self.order.append((_hash(task.seed, key), key, (*_rest(prompt), Message("assistant", answer))))
        self.order.sort(key=lambda shot: (shot[0], shot[1]))

    def before(self, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
        """The shots for a prompt, none of which asks the same, and no two of which do.

        Raises:
            BadWording: there are not as many.
        """
        taken = {_key(prompt)}
        found: list[Message] = []
        start = bisect.bisect(self.order, _hash(self.task.seed + 1, _key(prompt)), key=lambda shot: shot[0])
        for place in range(len(self.order)):
            _, key, messages = self.order[(start + place) % len(self.order)]
            if key not in taken:
                taken.add(key)
                found += messages
                if len(taken) > self.task.shots:
                    return tuple(found)
        raise BadWording(f"there are {len(taken) - 1} other rows, and the task takes {self.task.shots} shots")


def _text(reference: Any) -> str:
    check_texts(reference)
    return texts(reference)[0]


def _key(prompt: tuple[Message, ...]) -> str:
    return "\x1f".join(normal(message.content) for message in prompt)


def _hash(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _chosen(task: Task, rows: Sequence[Record]) -> Sequence[Record]:
    """The rows that are asked, in their own order."""
    if task.rows is None or len(rows) <= task.rows:
        return rows
    keys = [
        (_hash(task.seed, repr(sorted(row.fields.items(), key=lambda item: item[0]))), n) for n, row in enumerate(rows)
    ]
    return [rows[n] for n in sorted(n for _, n in sorted(keys)[: task.rows])]
