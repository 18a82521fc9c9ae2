"""Which token budget and which checkpointing a run gets: the fastest that fits into memory, or a refusal.

In this order: nothing computed again, with as many tokens at once as full speed takes, then half as many, down to
the longest example; then the same with selective, then with full checkpointing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tutelage.errors import MachineError, Problem
from tutelage.models.checkpointing import Kind
from tutelage.train.estimate import Estimate

FULL_SPEED = {"cpu": 2048, "mps": 4096, "cuda": 16384}
"""Tokens computed at once from which on more bring no speed."""
SMALLEST = 256
"""Tokens below which a smaller budget saves nothing worth the time."""
ROOM = 0.9
"""Share of the memory that a choice may fill; the rest is for what an estimate does not know."""
KINDS: tuple[Kind, ...] = ("none", "selective", "full")


@dataclass(frozen=True, slots=True)
class Choice:
    """How a run is made to fit, and why so."""

    estimate: Estimate
    limit: int
    limited_by: str
    chosen: dict[str, str] = field(default_factory=dict)
    """For each option that the plan chose, why."""
    measured: dict[str, Any] | None = None
    """By the rehearsal."""
    unknown: str = ""
    """Why nothing could be predicted, in words; the estimate is then all zeros."""

    def as_json(self) -> dict[str, Any]:
        """As `plan.json` holds it."""
        return {
            "token_budget": self.estimate.token_budget,
            "checkpointing": self.estimate.checkpointing,
            "memory_limit_bytes": self.limit,
            "limited_by": self.limited_by,
            "chosen": self.chosen,
            "predicted": {"unknown": self.unknown} if self.unknown else self.estimate.as_json(),
            **({} if self.measured is None else {"measured": self.measured}),
        }

    def measured_by(self, rehearsal: dict[str, Any], token_budget: int) -> Choice:
        """With the rehearsal's figures, and what follows from them for a step and for the whole run."""
        chosen, estimate = self.chosen, self.estimate
        if token_budget != estimate.token_budget:
            chosen = {**chosen, "train.token_budget": f"{estimate.token_budget:,} did not fit in the rehearsal"}
        step = rehearsal["token_seconds"] * estimate.step_tokens + rehearsal["update_seconds"]
        total = estimate.seconds + estimate.steps * (step - estimate.step_seconds)
        measured = {
            "peak_memory_bytes": rehearsal["peak_memory_bytes"],
            "step_seconds": step,
            "seconds": total,
            "rehearsal": rehearsal,
        }
        return replace(self, estimate=replace(estimate, token_budget=token_budget), chosen=chosen, measured=measured)

    @property
    def step_seconds(self) -> float:
        """Measured, or else predicted."""
        return self.measured["step_seconds"] if self.measured else self.estimate.step_seconds

    @property
    def seconds(self) -> float:
        """Of the whole run; measured, or else predicted."""
        return self.measured["seconds"] if self.measured else self.estimate.seconds

    def with_steps(self, steps: int, why: str) -> Choice:
        """The same for fewer steps."""
        estimate = self.estimate
        fewer = estimate.steps - steps
        shorter = replace(estimate, steps=steps, seconds=estimate.seconds - fewer * estimate.step_seconds)
        measured = self.measured and {**self.measured, "seconds": self.seconds - fewer * self.step_seconds}
        return replace(
            self, estimate=shorter, measured=measured, chosen={**self.chosen, "train.steps": f"{steps:,} steps: {why}"}
        )

    def lines(self) -> list[str]:
        """What was chosen and what it takes, for the screen."""
        one = self.estimate
        if self.unknown:
            return [f"{one.token_budget:,} tokens at once; the rest cannot be predicted: {self.unknown}"]
        kept = {"none": "no", "selective": "selective", "full": "full"}[one.checkpointing]
        how = f"{one.token_budget:,} tokens at once, {kept} checkpointing"
        why = " (" + next(iter(self.chosen.values())) + ")" if self.chosen else " (as given)"
        memory = f"{one.peak_memory_bytes / 1e9:.1f} GB of {self.limit / 1e9:.1f} GB ({self.limited_by})"
        lines = [how + why, f"about {memory}, {one.step_seconds:.1f} s a step, {duration(one.seconds)} in all"]
        return lines + ([self.chosen["train.steps"]] if "train.steps" in self.chosen else [])

    def measured_line(self) -> str:
        """What the rehearsal found, for the screen."""
        assert self.measured is not None
        peak, predicted = self.measured["peak_memory_bytes"], self.estimate.peak_memory_bytes
        again = self.chosen.get("train.token_budget", "")
        note = f"; {self.estimate.token_budget:,} tokens at once: {again}" if "rehearsal" in again else ""
        expected = "" if self.unknown else f" ({predicted / 1e9:.1f} predicted)"
        return (
            f"rehearsed: {peak / 1e9:.1f} GB{expected}, {self.step_seconds:.1f} s a step, "
            f"{duration(self.seconds)} to go{note}"
        )


def choose(
    estimate: Callable[[int, Kind], Estimate],
    *,
    token_budget: int | None,
    checkpointing: Kind | Literal["auto"],
    longest: int,
    device: str,
    limit: int,
    limited_by: str,
    instead: Callable[[Estimate], str],
) -> Choice:
    """The first way that leaves a tenth of the memory free, or else the smallest that fits at all.

    `instead` says what could be changed where nothing fits.

    Raises:
        MachineError: machine/out-of-memory, with what is needed and what there is.
    """
    tried: list[Estimate] = []
    for tokens, kind in ways(token_budget, checkpointing, longest=longest, device=device):
        tried.append(estimate(tokens, kind))
        if tried[-1].peak_memory_bytes <= ROOM * limit:
            break
    else:
        least = min(tried, key=lambda one: one.peak_memory_bytes)
        if least.peak_memory_bytes > limit:
            raise does_not_fit(least.peak_memory_bytes, limit, limited_by, instead(least))
        tried.append(least)
    why = "full speed, and it fits" if len(tried) == 1 else f"the fastest that fits into {limit / 1e9:.1f} GB"
    chosen = {}
    if token_budget is None:
        chosen["train.token_budget"] = why
    if checkpointing == "auto":
        chosen["train.checkpointing"] = why
    return Choice(tried[-1], limit, limited_by, chosen)


def ways(
    token_budget: int | None, checkpointing: Kind | Literal["auto"], *, longest: int, device: str
) -> Iterator[tuple[int, Kind]]:
    """Each (token budget, checkpointing) that the options leave open, the fastest first."""
    for kind in KINDS if checkpointing == "auto" else (checkpointing,):
        tokens = token_budget or max(FULL_SPEED[device], longest)
        yield tokens, kind
        while token_budget is None and tokens > max(SMALLEST, longest):
            tokens = max(SMALLEST, longest, tokens // 2)
            yield tokens, kind


def does_not_fit(needed: int, limit: int, limited_by: str, instead: str) -> MachineError:
    """The refusal, with both figures."""
    return MachineError(
        Problem(
            "machine/out-of-memory",
            "the run does not fit into memory",
            found=f"it needs {needed / 1e9:.1f} GB, {limit / 1e9:.1f} GB are there ({limited_by})",
            why="found before anything was trained, with the smallest micro-batches and checkpointing that are allowed",
            fix=instead,
        )
    )


def steps_within(seconds: float, *, steps: int, step_seconds: float, total_seconds: float) -> int:
    """How many of the steps can be made in the time; what comes beside them is made whatever their number."""
    beside = total_seconds - steps * step_seconds
    return max(0, min(steps, int((seconds - beside) / step_seconds)))


def takes_too_long(total_seconds: float, seconds: float, steps: int) -> MachineError:
    """The refusal, with what would fit."""
    return MachineError(
        Problem(
            "machine/out-of-time",
            "the run takes longer than it may",
            found=f"about {duration(total_seconds)}, budget.time is {duration(seconds)}",
            why="found before anything was trained",
            fix=f"train.steps={steps} fits, or a higher budget.time"
            if steps
            else f"a budget.time of {duration(total_seconds)} or more, fewer evaluate.samples or evaluate.points",
        )
    )


def duration(seconds: float) -> str:
    """In words of one or two units."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
