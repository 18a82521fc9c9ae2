"""Which rows are read, held out, and trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveInt, Tag

from tutelage.recipe.base import Section
from tutelage.recipe.clean import CleanOptions
from tutelage.recipe.decontaminate import DecontaminateOptions
from tutelage.recipe.duplicates import DuplicateOptions
from tutelage.recipe.mixture import MixtureOptions
from tutelage.recipe.renderings import RenderingOptions

Format = Literal[
    "auto",
    "alpaca",
    "dolly",
    "sharegpt",
    "messages",
    "prompt-completion",
    "text",
    "preference",
    "oasst",
    "natural-instructions",
    "self-instruct",
    "code",
    "code-functions",
]


def _one_or_many(value: Any) -> str:
    return "(many)" if isinstance(value, list | tuple) else "(one)"


Paths = Annotated[
    Annotated[str, Field(min_length=1), Tag("(one)")]
    | Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, strict=False), Tag("(many)")],
    Discriminator(_one_or_many),
]


class Join(Section):
    """Columns that another file holds, brought to the rows by a column that both have."""

    path: str = Field(min_length=1)
    """The file that holds the columns; one row for each value of the shared column."""
    on: str = Field(min_length=1)
    """The shared column."""


class Rows(Section):
    """Where rows are and how to read them."""

    path: Paths
    """A .jsonl, .json, .csv, .parquet or .txt file (also .gz and .zst), a folder, a glob, an address or a hub id; or
    a list of them."""
    format: Format = "auto"
    """How a row spells a demonstration; auto looks at rows among the first thousand."""
    split: str | None = None
    """Split, for a hub data set; `train` to train on and `test` to hold out when not given."""
    subset: str | None = None
    """Configuration of a hub data set that has several."""
    streaming: bool = False
    """For a hub data set: read rows as they arrive, without storing the set; needs `limit`."""
    fields: dict[str, str] = Field(default={})
    """Other people's columns, as in `{instruction: question, output: answer}`: our name, then theirs."""
    where: dict[str, str | int | float | bool] = Field(default={})
    """Read only the rows whose columns have these values, as in `{split: eval}`; looked at after the join, before
    `fields`."""
    join: Join | None = None
    """Bring columns from another file."""
    limit: PositiveInt | None = None
    """Read only the first rows, counted after `where`."""
    completion_after: str | None = Field(default=None, min_length=1)
    """For plain text: the last place of this string ends the prompt; what follows is the completion."""


class Source(Rows):
    """Rows to train on."""

    name: str | None = Field(default=None, min_length=1)
    """What plans and ledgers call it; the path when not given."""
    weight: float = Field(default=1.0, ge=0)
    """Multiplies the loss of every token of this source."""
    share: float = Field(default=1.0, gt=0)
    """Its share of a mixture, relative to the other sources; see `data.mixture`."""
    cap: PositiveInt | None = None
    """At most this many of its examples in one epoch."""


class HeldoutFile(Rows):
    """Held-out rows from a file of their own."""


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
    clean: CleanOptions = CleanOptions()
    """What is done about rows that look wrong."""
    duplicates: DuplicateOptions = DuplicateOptions()
    """What is done about rows that repeat."""
    decontaminate: DecontaminateOptions = DecontaminateOptions()
    """Evaluation sets that must not be trained on."""
    mixture: MixtureOptions = MixtureOptions()
    """How much of each source an epoch holds."""
    renderings: RenderingOptions = RenderingOptions()
    """In which words an instruction and its input are put together."""
    adjust: str | None = Field(default=None, min_length=1)
    """A file of weights for single rows, as `tutelage data suspects RUN` writes it; a weight of 0 drops the row."""
    max_length: PositiveInt = 1024
    """The longest example, in tokens."""
    over_long: Literal["error", "drop", "trim-context"] = "error"
    """What happens to longer ones: refuse to run; drop and count; or leave out early turns, then the middle of the
    longest message of the prompt. Answers are never cut."""
    thinking_weight: float = Field(default=1.0, ge=0)
    """Multiplies the loss of the tokens that an answer thinks with."""
    on_bad_row: Literal["stop", "quarantine"] = "stop"
    """A malformed row or one without an answer: stop with all of them listed, or set aside in the run folder."""
    max_quarantined: float = Field(default=0.01, ge=0, le=1)
    """Refuse to run when more than this share of the rows was set aside."""
    store: str | None = Field(default=None, min_length=1)
    """Folder of the token store; tutelage/tokens in the user's cache folder when not given."""
    store_limit: PositiveInt = 20_000_000_000
    """Bytes that the token store may hold; what was used longest ago is removed first."""
