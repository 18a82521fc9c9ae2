"""The words in which a judge is asked, with its criteria; a file that is named, versioned and hashed."""

from __future__ import annotations

import difflib
import hashlib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt, ValidationError, model_validator

from tutelage.config.document import read
from tutelage.config.suggestions import show
from tutelage.errors import Problem, RecipeError
from tutelage.judge.pairs import Pair
from tutelage.recipe.base import Section
from tutelage.tasks.wording import BadWording, fill
from tutelage.types import Message

DEFAULT = "pairwise"
NEEDED = ("request", "first", "second")
"""What each wording shows."""
KNOWN = (*NEEDED, "reference", "criteria")


class Wording(Section):
    """How a judge is asked to compare two answers."""

    name: str = Field(min_length=1)
    version: PositiveInt = 1
    """Raised with every change that can change a verdict."""
    criteria: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False, min_length=1)]
    """What makes an answer the better one; `{criteria}` lists them."""
    system: str = ""
    user: str
    """With `{request}`, `{first}` and `{second}`, and `{reference}` where the judge is to know it."""
    again: str = Field(min_length=1)
    """Added to `user` for the second try, where the first one brought no verdict."""

    @model_validator(mode="after")
    def _whole(self) -> Wording:
        shown = dict.fromkeys(KNOWN, "\0")
        try:
            fill(self.system, shown)
            fill(self.user, shown)
        except BadWording as bad:
            raise ValueError(f"the wording cannot be filled in: {bad}") from None
        for name in NEEDED:
            if fill(self.user, {**shown, name: "\1"}).count("\1") != 1:
                raise ValueError(f"`user` must hold `{{{name}}}` once")
        if "\1" not in fill(self.system + self.user, {**shown, "criteria": "\1"}):
            raise ValueError("`{criteria}` must stand in `user` or in `system`, or the criteria would not be told")
        return self

    @property
    def shows_reference(self) -> bool:
        """Whether the judge sees the row's own answer."""
        return "\1" in fill(self.system + self.user, {**dict.fromkeys(KNOWN, ""), "reference": "\1"})

    def described(self) -> dict[str, Any]:
        """What to print beside the verdicts, so that they can be had again."""
        whole = self.model_dump_json().encode("utf-8", "surrogatepass")
        return {"name": self.name, "version": self.version, "sha256": hashlib.sha256(whole).hexdigest()}

    def messages(self, pair: Pair, *, swapped: bool, again: bool = False) -> tuple[Message, ...]:
        """What the judge is asked; `swapped` shows the answer of B first."""
        one, two = (pair.b, pair.a) if swapped else (pair.a, pair.b)
        mark = pair.mark
        given = {
            "request": _between("request", mark, pair.request),
            "first": _between("answer 1", mark, one),
            "second": _between("answer 2", mark, two),
            "reference": _between("reference", mark, pair.reference),
            "criteria": "\n".join(f"{number}. {text}" for number, text in enumerate(self.criteria, start=1)),
        }
        user = fill(self.user, given) + (f"\n\n{self.again}" if again else "")
        opening = (Message("system", fill(self.system, given)),) if self.system else ()
        return (*opening, Message("user", user))


def _between(what: str, mark: str, text: str) -> str:
    """The text between marks made of all that is shown, so that no part of it can hold them."""
    return f"<<<{what} {mark}>>>\n{text}\n<<<end of {what} {mark}>>>"


def builtin() -> list[str]:
    """The names of the wordings that come with Tutelage."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml"))


def load(name: str | Path = DEFAULT) -> Wording:
    """The wording of a name, or in a `.yaml` file.

    Raises:
        RecipeError: recipe/missing-file, recipe/bad-yaml, and what is wrong with its options, each with its line.
    """
    if str(name).endswith((".yaml", ".yml")):
        return _read(Path(name))
    if name not in builtin():
        near = difflib.get_close_matches(str(name), builtin(), n=1)
        fix = f"did you mean {near[0]}?" if near else "name one of these, or a .yaml file"
        what, found = f"there is no judging prompt `{name}`", f"prompts: {', '.join(builtin())}"
        raise RecipeError(Problem("recipe/missing-file", what, found=found, fix=fix))
    with resources.as_file(_folder() / f"{name}.yaml") as file:
        return _read(Path(file))


def _folder() -> Any:
    return resources.files("tutelage.judge") / "prompts"


def _read(file: Path) -> Wording:
    values, lines = read(file)
    try:
        return Wording.model_validate(values)
    except ValidationError as invalid:
        problems = []
        for error in invalid.errors(include_url=False):
            key = str(error["loc"][0]) if error["loc"] else ""
            where = f"{file}:{lines.get(key, 1)}"
            if error["type"] == "extra_forbidden":
                near = difflib.get_close_matches(key, Wording.model_fields, n=1)
                fix = f"did you mean `{near[0]}`?" if near else "remove it"
                what = f"`{key}` is not an option of a judging prompt"
                problems.append(Problem("recipe/unknown-option", what, where, fix=fix))
            elif error["type"] == "missing":
                problems.append(Problem("recipe/missing-option", f"`{key}` is not given", where, fix=f"add `{key}: …`"))
            else:
                text = str(error["msg"]).removeprefix("Value error, ")
                what = f"`{key}` cannot be this: {text}" if key else text
                problems.append(Problem("recipe/bad-value", what, where, show(error["input"]) if key else ""))
        raise RecipeError.of(problems) from None
