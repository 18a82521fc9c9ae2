"""One run of a sweep: where it stands, and what was measured of it, read from its folder."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.history.record import Record
from tutelage.sweep.grid import Setting

Name = tuple[Any, ...]
"""Of a held-out example: the hash of its row and its rendering, and which of their examples it is."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The held-out loss of each example: sums of nats, and the weights that they are of."""

    names: tuple[Name, ...]
    places: tuple[Name, ...]
    """The row that each comes from; examples of one conversation are one draw."""
    sums: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def nll(self) -> float:
        """Nats per token."""
        return float(self.sums.sum() / self.weights.sum())


@dataclass(slots=True)
class Trial:
    """A setting with a seed."""

    setting: Setting
    name: str
    seed: int
    overrides: tuple[str, ...]
    folder: Path
    steps: int = 0
    """Of the whole run."""
    warmup: int = 0
    """Of them, those in which the learning rate rises."""
    code: int | None = None
    """What its last process ended with, where it failed."""
    error: str = ""
    """What that process said."""
    _known: dict[int | None, Losses] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether it cannot be compared."""
        return bool(self.error)

    def made(self) -> int:
        """Steps that its journal holds."""
        step = Record(self.folder).last_line("metrics.jsonl").get("step")
        return step if type(step) is int else 0

    def done(self) -> bool:
        """Whether the run came to its own end, which can lie before its last step."""
        return Record(self.folder).table("result.json").get("status") == "done"

    def reached(self, step: int) -> bool:
        """Whether nothing is left to do up to a step."""
        if step >= self.steps:
            return self.done()
        return self.losses(step) is not None

    def losses(self, step: int) -> Losses | None:
        """What was measured after a step; at the end of the run, of the model that it gave. None: nothing yet."""
        if step not in self._known:
            record = Record(self.folder)
            ended = self.done()
            wanted = None
            for line in record.lines("heldout.jsonl"):
                model, at = line.get("model"), line.get("step")
                if step < self.steps and at == step and model not in ("base", "tuned"):
                    wanted = line
                elif ended and model == "tuned" and wanted is None:
                    wanted = line  # It ended of itself before the step, or this is its last one.
            found = None if wanted is None else read_losses(record, wanted)
            if found is None:
                return None
            self._known[step] = found
        return self._known[step]

    def base(self) -> Losses | None:
        """What was measured before the first step."""
        record = Record(self.folder)
        line = next((line for line in record.lines("heldout.jsonl") if line.get("model") == "base"), None)
        return None if line is None else read_losses(record, line)


def read_losses(record: Record, line: dict[str, Any]) -> Losses | None:
    """A line of `heldout.jsonl` with what `heldout.json` says of its examples; None where they do not fit."""
    told = record.table("heldout.json")
    rows, weights, sums = told.get("rows"), told.get("weights"), line.get("sums")
    if not (isinstance(rows, list) and isinstance(weights, list) and isinstance(sums, list)):
        return None
    if not len(rows) == len(weights) == len(sums) > 0:
        return None
    values = np.array([math.nan if value is None else value for value in sums], dtype=np.float64)
    origins = told.get("origins")
    renderings = told.get("renderings")
    spoken = renderings if isinstance(renderings, list) and len(renderings) == len(rows) else [""] * len(rows)
    names = places = _numbered(list(zip(rows, spoken, strict=True)))
    if isinstance(origins, list) and len(origins) == len(rows):
        places = tuple(tuple(origin) if isinstance(origin, list) else (origin,) for origin in origins)
    return Losses(names, places, values, np.array(weights, dtype=np.float64))


def _numbered(rows: Sequence[Any]) -> tuple[Name, ...]:
    seen: Counter[Any] = Counter()
    names = []
    for row in rows:
        names.append((row, seen[row]))
        seen[row] += 1
    return tuple(names)
