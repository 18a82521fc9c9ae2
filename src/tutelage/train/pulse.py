"""What this process is doing, told as it goes: the watchdogs of the other processes read it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

SLOWEST_FIRST_STEP = 900.0
"""Seconds that a step may take while no time of one is known."""
LIMITS = {
    "starting": 900.0,
    "preparing": 86_400.0,
    "loading": 7_200.0,
    "planning": 3_600.0,
    "rehearsing": 3_600.0,
    "evaluating": 7_200.0,
    "saving": 7_200.0,
    "exporting": 7_200.0,
    "finishing": 7_200.0,
}
"""Seconds without progress after which a process counts as hung, by phase; training learns its own from its steps."""


@dataclass(slots=True)
class Pulse:
    """Counts up whenever something is done; a process whose count stands still is waiting, or hung."""

    phase: str = "starting"
    step: int = 0
    done: int = 0
    """Things done: steps, micro-batches, meetings with the other processes."""
    waiting: bool = False
    """Whether it waits for the other processes."""
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=50))
    _began: float | None = None

    def beat(self) -> None:
        """Something was done."""
        self.done += 1

    def begin(self, step: int) -> None:
        """An optimizer step begins; the time since the one before is learned from."""
        now = time.monotonic()
        if self._began is not None and self.phase == "training":
            self._times.append(now - self._began)
        self.phase, self.step, self._began = "training", step, now
        self.done += 1

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Inside, the process is in another phase, with that phase's limit."""
        before, self.phase = self.phase, phase
        self.done += 1
        try:
            yield
        finally:
            self.phase, self._began = before, None
            self.done += 1

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Inside, the process waits for the others."""
        before, self.waiting = self.waiting, True
        try:
            yield
        finally:
            self.waiting = before
            self.done += 1

    def limit(self, least: float = 30.0, times: float = 20.0) -> float:
        """Seconds without progress after which this process counts as hung."""
        if self.phase in LIMITS:
            return LIMITS[self.phase]
        # The deque is filled by another thread than the one that asks.
        known = list(self._times)
        return max(least, times * median(known)) if known else SLOWEST_FIRST_STEP

    def describe(self) -> dict[str, Any]:
        """What the other processes are told."""
        names = ("phase", "step", "done", "waiting")
        return {**{name: getattr(self, name) for name in names}, "limit": self.limit()}
