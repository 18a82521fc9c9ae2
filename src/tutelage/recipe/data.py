"""Which rows are read, held out, and trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveInt, Tag

from tutelage.recipe.base import Section

Format = Literal["auto", "alpaca", "dolly", "sharegpt", "messages", "prompt-completion", "text"]


class Source(Section):
    """One file, folder or hub data set."""

    path: str = Field(min_length=1)
    """A .jsonl, .json, .csv, .parquet or .txt file (also .gz and .zst), or a hub id."""
    format: Format = "auto"
    """How a row spells a demonstration; auto looks at a sample of rows from the whole file."""
    split: str | None = None
    """Split, for a hub data set; `train` when not given."""
    weight: float = Field(default=1.0, ge=0)
    """Multiplies the loss of every token of this source."""
    limit: PositiveInt | None = None
    """Read only the first rows."""
    completion_after: str | None = Field(default=None, min_length=1)
    """For plain text: the last place of this string ends the prompt; what follows is the completion."""


class HeldoutFile(Section):
    """Held-out rows from a file of their own."""

    path: str = Field(min_length=1)
    """As for a training source."""
    format: Format = "auto"
    """As for a training source."""
    split: str | None = None
    """Split, for a hub data set; `test` when not given."""
    limit: PositiveInt | None = None
    """Read only the first rows."""
    completion_after: str | None = Field(default=None, min_length=1)
    """As for a training source."""


def _share_or_file(value: Any) -> str:
    return "(file)" if isinstance(value, dict | HeldoutFile) else "(share)"


class DataOptions(Section):
    """The rows."""

    train: Annotated[tuple[Source, ...], Field(min_length=1, strict=False)]
    """The sources to train on."""
    heldout: Annotated[
        Annotated[float, Field(ge=0, lt=1), Tag("(share)")] | Annotated[HeldoutFile, Tag("(file)")],
        Discriminator(_share_or_file),
    ] = 0.05
    """A share of the rows, chosen by a hash of the prompt, or `{path: heldout.jsonl}`."""
    max_length: PositiveInt = 1024
    """The longest example, in tokens."""
    over_long: Literal["error", "drop", "trim-context"] = "error"
    """What happens to longer ones: refuse to run, drop and count, or drop early turns. Answers are never cut."""
    on_bad_row: Literal["stop", "quarantine"] = "stop"
    """A malformed row or one without an answer: stop with all of them listed, or set aside in the run folder."""
    max_quarantined: float = Field(default=0.01, ge=0, le=1)
    """Refuse to run when more than this share of the rows was set aside."""
