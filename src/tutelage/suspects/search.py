"""From a run folder to its suspects, and from those to files."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from tutelage import assemble, config, files
from tutelage.data.adjust import name_of_row
from tutelage.data.dataset import Dataset
from tutelage.data.encode import clock
from tutelage.data.split import answered, asked
from tutelage.data.stream import Progress
from tutelage.errors import DataError, Problem, RecipeError
from tutelage.evaluate.curve import Measurement
from tutelage.evaluate.passes import Passes
from tutelage.history.record import Record
from tutelage.runs import Run
from tutelage.suspects.conflicts import in_conflict
from tutelage.suspects.courses import Courses
from tutelage.suspects.ranking import KINDS, Found, by_losses

TOP = 50
SHOWN = 300
"""Characters of a prompt and of an answer that are written down."""
NAME, ADJUST = "suspects.jsonl", "adjust.jsonl"


@dataclass(frozen=True, slots=True)
class Suspects:
    """The suspicious rows of a run, the worst first; those that a run has memorised come after all others."""

    rows: tuple[dict[str, Any], ...]
    """As `suspects.jsonl` holds them."""
    found: dict[str, int]
    """How many rows of each kind there are; `rows` may hold fewer."""
    trained: int
    """Rows that the run has trained on."""
    passes: int
    """The most that a row was trained on."""
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Everything, for machines."""
        facts = {"trained": self.trained, "passes": self.passes, "found": self.found, "notes": list(self.notes)}
        return {**facts, "suspects": list(self.rows)}

    def adjustments(self) -> Iterator[dict[str, Any]]:
        """The lines of a file for `data.adjust`: one for each row, and one for all copies of a row."""
        least: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            if row["row"] not in least or row["weight"] < least[row["row"]]["weight"]:
                least[row["row"]] = row
        for row in least.values():
            why = f"{row['kind']}: {row['why']}"
            yield {"row": row["row"], "origin": row["origin"], "weight": row["weight"], "why": why}

    def write(self, folder: str | Path, out: str | Path | None = None) -> Path:
        """Write `suspects.jsonl` into the run folder and the adjustments beside it, or where `out` says; their path.

        Raises:
            RecipeError: usage/output-exists: a file of adjustments may have been edited by hand.
            MachineError: machine/disk-full, machine/read-only.
        """
        path = Path(folder) / ADJUST if out is None else Path(out)
        text = files.lines(self.adjustments())
        if path.exists() and path.read_text("utf-8", errors="replace") != text:
            what, fix = "the file exists, and may have been edited", "remove it, or name another with --out FILE"
            raise RecipeError(Problem("usage/output-exists", what, str(path), fix=fix))
        Run(folder).write_lines(NAME, self.rows)
        Run(path.parent).write_text(path.name, text)
        return path


def find(
    folder: str | Path,
    *,
    top: int = TOP,
    progress: Progress = lambda stage, rows: None,
    say: Callable[[str], None] = lambda text: None,
) -> Suspects:
    """The suspicious rows of a run, at most `top`.

    Raises:
        RecipeError: usage/not-a-run; usage/no-record.
        DataError: data/changed, when the rows are not those that were trained on.
    """
    record = Record.at(folder)
    if not any(line.get("examples") for line in itertools.islice(record.lines("examples.jsonl"), 1000)):
        what, found = "the run has no record of its rows", f"no {Path(folder) / 'examples.jsonl'}, or nothing in it"
        fix = "train it again; every run writes one from its first step on"
        raise RecipeError(Problem("usage/no-record", what, str(folder), found, fix=fix))
    begun = record.table("run.json").get("begun")
    with clock.at(datetime.fromisoformat(begun) if isinstance(begun, str) else clock.now()):
        prepared = assemble.prepare_data(config.load(Path(folder) / "recipe.yaml").recipe, progress, say)
    _refuse_other_rows(record, prepared.dataset)
    dataset = prepared.dataset
    courses = Courses.of(Passes.of(record.lines("examples.jsonl"), dataset), dataset.store)
    conflicting, unread = in_conflict(courses, dataset)
    known = {one.row for one in conflicting}
    every = [*conflicting, *(one for one in by_losses(courses, _measured(record)) if one.row not in known)]
    every.sort(key=lambda one: (one.kind == "memorised", -one.score, one.row))
    counts = Counter(one.kind for one in every)
    return Suspects(
        rows=tuple(_described(every[:top], dataset)),
        found={kind: counts[kind] for kind in KINDS},
        trained=len(courses.rows),
        passes=int(courses.last.max(initial=0)) + 1,
        notes=tuple(_notes(courses, unread, len(every), top)),
    )


def _refuse_other_rows(record: Record, dataset: Dataset) -> None:
    begun = record.table("run.json").get("begun_with")
    before = begun.get("data", {}).get("encoded rows") if isinstance(begun, dict) else None
    if before is not None and before != dataset.store.digest():
        what = "the rows are not those that the run was trained on"
        why = "a place in its record would be another row's"
        fix = "bring back the rows that its recipe.yaml names"
        raise DataError(Problem("data/changed", what, str(record.folder), why=why, fix=fix))


def _measured(record: Record) -> list[Measurement]:
    """The held-out losses of the run by example; none where it has none."""
    weights = np.array(record.table("heldout.json").get("weights") or [], dtype=np.float64)
    found: list[Measurement] = []
    for line in record.lines("heldout.jsonl"):
        sums = np.array([np.nan if value is None else value for value in line.get("sums", [])], dtype=np.float64)
        if len(sums) == len(weights) > 0 and line.get("model") != "tuned":
            found.append((int(line["step"]), sums, weights))
    return found


def _described(found: list[Found], dataset: Dataset) -> Iterator[dict[str, Any]]:
    """As lines of `suspects.jsonl`."""
    stored = dataset.trained(one.row for one in found)
    for one, text in zip(found, dataset.demonstrations(stored), strict=True):
        yield {
            "row": name_of_row(int(dataset.store.rows["pair"][one.row])),
            "origin": str(dataset.store.origin(one.row)),
            "kind": one.kind,
            "score": round(one.score, 2),
            "losses": [round(loss, 4) for loss in one.losses],
            "weight": one.weight,
            "why": one.why,
            "prompt": _cut("\n".join(asked(text))),
            "answer": _cut("\n".join(answered(text))),
        }


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN].rstrip() + " ..."


def _notes(courses: Courses, unread: int, found: int, top: int) -> Iterator[str]:
    if not (courses.last > 0).any():
        yield (
            "each row was trained on once, so only rows that cost far more than rows like them, and rows in conflict, "
            "can be found; train.epochs=2 or more says what is unlearnable or memorised"
        )
    if unread:
        yield f"{unread:,} more rows may be in conflict; their text was not read"
    if found > top:
        yield f"{found:,} rows are suspicious; the first {top:,} are listed (--top)"
