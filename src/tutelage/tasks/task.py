"""The declaration of a task."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag, model_validator

from tutelage.recipe.base import Section
from tutelage.scoring.scorers import Scorer


class Turn(Section):
    """A message of the prompt."""

    role: Literal["system", "user", "assistant"]
    """Who says it."""
    content: str
    """A wording with `{field}` for what stands in the row."""


def _field_or_fields(value: Any) -> str:
    return "(fields)" if isinstance(value, dict) else "(field)"


class Task(Section):
    """A task: rows, the wording in which they are asked, and what a good answer is."""

    name: str = Field(min_length=1)
    """The name that its scores go by."""
    version: PositiveInt = 1
    """Raised with every change that can change a score."""
    data: str | None = None
    """The file of rows; built-in tasks are given one when they are run."""
    prompt: str | None = None
    """What the user says, with `{field}` for what stands in the row; `{list:lettered}` writes a list as options
    A, B, C, `{value:json}` a value as JSON, and `{{` is a bracket."""
    messages: Annotated[tuple[Turn, ...], Field(strict=False)] = ()
    """Several turns in the place of `prompt`."""
    reference: (
        Annotated[
            Annotated[str, Field(min_length=1), Tag("(field)")] | Annotated[dict[str, str], Tag("(fields)")],
            Discriminator(_field_or_fields),
        ]
        | None
    ) = None
    """The row's field that the answer is compared with; or several, by the name that the scorer knows each by."""
    answer: str | None = None
    """How an answer reads in a shot, with `{field}`; the reference's own text when not given."""
    options: str | None = None
    """The row's field that lists the options, where they are compared by likelihood."""
    scorer: Scorer
    """How an answer is scored, by `kind`, with its options."""
    shots: NonNegativeInt = 0
    """Rows with their answers before the one that is asked, chosen by a hash; never the row itself."""
    shots_from: str | None = None
    """A file of rows for the shots; the task's own when not given."""
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    """Texts that end an answer, besides the model's own stop tokens; what follows them is cut off."""
    stop_plain: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    """The same where the model is asked in plain text, which it goes on with; with a chat template it answers in words
    and ends by itself."""
    max_new_tokens: PositiveInt = 256
    """Longest answer, in tokens."""
    rows: PositiveInt | None = None
    """Ask at most this many rows, chosen by a hash; all of them when not given."""
    seed: int = 0
    """Changes which rows and which shots the hashes choose."""
    cluster: str | None = Field(default=None, min_length=1)
    """The row's field that rows have in common which are no draws of their own, such as one document or conversation:
    in intervals they count as one."""
    formats: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    """Other wordings of the user's last message, asked in turn where the spread over wordings is measured."""
    better: Literal["higher", "lower"] = "higher"
    """Which scores are better ones."""

    @model_validator(mode="after")
    def _whole(self) -> Task:
        if (self.prompt is None) == (not self.messages):
            raise ValueError("give `prompt` or `messages`, and not both")
        if self.messages and self.messages[-1].role == "assistant":
            raise ValueError("the last of `messages` is what the model answers, so it is not its own")
        if (self.options is not None) != (self.scorer.kind == "likelihood"):
            raise ValueError("`options` goes with `scorer: {kind: likelihood}`, and with no other")
        if self.reference is None and self.scorer.kind != "pattern":
            raise ValueError(f"`reference` is not given, and the scorer `{self.scorer.kind}` compares with one")
        if isinstance(self.reference, dict) != (self.scorer.kind in ("ifeval", "code")):
            raise ValueError(f"the scorer `{self.scorer.kind}` takes another kind of `reference`")
        if self.shots and self.answer is None and not isinstance(self.reference, str):
            raise ValueError("`answer` is not given, so the shots would have none")
        return self

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The prompt as messages."""
        return self.messages or (Turn(role="user", content=self.prompt or ""),)

    def described(self) -> dict[str, Any]:
        """What to print beside a score, so that it can be had again; `wording` is a hash of the prompt."""
        wording = repr([(turn.role, turn.content) for turn in self.turns] + [self.answer])
        return {
            "name": self.name,
            "version": self.version,
            "wording": hashlib.sha256(wording.encode("utf-8", "surrogatepass")).hexdigest()[:16],
            "shots": self.shots,
            "seed": self.seed,
            "stop": list(self.stop),
            "max_new_tokens": self.max_new_tokens,
            "scorer": self.scorer.described(),
            "better": self.better,
            **({"stop_plain": list(self.stop_plain)} if self.stop_plain else {}),
            **({} if self.cluster is None else {"cluster": self.cluster}),
        }

    def stops(self, *, plain: bool) -> tuple[str, ...]:
        """The texts that end an answer, of a model that is asked in plain text or with a chat template."""
        return (*self.stop, *self.stop_plain) if plain else self.stop

    def cut(self, answer: str, *, plain: bool = False) -> str:
        """The answer up to the first of the texts that end one."""
        ends = [place for text in self.stops(plain=plain) if (place := answer.find(text)) >= 0]
        return answer[: min(ends)] if ends else answer
