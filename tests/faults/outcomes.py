"""What the fault tests found, gathered in the file that TUTELAGE_FAULTS_OUT names; report.py makes a page of it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_COUNTING = threading.Lock()


@dataclass
class Outcome:
    """Of one row of the matrix, while its trials are made."""

    id: str
    """As F1."""
    fault: str
    """What was done, in words."""
    variant: str
    """full, lora, ranks2, or - where it does not matter."""
    trials: int = 0
    passed: int = 0
    seconds: float = 0.0
    note: str = ""
    """What else was measured."""

    @contextmanager
    def trial(self) -> Iterator[None]:
        """A trial that passes when nothing is raised inside."""
        with _COUNTING:
            self.trials += 1
        yield
        with _COUNTING:
            self.passed += 1

    def check(self, trial: Callable[[], object]) -> None:
        """The same for a call."""
        with self.trial():
            trial()


@contextmanager
def outcome(id: str, fault: str, variant: str = "-") -> Iterator[Outcome]:
    """Count the trials made inside, and write them down also where one fails.

    with outcome("F1", "kill -9 at random times", "lora") as found:
        for seed in range(100):
            with found.trial():
                ...
    """
    found, began = Outcome(id, fault, variant), time.monotonic()
    try:
        yield found
    finally:
        found.seconds = round(time.monotonic() - began, 1)
        if path := os.environ.get("TUTELAGE_FAULTS_OUT"):
            known = json.loads(Path(path).read_text("utf-8")) if Path(path).is_file() else []
            Path(path).write_text(json.dumps([*known, vars(found)], indent=1) + "\n", "utf-8")
