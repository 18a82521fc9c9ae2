"""The cases of tests/corpus: what lies there, what is made, and what must come of each."""

from __future__ import annotations

import json
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
from makers import MAKERS  # noqa: E402

NUMBERS = [f"D{n:02}" for n in range(1, 51)] + [f"T{n:02}" for n in range(1, 15)]
POLICIES = ("stop", "quarantine")


@dataclass(frozen=True)
class Case:
    """One entry of expected.yaml."""

    name: str
    what: str
    """What is wrong with the input."""
    file: str | tuple[str, ...] = ()
    """Files of tests/corpus/rows, the first of which is read."""
    made: str = ""
    """The maker that fills the folder instead; `rows.*` is read unless `path` says otherwise."""
    path: Any = None
    template: str = ""
    """A file of tests/corpus/templates (or tests/templates) that the model has for its own."""
    source: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    """Keys of tokenizer_config.json that are put over those of the model."""
    seconds: float = 4
    megabytes: int = 128
    powerless: bool = False
    """Run without the powers of root."""
    why: str = ""
    """Where this differs from the research: the reason."""
    both: Mapping[str, Any] | None = None
    stop: Mapping[str, Any] | None = None
    quarantine: Mapping[str, Any] | None = None

    @property
    def number(self) -> str:
        """Its number in the list of the research."""
        return self.name.partition("-")[0]

    @property
    def files(self) -> tuple[str, ...]:
        """The files of tests/corpus/rows that it takes."""
        return (self.file,) if isinstance(self.file, str) else tuple(self.file)

    def expected(self, policy: str) -> Mapping[str, Any]:
        """What must come of it."""
        expected = self.both or (self.stop if policy == "stop" else self.quarantine)
        assert expected is not None, f"{self.name} does not say what must happen with on_bad_row={policy}"
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


def outcome(told: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What came of a case, in the words of expected.yaml."""
    if "crashed" in told:
        return {"crashed": told["crashed"]}
    if "problems" in told:
        return {
            "exit": told["exit"],
            "codes": [problem["code"] for problem in told["problems"]],
            "at": [problem["where"].replace(str(folder) + "/", "") for problem in told["problems"]],
        }
    ledger = told["checked"]["ledger"]
    lines = {reason: [origin["line"] for origin in origins] for reason, origins in ledger["origins"].items()}
    dropped = {reason: lines[reason] for reason in ledger["dropped"]}
    assert all(len(dropped[reason]) == count for reason, count in ledger["dropped"].items())
    found: dict[str, Any] = {"trained": ledger["trained"], "heldout": ledger["heldout"], "dropped": dropped}
    found |= {name: ledger[name] for name in ("duplicates", "conflicts", "cleaned")}
    found["notices"] = sorted(re.sub(r"\d{4}-\d\d-\d\d", "DATE", notice) for notice in ledger["notices"])
    return found


def expected_outcome(expected: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with what it leaves out filled in."""
    if "exit" in expected:
        codes, places = expected["codes"], expected["at"]
        codes = [codes] * len(places) if isinstance(codes, str) and isinstance(places, list) else codes
        return {
            "exit": expected["exit"],
            "codes": codes if isinstance(codes, list) else [codes],
            "at": places if isinstance(places, list) else [places],
        }
    nothing: dict[str, Any] = {"heldout": 0, "dropped": {}, "duplicates": 0, "conflicts": 0, "cleaned": {}}
    given = {name: value for name, value in expected.items() if name not in ("says", "tokens")}
    return {**nothing, "notices": [], **given}


def brief(told: Mapping[str, Any], folder: Path) -> str:
    """What came of a case, to be read."""
    return told.get("text") or json.dumps(outcome(told, folder), indent=1, ensure_ascii=False)
