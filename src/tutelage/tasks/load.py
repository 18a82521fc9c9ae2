"""Reading a task: one that comes with Tutelage, by its name, or a YAML file of the user's."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutelage.config.document import read
from tutelage.config.suggestions import show
from tutelage.errors import Problem, RecipeError
from tutelage.scoring.scorers import KINDS
from tutelage.tasks.task import Task


def builtin() -> list[str]:
    """The names of the tasks that come with Tutelage."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml"))


def load(task: str) -> Task:
    """The task of a name, or in a `.yaml` file.

    Raises:
        RecipeError: recipe/missing-file, recipe/bad-yaml, and what is wrong with its options, each with its line.
    """
    if not task.endswith((".yaml", ".yml")):
        if task not in builtin():
            near = difflib.get_close_matches(task, builtin(), n=1)
            fix = f"did you mean {near[0]}?" if near else "name one of these, or a .yaml file"
            what = f"there is no task `{task}`"
            raise RecipeError(Problem("recipe/missing-file", what, found=f"tasks: {', '.join(builtin())}", fix=fix))
        with resources.as_file(_folder() / f"{task}.yaml") as file:
            return _read(Path(file))
    return _read(Path(task))


def _folder() -> Any:
    return resources.files("tutelage.tasks") / "builtin"


def _read(file: Path) -> Task:
    values, lines = read(file)
    try:
        return Task.model_validate(values)
    except ValidationError as invalid:
        raise RecipeError.of(list(_problems(invalid, file, lines))) from None


def _problems(invalid: ValidationError, file: Path, lines: Mapping[str, int]) -> Iterator[Problem]:
    for error in invalid.errors(include_url=False):
        keys = [str(key) for key in error["loc"] if not str(key).startswith("(")]
        name = ".".join(keys)
        line = next((lines[".".join(keys[:n])] for n in range(len(keys), -1, -1) if ".".join(keys[:n]) in lines), 1)
        where = f"{file}:{line}"
        if error["type"] == "extra_forbidden":
            yield Problem("recipe/unknown-option", f"`{name}` is not an option of a task", where, fix=_near(keys[-1]))
        elif error["type"] == "missing":
            yield Problem("recipe/missing-option", f"`{name}` is not given", where, fix=f"add `{keys[-1]}: …`")
        elif error["type"].startswith("union_tag"):
            yield Problem(
                "recipe/bad-value",
                f"`{name}` names no scorer",
                where,
                show(error["input"]),
                fix=f"give `kind`, one of {', '.join(KINDS)}" if name == "scorer" else "",
            )
        elif not keys or error["type"] == "value_error":
            text = str(error["msg"]).removeprefix("Value error, ")
            yield Problem("recipe/conflict" if not keys else "recipe/bad-value", text, where)
        else:
            found = f"{keys[-1]} = {show(error['input'])}"
            yield Problem("recipe/bad-value", f"`{name}` cannot be this: {error['msg']}", where, found)


def _near(key: str) -> str:
    options = [*Task.model_fields, *(name for kind in KINDS.values() for name in kind.model_fields)]
    near = difflib.get_close_matches(key, options, n=1)
    return f"did you mean `{near[0]}`?" if near else "remove it"
