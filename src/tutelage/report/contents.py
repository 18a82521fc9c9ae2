"""What a report shows: one frozen `Report` and its parts, None or empty where the run has not come so far.

Numbers that were not measured, or are not finite, are None; texts are unescaped, as the run folder holds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One option that was given, and where."""

    option: str
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step; what was not measured or is not finite is None."""

    step: int
    loss: float | None
    learning_rate: float | None
    grad_norm: float | None
    tokens: float | None
    supervised_tokens: float | None
    seconds: float | None
    peak_memory_bytes: float | None
    skipped: bool

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of the step's examples, by its time."""
        return self.tokens / self.seconds if self.tokens is not None and self.seconds else None


@dataclass(frozen=True, slots=True)
class Measurement:
    """The model measured after a step: on the held-out rows, and on general text."""

    step: int
    nll: float | None
    se: float | None
    stop_probability: float | None
    general_nll: float | None
    kl: float | None


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a prompt."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model wrote."""

    text: str
    step: int
    tokens: float | None
    stopped: bool | None
    correct: bool | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One held-out prompt, answered before and after training."""

    origin: str
    prompt: tuple[Turn, ...]
    reference: str
    base: Answer | None
    tuned: Answer | None


@dataclass(frozen=True, slots=True)
class Row:
    """One row as (token, weight with which it is predicted)."""

    origin: str
    split: str
    tokens: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Dropped:
    """The rows that left for one reason; `origins` may hold fewer than `rows`."""

    reason: str
    rows: int
    origins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """Rows in = trained + held out + dropped."""

    rows: int
    trained: int
    heldout: int
    dropped: tuple[Dropped, ...]
    duplicates: int
    notices: tuple[str, ...]
    examples: Table

    @property
    def unaccounted(self) -> int:
        """Rows that ended nowhere; 0 unless there is a bug."""
        return self.rows - self.trained - self.heldout - sum(one.rows for one in self.dropped)


@dataclass(frozen=True, slots=True)
class Report:
    """What a run folder holds; None or empty where the run has not come so far."""

    name: str
    recipe: str
    options: Table
    given: tuple[Setting, ...]
    environment: Table
    data: Table
    plan: Table
    ledger: Ledger | None
    steps: tuple[Step, ...]
    measurements: tuple[Measurement, ...]
    samples: tuple[Sample, ...]
    rows: tuple[Row, ...]
    suspects: tuple[Table, ...]
    asked: tuple[Table, ...]
    """Answers to tasks, as `tasks.jsonl` has them."""
    heldout_rows: frozenset[str]
    """What tells the held-out rows from others: two runs with the same ones were measured on the same."""
    result: Table | None

    @property
    def evaluations(self) -> tuple[tuple[int, float | None], ...]:
        """(step, held-out loss) of each measurement."""
        return tuple((one.step, one.nll) for one in self.measurements)
