"""Evaluation sets read as what they ask: the questions of each row, and for code the solution as well.

An evaluation set is named in the recipe as PATH, NAME=PATH, or either with #COLUMN, where the columns are not known
here. Answers in words are left out: a short one says nothing, and a long one may be right in many other places.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.data import sources
from tutelage.data.formats.fields import hint, kind, wrong_type
from tutelage.data.sources.stored import ending
from tutelage.errors import DataError, Problem, RecipeError
from tutelage.recipe import HeldoutFile
from tutelage.types import Origin, Record

COLUMNS = (
    ("messages",),
    ("conversations",),
    ("turns",),
    ("Body", "Question"),
    ("instruction", "instances"),
    ("instruction", "input"),
    ("instruction",),
    ("question",),
    ("Question",),
    ("prompt",),
    ("problem",),
    ("text",),
    ("input",),
)
"""Columns that together ask, the more telling first."""
SOLUTIONS = ("canonical_solution", "code")
"""Columns of code that answers."""
_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)
_SYNTAX = "name the columns that ask, as in NAME=PATH#COLUMN or NAME=PATH#COLUMN+COLUMN"


@dataclass(frozen=True, slots=True)
class Question:
    """One text of an evaluation set."""

    set: str
    origin: Origin
    text: str
    solution: bool = False
    """Whether it is code that answers."""


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """The texts of one evaluation set."""

    name: str
    questions: tuple[Question, ...]

    def identity(self) -> dict[str, Any]:
        """What was read, as a hash; the same wherever the file lies and however it is packed."""
        digest = hashlib.sha256()
        for question in self.questions:
            line = f"{question.origin.line}\x1f{question.solution}\x1f{question.text}\x1e"
            digest.update(line.encode("utf-8", "surrogatepass"))
        return {"name": self.name, "texts": len(self.questions), "sha256": digest.hexdigest()}


def read_sets(against: Iterable[str]) -> list[EvaluationSet]:
    """Read the evaluation sets that a recipe names.

    Raises:
        RecipeError: recipe/conflict, when two have one name.
        DataError: what `sources.read` raises; data/bad-row for a row that cannot be read, which would otherwise go
            unprotected; data/unknown-format when the columns are not known; data/no-rows when no row asks anything.
    """
    found: dict[str, tuple[str, EvaluationSet]] = {}
    for named in against:
        one = _read_set(named)
        if one.name in found:
            raise RecipeError(
                Problem(
                    "recipe/conflict",
                    f"two evaluation sets are called `{one.name}`",
                    found=f"{found[one.name][0]} and {named}",
                    fix="name them apart, as in NAME=PATH",
                )
            )
        found[one.name] = named, one
    return [one for _, one in found.values()]


def _read_set(named: str) -> EvaluationSet:
    name, path, columns = _parts(named)
    questions: list[Question] = []
    form: Sequence[str] = columns
    for record in sources.read(HeldoutFile(path=path)):
        if isinstance(record, Problem):
            raise DataError(record)
        form = form or _form(record, path)
        texts = [text for text in _texts(record, form) if text.strip()]
        questions += (Question(name, record.origin, text) for text in texts)
        solutions = [record.fields.get(column) for column in SOLUTIONS]
        questions += (
            Question(name, record.origin, text, solution=True)
            for text in solutions
            if isinstance(text, str) and text.strip()
        )
    if not any(not question.solution for question in questions):
        what = f"no row of the evaluation set `{name}` asks anything"
        found = "the columns that ask, " + ", ".join(f"`{column}`" for column in form) + ", are empty"
        raise DataError(Problem("data/no-rows", what, path, found, fix=_SYNTAX))
    return EvaluationSet(name, tuple(questions))


def _parts(named: str) -> tuple[str, str, tuple[str, ...]]:
    """Take NAME=PATH#COLUMN+COLUMN apart; a file whose own name has a `#` or `=` is taken as it is."""
    name, path, columns = "", named, ""
    match = _NAMED.fullmatch(named)
    if match and not Path(named).exists():
        name, path = match.groups()
    if "#" in path and not Path(path).exists():
        path, _, columns = path.rpartition("#")
    if not name:
        last = Path(path).name.removesuffix(ending(path)[1])
        name = Path(last).stem if ending(path)[0] else last
    return name, path, tuple(column for column in columns.split("+") if column)


def _form(record: Record, path: str) -> tuple[str, ...]:
    """The columns that ask."""
    fields = record.fields
    for columns in COLUMNS:
        if all(column in fields for column in columns):
            return columns
    listed = ", ".join(f"`{name}` ({kind(value)})" for name, value in fields.items()) or "no columns"
    near = (hint(fields, column) for columns in COLUMNS for column in columns)
    why = next((f"{found} (it can be named)" for found in near if found), "")
    what = f"the columns of the evaluation set `{path}` are not known"
    raise DataError(Problem("data/unknown-format", what, str(record.origin), listed, why, _SYNTAX))


def _texts(record: Record, form: Sequence[str]) -> list[str]:
    """The questions of a row."""
    values = [(column, record.fields.get(column)) for column in form]
    if len(form) == 1 and isinstance(values[0][1], list):
        return _turns(record, *values[0])
    instances = record.fields.get("instances") if "instances" in form else None
    if isinstance(instances, list):
        inputs = [i.get("input") for i in instances if isinstance(i, Mapping)]
        asked = [value for column, value in values if column != "instances"]
        return ["\n".join(str(part) for part in (*asked, given) if part) for given in inputs] or [str(asked[0])]
    parts = []
    for place, (column, value) in enumerate(values):
        if isinstance(value, str):
            parts.append(value)
        elif value is not None or place == 0:
            raise wrong_type(record, column, "text", value)
    return ["\n".join(part for part in parts if part.strip())]


def _turns(record: Record, column: str, turns: Any) -> list[str]:
    """The turns that ask: all of a list of texts; the user's of a list of messages, or the first where none is."""
    if all(isinstance(turn, str) for turn in turns):
        return list(turns)
    if not all(isinstance(turn, Mapping) for turn in turns):
        raise wrong_type(record, column, "a list of texts or of turns", turns)
    said = [(turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))) for turn in turns]
    users = [content for role, content in said if role in ("user", "human")] or [content for _, content in said[:1]]
    return [_content(record, column, content) for content in users]


def _content(record: Record, column: str, content: Any) -> str:
    """The text of a turn, which may come in parts."""
    if isinstance(content, list):
        parts = [part.get("text", part.get("value")) for part in content if isinstance(part, Mapping)]
        content = "\n".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str):
        raise wrong_type(record, column, "turns with text", content)
    return content
