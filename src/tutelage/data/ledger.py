"""The ledger: every row read is trained, held out, or dropped for a named reason. The sums are checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tutelage.errors import DataError, Problem
from tutelage.types import Origin

LISTED = 1000
"""How many origins of each reason are written down; all of them are counted."""


@dataclass(slots=True)
class Ledger:
    """Counts of rows, filled while they are read."""

    rows: int = 0
    trained: int = 0
    heldout: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    origins: dict[str, list[Origin]] = field(default_factory=dict)
    examples: Counter[str] = field(default_factory=Counter)
    """Examples by split; a row whose turns do not share a sequence makes several."""
    duplicates: int = 0
    """Rows whose prompt was read before; they are kept, on the side of the first."""
    notices: Counter[str] = field(default_factory=Counter)

    def keep(self, split: str, examples: int) -> None:
        """Count a row that stayed."""
        self.rows += 1
        if split == "train":
            self.trained += 1
        else:
            self.heldout += 1
        self.examples[split] += examples

    def drop(self, reason: str, origin: Origin) -> None:
        """Count a row that left."""
        self.rows += 1
        self.dropped[reason] += 1
        self._list(reason, origin)

    def repeat(self, origin: Origin) -> None:
        """Note a row whose prompt was read before; it is kept, on the side of the first."""
        self.duplicates += 1
        self._list("duplicate prompt", origin)

    def _list(self, reason: str, origin: Origin) -> None:
        listed = self.origins.setdefault(reason, [])
        if len(listed) < LISTED:
            listed.append(origin)

    def balance(self, rows_read: int) -> None:
        """Compare with the number of rows that the sources gave.

        Raises:
            DataError: data/unbalanced, when a row is unaccounted for.
        """
        accounted = self.trained + self.heldout + self.dropped.total()
        if not rows_read == self.rows == accounted:
            raise DataError(
                Problem(
                    "data/unbalanced",
                    "the ledger does not balance; this is a bug in Tutelage",
                    found=f"{rows_read} rows read, {accounted} accounted for: {self.summary()}",
                )
            )

    def summary(self) -> str:
        """One line: rows in = trained + held out + dropped by reason."""
        parts = [f"{self.trained:,} trained", f"{self.heldout:,} held out"]
        parts += [f"{count:,} dropped ({reason})" for reason, count in sorted(self.dropped.items())]
        return f"{self.rows:,} rows = " + " + ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """The ledger as `data.json` holds it."""
        return {
            "rows": self.rows,
            "trained": self.trained,
            "heldout": self.heldout,
            "dropped": dict(sorted(self.dropped.items())),
            "examples": {"train": self.examples["train"], "heldout": self.examples["heldout"]},
            "duplicates": self.duplicates,
            "notices": [f"{count:,} x {notice}" for notice, count in sorted(self.notices.items())],
            "origins": {
                reason: [{"file": o.file, "line": o.line} for o in origins]
                for reason, origins in sorted(self.origins.items())
            },
        }
