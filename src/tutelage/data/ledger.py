"""The ledger: every row read is trained, held out, or dropped for a named reason. The sums are checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from tutelage.data.clean import Finding
from tutelage.errors import DataError, Problem
from tutelage.types import Origin

if TYPE_CHECKING:
    from tutelage.data.stream import Dropped

LISTED = 1000
"""How many origins of each reason are written down; all of them are counted."""


SHOWN = 20
"""How many findings of each rule are written down with what was found."""


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
    """Rows whose prompt was read before; unless dropped they are on the side of the first."""
    conflicts: int = 0
    """Prompts that have more than one answer."""
    notices: Counter[str] = field(default_factory=Counter)
    cleaned: dict[str, Counter[str]] = field(default_factory=dict)
    """By rule: how many rows it kept, repaired and dropped."""
    found: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By rule, or by evaluation set: some of what was found, with its origin."""
    contaminated: Counter[str] = field(default_factory=Counter)
    """By evaluation set: rows dropped because they hold one of its questions."""

    def keep(self, split: str, rows: int, examples: int) -> None:
        """Count rows that stayed."""
        self.rows += rows
        if split == "train":
            self.trained += rows
        else:
            self.heldout += rows
        self.examples[split] += examples

    def drop(self, reason: str, origin: Origin) -> None:
        """Count a row that left."""
        self.rows += 1
        self.dropped[reason] += 1
        self._list(reason, origin)

    def refuse(self, problem: Problem) -> None:
        """Count a malformed row."""
        self.drop(problem.code.partition("/")[2], origin_of(problem.where))

    def leave(self, item: Dropped) -> None:
        """Count a row that leaves the stream for a named reason, with what was found in it."""
        self.clean(item.origin, item.findings)
        self.drop(item.reason, item.origin)
        if item.hit is not None:
            hit = item.hit
            self.contaminate(hit.set, item.origin, hit.origin, hit.kind, hit.excerpt)

    def repeat(self, origin: Origin, *, listed: bool = True) -> None:
        """Note a row whose prompt was read before; one that was dropped is listed by its reason."""
        self.duplicates += 1
        if listed:
            self._list("duplicate prompt", origin)

    def clean(self, origin: Origin, findings: Iterable[Finding]) -> None:
        """Note what the rules found in a row; a rule that found several things counts the row once."""
        for rule, found in {finding.rule: finding for finding in findings}.items():
            self.cleaned.setdefault(rule, Counter())[found.action] += 1
            self._show(rule, origin, field=found.field, excerpt=found.excerpt, action=found.action)

    def contaminate(self, name: str, origin: Origin, question: Origin, kind: str, excerpt: str) -> None:
        """Note a row that holds a question of an evaluation set."""
        self.contaminated[name] += 1
        self._show(name, origin, question=str(question), kind=kind, excerpt=excerpt)

    def _show(self, key: str, origin: Origin, **facts: str) -> None:
        shown = self.found.setdefault(key, [])
        if len(shown) < SHOWN:
            shown.append({"file": origin.file, "line": origin.line, **facts})

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
            "conflicts": self.conflicts,
            "cleaned": {rule: dict(sorted(counts.items())) for rule, counts in sorted(self.cleaned.items())},
            "contaminated": dict(sorted(self.contaminated.items())),
            "found": dict(sorted(self.found.items())),
            "notices": [f"{count:,} x {notice}" for notice, count in sorted(self.notices.items())],
            "origins": {
                reason: [{"file": o.file, "line": o.line} for o in origins]
                for reason, origins in sorted(self.origins.items())
            },
        }

    def state(self) -> dict[str, Any]:
        """What `restored` makes an equal ledger from, as JSON."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        origins = {reason: [asdict(origin) for origin in places] for reason, places in self.origins.items()}
        return {**values, "origins": origins}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Ledger:
        """The ledger whose state this was."""
        ledger = cls(**state)
        for name in ("dropped", "examples", "notices", "contaminated"):
            setattr(ledger, name, Counter(getattr(ledger, name)))
        ledger.cleaned = {rule: Counter(counts) for rule, counts in state["cleaned"].items()}
        ledger.origins = {reason: [Origin(**o) for o in origins] for reason, origins in state["origins"].items()}
        return ledger


def origin_of(where: str) -> Origin:
    """The origin that a problem's place names."""
    file, _, line = where.rpartition(":")
    return Origin(file, int(line)) if line.isdigit() else Origin(where, 0)
