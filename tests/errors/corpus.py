"""The cases of tests/corpus: what lies there, what is made, and what must come of each."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

CORPUS = Path(__file__).parents[1] / "corpus"
sys.path.insert(0, str(CORPUS))
import places  # noqa: E402, F401
import tables  # noqa: E402, F401
from makers import MAKERS  # noqa: E402

NUMBERS = [f"D{n:02}" for n in range(1, 51)] + [f"T{n:02}" for n in range(1, 15)]
POLICIES = ("stop", "quarantine")
_COUNTS = ("trained", "heldout", "duplicates", "conflicts", "cleaned")


@dataclass(frozen=True)
class Case:
    """One entry of expected.yaml, which explains the fields."""

    name: str
    what: str
    file: str | tuple[str, ...] = ()
    made: str = ""
    path: Any = None
    template: str = ""
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 5
    megabytes: int = 128
    powerless: bool = False
    rendering_seconds: float | None = None
    once: bool = False
    why: str = ""
    wrong: str = ""
    both: Mapping[str, Any] | None = None
    stop: Mapping[str, Any] | None = None
    quarantine: Mapping[str, Any] | None = None

    @property
    def number(self) -> str:
        """Its number in the list that the corpus follows."""
        return self.name.partition("-")[0]

    @property
    def files(self) -> tuple[str, ...]:
        """The files of tests/corpus/rows that it takes."""
        return (self.file,) if isinstance(self.file, str) else tuple(self.file)

    def expected(self, policy: str) -> Mapping[str, Any]:
        """What must come of it."""
        expected = self.both or (self.stop if policy == "stop" else self.quarantine)
        assert expected is not None, f"{self.name} does not say what must come of it with on_bad_row={policy}"
        return expected

    def fill(self, folder: Path) -> None:
        """Put its input into a folder."""
        for name in self.files:
            shutil.copy(CORPUS / "rows" / name, folder / name)
        if self.made:
            MAKERS[self.made](folder)

    def recipe(self, folder: Path, model: Path, policy: str, *, output: Path, store: Path) -> dict[str, Any]:
        """The recipe that reads it."""
        path = self.path
        if path is None:
            path = self.files[0] if self.files else next(entry.name for entry in folder.iterdir())
        policies = {"on_bad_row": policy, "max_quarantined": 1, "heldout": 0, "max_length": 256}
        rows = {"train": [{"path": path, **self.source}], "store": str(store)}
        return {
            "model": {"path": str(model), "device": "cpu", **self.model},
            "data": {**rows, **policies, **self.data},
            "train": {"steps": 2, "global_batch_size": 4, **self.train},
            "output": str(output),
        }


def cases() -> dict[str, Case]:
    """Every entry of expected.yaml, by name."""
    text = (CORPUS / "expected.yaml").read_text("utf-8")
    return {name: Case(name, **entry) for name, entry in YAML(typ="safe").load(text).items()}


def differences(told: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """How what came of a case differs from what must; empty when it does not."""
    if "exit" in expected:
        return _refusal(told, expected)
    if "checked" not in told:
        return [f"it was refused:\n{told['text']}"]
    ledger = told["checked"]["ledger"]
    found = {name: ledger[name] for name in _COUNTS}
    lines = {reason: [origin["line"] for origin in origins] for reason, origins in ledger["origins"].items()}
    found["dropped"] = {reason: lines[reason] for reason in ledger["dropped"]}
    found["notices"] = sorted(re.sub(r"\d{4}-\d\d-\d\d", "DATE", notice) for notice in ledger["notices"])
    dropped = {reason: len(where) for reason, where in found["dropped"].items()}
    wrong = [] if dropped == ledger["dropped"] else [f"dropped: {ledger['dropped']}, listed: {dropped}"]
    for name, value in found.items():
        wanted = expected.get(name, type(value)())
        wrong += [] if value == wanted else [f"{name}: {value}, not {wanted}"]
    return wrong


def _refusal(told: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    if "problems" not in told:
        return [f"it was accepted: {told['checked']['ledger']}"]
    problems, wanted = told["problems"], expected["problems"]
    wrong = [] if told["exit"] == expected["exit"] else [f"exit code {told['exit']}, not {expected['exit']}"]
    if len(problems) != len(wanted):
        wrong.append(f"{len(problems)} problems, not {len(wanted)}:\n{told['text']}")
    for number, (problem, entry) in enumerate(zip(problems, wanted, strict=False), 1):
        # Wording may change: what must be named are the code, the place, the field and what was found.
        whole = "\n".join(problem.values())
        says = entry.get("says", [])
        named = [f"`{entry['field']}`"] if "field" in entry else []
        named += [entry["found"]] if "found" in entry else []
        named += [says] if isinstance(says, str) else says
        right = problem["code"] == entry["code"] and problem["where"] == entry.get("at", problem["where"])
        if not right or not all(part in whole for part in named):
            wrong.append(f"problem {number} is {problem}, not {entry}")
    return wrong
