"""The one type at each joint of the flow; frozen, and free of torch.

path -> Record -> Conversation | Completion | Document -> Example
                -> Preference
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where a row came from: file and line, counted from 1 (row number where a file has no lines)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def by_file(rows: Iterable[Origin], most: int = 64) -> str:
    """At most so many rows in words, each file named once."""
    rows = list(rows)
    lines: dict[str, list[int]] = {}
    for row in rows[:most]:
        lines.setdefault(row.file, []).append(row.line)
    named = "; ".join(f"{file}:{', '.join(map(str, numbers))}" for file, numbers in lines.items())
    return named + (f" and {len(rows) - most:,} more" if len(rows) > most else "")


@dataclass(frozen=True, slots=True)
class Record:
    """One row as the file holds it."""

    origin: Origin
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `weight` multiplies the loss of its tokens; None is 1 for an assistant and 0 for anyone else."""

    role: str
    content: str
    weight: float | None = None
    thinking: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    name: str | None = None
    tool_call_id: str | None = None
    """For a tool's answer: the `id` of the call that it answers."""

    @property
    def trained(self) -> float:
        """The weight with the default filled in."""
        if self.weight is not None:
            return self.weight
        return 1.0 if self.role == "assistant" else 0.0


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a row of one instruction asks, in its parts, before they are put together as a user's message."""

    text: str
    input: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order; what a chat template renders."""

    origin: Origin
    messages: tuple[Message, ...]
    weight: float = 1.0
    tools: tuple[Mapping[str, Any], ...] = ()
    instruction: Instruction | None = None
    """The parts of the last user message, where the row gives them; other renderings put them together otherwise."""
    references: tuple[str, ...] = ()
    """Other answers to the last prompt that are right as well; never trained, taken by scorers."""
    task: str = ""
    """What kind of demonstration it is, where the row says so in a column `task`; the held-out loss is told by it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A prompt and what follows it, both plain text; no template is involved."""

    origin: Origin
    prompt: str
    completion: str
    weight: float = 1.0
    task: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text, trained whole."""

    origin: Origin
    text: str
    weight: float = 1.0
    task: str = ""


Demonstration = Conversation | Completion | Document


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one prompt, of which `chosen` was judged the better; each is one or more messages."""

    origin: Origin
    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    weight: float = 1.0
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """Tokens ready for the model.

    `weights[i]` is the weight with which `input_ids[i]` is predicted from the tokens before it; 0 where it is
    not trained. The first token has nothing before it, so its weight is always 0.
    """

    input_ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    origin: Origin
    prompt_length: int
    """Tokens before the first trained one: the prompt that is answered when this row is sampled."""
    index: int = -1
    """Its place in the token store that holds it; -1 where none does."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def supervised(self) -> int:
        """How many tokens are trained."""
        return int(np.count_nonzero(self.weights))
