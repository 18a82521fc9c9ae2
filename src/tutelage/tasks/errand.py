"""A task with the rows that are asked, each under a name of its own."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tutelage.errors import Problem, RecipeError
from tutelage.tasks.asked import Asked, Asking, ask
from tutelage.tasks.formats import formats
from tutelage.tasks.load import load
from tutelage.tasks.task import Task
from tutelage.types import Message


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is asked."""

    name: str
    """Made of what the row asks and of its reference; shots do not change it. Of equal rows, the second has `-2`."""
    prompt: str
    """The hash of all that is asked, shots included, whatever template renders it."""
    asked: Asked
    own: tuple[Message, ...]
    """The row's own turns, without shots."""
    hinted: bool
    """Whether the prompt holds the reference."""


@dataclass(frozen=True, slots=True)
class Errand:
    """A task, and every row that it has."""

    task: Task
    rows: tuple[Row, ...]
    note: str
    """What to say of rows whose prompt holds their answer; empty where none does."""
    data: str
    format: int = 1
    """Which of the task's wordings; the first is its own."""

    @property
    def stem(self) -> str:
        """The name of its files, without an ending."""
        own = re.sub(r"[^\w-]+", "-", self.task.name).strip("-") or "task"
        return own if self.format == 1 else f"{own}.format-{self.format}"

    def digest(self) -> str:
        """Of everything that can change a score: the task as it is written, and what is asked of each row."""
        rows = [(row.name, row.prompt, _json(row.asked.reference)) for row in self.rows]
        return _hash(_json(self.task.described()), _json(rows))

    def chosen(self, limit: int | None) -> tuple[Row, ...]:
        """At most so many rows, the ones with the lowest hashes: a higher limit only adds some."""
        if limit is None or limit >= len(self.rows):
            return self.rows
        taken = {row.name for row in sorted(self.rows, key=lambda row: _hash(str(self.task.seed), row.name))[:limit]}
        return tuple(row for row in self.rows if row.name in taken)


def errands(tasks: Sequence[str], data: Sequence[str] = (), *, formats: int = 1) -> list[Errand]:
    """The tasks by name or file, several also in one text with commas; `data` is a file of rows, or TASK=FILE.

    With several `formats`, each task comes once for each wording, its own first.

    Raises:
        RecipeError: what is wrong with a task, or where rows are missing or meant for none.
        DataError: what is wrong with the rows.
    """
    loaded = [load(name) for name in _parted(tasks)]
    _refuse_twins(loaded)
    places = _places(loaded, data)
    return [one for task in loaded for one in worded(errand(task, places.get(task.name)), formats)]


def errand(task: Task, data: str | None = None) -> Errand:
    """One task with its rows.

    Raises:
        RecipeError: recipe/missing-option, when no rows are named. DataError: what is wrong with the rows.
    """
    asking = ask(task, data)
    return Errand(task, tuple(_rows(task, asking)), asking.note(), data or task.data or "")


def worded(own: Errand, count: int) -> list[Errand]:
    """The errand, and the same rows under the same names in other wordings: as many as `count` in all.

    Raises:
        RecipeError: recipe/bad-value, recipe/conflict, where the task has no such wordings.
    """
    made = [own]
    for number, task in enumerate(formats(own.task, count)[1:], start=2):
        asking = ask(task, own.data or None)
        rows = [replace(row, name=known.name) for known, row in zip(own.rows, _rows(task, asking), strict=True)]
        made.append(Errand(task, tuple(rows), asking.note(), own.data, number))
    return made


def _rows(task: Task, asking: Asking) -> Iterator[Row]:
    hinted = set(asking.answer_in_prompt)
    seen: Counter[str] = Counter()
    for asked in asking.asked:
        own = _own(task, asked.messages)
        name = _hash(*_words(own), _json(asked.reference), *asked.options)[:12]
        seen[name] += 1
        if seen[name] > 1:
            name = f"{name}-{seen[name]}"
        prompt = _hash(*_words(asked.messages), *asked.options)[:16]
        yield Row(name, prompt, asked, own, asked.origin in hinted)


def _own(task: Task, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The turns of the task's own wording: a system message stands before the shots, the others after them."""
    opening = messages[:1] if task.turns[0].role == "system" else ()
    return (*opening, *messages[len(messages) - len(task.turns) + len(opening) :])


def _words(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        yield message.role
        yield message.content


def _hash(*parts: str) -> str:
    return hashlib.sha256(_json(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _parted(tasks: Sequence[str]) -> list[str]:
    """Each name; a comma parts two unless it belongs to the name of a file."""
    names = []
    for text in tasks:
        names += [text] if Path(text).is_file() else [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise RecipeError(
            Problem("recipe/missing-option", "no task is named", fix="add --task NAME, or --task FILE.yaml")
        )
    return names


def _refuse_twins(tasks: Sequence[Task]) -> None:
    stems = Counter(Errand(task, (), "", "").stem for task in tasks)
    twice = [name for name, times in stems.items() if times > 1]
    if twice:
        what = "two tasks go by one name, and their results would mix"
        fix = "name each task once, and give files of your own another `name`"
        raise RecipeError(Problem("recipe/conflict", what, found=", ".join(twice), fix=fix))


def _places(tasks: Sequence[Task], data: Sequence[str]) -> dict[str, str]:
    """The rows of each task that is given some."""
    names = [task.name for task in tasks]
    places: dict[str, str] = {}
    for text in data:
        name, sign, path = text.partition("=")
        if not sign or name not in names or Path(text).exists():
            name, path = _only(tasks, text, places), text
        places[name] = path
    return places


def _only(tasks: Sequence[Task], path: str, places: dict[str, str]) -> str:
    """The task that rows without a name are for."""
    open_ = [task.name for task in tasks if task.data is None and task.name not in places] or [
        task.name for task in tasks if task.name not in places
    ]
    if len(open_) != 1:
        what = "it is not clear which task the rows are for"
        fix = f"write it in front, as in --data {tasks[0].name}={path}"
        raise RecipeError(
            Problem("recipe/conflict", what, where=path, found=", ".join(open_) or "none is left", fix=fix)
        )
    return open_[0]
