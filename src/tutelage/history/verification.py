"""Whether what a run left is whole: every byte of its checkpoints, its journals, and its model's files.

Of a checkpoint's files the SHA-256 is known, so what stands there is what was written. Of the finished model no digest
is known: a fresh process reproduced it when it was written. Here its headers are held against its files, and its
numbers are looked through for one that is not finite.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.checkpoints import REASON, Broken, read
from tutelage.checkpoints import verify as verify_files
from tutelage.errors import TutelageError
from tutelage.history.listing import put_aside, status
from tutelage.history.record import Record
from tutelage.history.tensors import find_not_finite
from tutelage.models.weights import header_of, tensors_of
from tutelage.runs import JOURNALS

TABLES = ("run.json", "environment.json", "data.json", "plan.json", "base.json", "result.json", "origins.json")
UNFINISHED = ("running", "broken off")
"""How a run stands when its journals may end in the middle of a line."""
AGAIN = (
    "remove result.json of the run; `tutelage train RECIPE --resume` then writes it again from the newest checkpoint"
)
FIXES = {
    "checkpoints": "`--resume` goes on from the newest whole one; a broken one is of no use and may be removed",
    "model": AGAIN,
    "merged": AGAIN,
}
BRING_BACK = "bring the file back from a copy"


@dataclass(slots=True)
class _Found:
    """What is not whole, and what is worth knowing."""

    problems: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def wrong(self, file: str, reason: str) -> None:
        """Note a file, why it is not whole, and what can be done."""
        self.problems.append({"file": file, "reason": reason, "fix": FIXES.get(file.partition("/")[0], BRING_BACK)})


def verify(folder: str | Path) -> dict[str, Any]:
    """What was looked at, and what is not whole: `problems` has a file, a reason and a fix each. Changes nothing.

    Raises:
        RecipeError: usage/not-a-run.
    """
    record, found = Record.at(folder), _Found()
    state = status(record)
    checkpoints = _checkpoints(record, found)
    made = _journals(record, state, checkpoints["newest"], found)
    model = _model(record, state, found)
    for name in TABLES:
        record.table(name)
    for name, reason in record.unreadable.items():
        found.wrong(name, reason)
    aside = [{"folder": f"checkpoints/{path.name}", "reason": _reason(path)} for path in put_aside(record)]
    return {
        "folder": str(record.folder),
        "status": state,
        "checkpoints": checkpoints,
        "put_aside": aside,
        "steps": made,
        "model": model,
        "notes": found.notes,
        "problems": found.problems,
    }


def _checkpoints(record: Record, found: _Found) -> dict[str, Any]:
    """Each checkpoint read and hashed; one that is removed meanwhile, as a run that trains does, is passed by."""
    run = record.table("run.json").get("run")
    each, began = [], time.perf_counter()
    try:
        paths = record.checkpoints.paths()
    except OSError as error:
        found.wrong("checkpoints", str(error.strerror or error))
        paths = []
    for path in reversed(paths):
        reason, size = _why_broken(path, run), 0
        if reason and not path.is_dir():
            continue
        if reason:
            found.wrong(f"checkpoints/{path.name}", reason)
        else:
            size = read(path).bytes
        each.append({"step": int(path.name.removeprefix("step-")), "bytes": size, "whole": not reason})
    whole = [one["step"] for one in each if one["whole"]]
    newest = max(whole) if whole else None
    return {"each": each, "newest": newest, **_speed(sum(one["bytes"] for one in each), began)}


def _why_broken(path: Path, run: Any) -> str:
    """Why a folder is not a whole checkpoint of the run; empty where it is."""
    try:
        checkpoint = read(path)
        if checkpoint.step != int(path.name.removeprefix("step-")):
            raise Broken(f"its manifest is of step {checkpoint.step}")
        if run is not None and checkpoint.run != run:
            raise Broken(f"it is of the run {checkpoint.run}, and this is {run}")
        verify_files(checkpoint)
    except Broken as broken:
        return str(broken)
    except OSError as error:
        return f"{Path(str(error.filename or path)).name} cannot be read: {error.strerror or error}"
    return ""


def _journals(record: Record, state: str, newest: int | None, found: _Found) -> int:
    """How many steps are written down; each stands on a line of its own, in order, and none is left out."""
    made = 0
    for line in record.lines("metrics.jsonl"):
        if line.get("step") != made + 1:
            found.wrong("metrics.jsonl", f"line {made + 1:,} is of step {line.get('step')}, and not of step {made + 1}")
            break
        made += 1
    for name in JOURNALS[1:]:
        for _ in record.lines(name):
            pass
    for name in JOURNALS:
        reason = record.unreadable.get(name, "")
        if "cut short" in reason and state in UNFINISHED:
            found.notes.append(f"{name}: {record.unreadable.pop(name)}; --resume makes it anew")
    if newest is not None and made < newest:
        found.wrong("metrics.jsonl", f"it ends at step {made:,}, and there is a checkpoint of step {newest:,}")
    told = record.table("result.json").get("steps")
    if state == "done" and told != made:
        found.wrong("metrics.jsonl", f"it has {made:,} steps, and result.json says {told}")
    return made


def _model(record: Record, state: str, found: _Found) -> dict[str, Any]:
    """The finished model, and the merged one where it was asked for."""
    size, tensors, began = 0, 0, time.perf_counter()
    if state == "done" and not record.weights():
        found.wrong("model", "the run is done, and there are no weights")
    for folder in (record.folder / "model", record.folder / "merged"):
        for path in _files(folder, found):
            name = f"{folder.name}/{path.name}"
            if path.suffix == ".json":
                if (reason := _why_not_json(path)) is not None:
                    found.wrong(name, reason)
                continue
            size += path.stat().st_size
            try:
                tensors += len(header_of(path))
                if (which := find_not_finite(path)) is not None:
                    found.wrong(name, f"`{which}` holds values that are not finite")
            except TutelageError as error:
                found.wrong(name, error.problems[0].found)
        if (folder / "model.safetensors.index.json").is_file():
            try:
                tensors_of(folder)
            except TutelageError as error:
                found.wrong(folder.name, error.problems[0].found)
    return {"tensors": tensors, **_speed(size, began)}


def _files(folder: Path, found: _Found) -> Iterator[Path]:
    """The weights and settings in a folder."""
    try:
        yield from sorted(path for path in folder.glob("*") if path.suffix in (".json", ".safetensors"))
    except OSError as error:
        found.wrong(folder.name, str(error.strerror or error))


def _why_not_json(path: Path) -> str | None:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return str(error)
    return None


def _reason(path: Path) -> str:
    try:
        return (path / REASON).read_text("utf-8", errors="replace").strip()
    except OSError:
        return "the reason was not written"


def _speed(size: int, began: float) -> dict[str, Any]:
    seconds = time.perf_counter() - began
    return {"bytes": size, "seconds": seconds, "mb_per_second": size / 1e6 / seconds if size else None}
