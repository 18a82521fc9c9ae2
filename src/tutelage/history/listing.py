"""The runs below a folder, one line of facts each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tutelage.errors import Problem, RecipeError
from tutelage.history.record import Record, number, runs_below

ENDED = ("done", "stopped", "failed", "diverged")
"""What a run says of its own end."""


def listing(folder: str | Path = "runs") -> list[dict[str, Any]]:
    """Every run at or below a folder, the one begun last at the end. Nothing that lies there makes it fail.

    Raises:
        RecipeError: usage/not-a-run, when there is no such folder.
    """
    above = Path(folder)
    if not above.is_dir():
        found = "a file" if above.is_file() else "no such folder"
        fix = "name the folder that holds run folders, as in `tutelage runs list experiments`"
        raise RecipeError(Problem("usage/not-a-run", "runs lie in a folder", str(above), found=found, fix=fix))
    rows = [_described(Record(path), above) for path in runs_below(above)]
    return sorted(rows, key=lambda row: (row["begun"] or "", row["name"]))


def status(record: Record) -> str:
    """How it stands: running, done, stopped, failed, diverged, or broken off."""
    said = record.table("result.json").get("status")
    if record.is_held():
        return "running"
    return str(said) if said in ENDED else "broken off"


def steps_made(record: Record) -> int:
    """How far the run came, by the last line of its journal."""
    step = record.last_line("metrics.jsonl").get("step")
    return step if type(step) is int else 0


def _described(record: Record, above: Path) -> dict[str, Any]:
    known, plan = record.table("run.json"), record.table("plan.json")
    sessions = [one for one in _listed(known.get("sessions")) if isinstance(one, dict)]
    planned = plan.get("steps")
    return {
        "name": _name(record.folder, above),
        "folder": str(record.folder),
        "status": status(record),
        "steps": {"made": steps_made(record), "planned": planned if type(planned) is int else None},
        "heldout": _verdict(record),
        "checkpoints": _checkpoints(record),
        "model": bool(record.weights()),
        "begun": _begun(record, sessions),
        "sessions": len(sessions),
        "unreadable": record.unreadable,
    }


def _name(folder: Path, above: Path) -> str:
    return folder.resolve().name if folder == above else folder.relative_to(above).as_posix()


def _verdict(record: Record) -> dict[str, Any] | None:
    """What the held-out rows said, where the run got so far."""
    said = record.table("result.json").get("heldout")
    if not isinstance(said, dict) or number(said.get("difference")) is None:
        return None
    return {"difference": said["difference"], "verdict": str(said.get("verdict"))}


def _checkpoints(record: Record) -> dict[str, Any]:
    saved = record.saved()
    return {
        "count": len(saved),
        "newest": saved[0].step if saved else None,
        "bytes": sum(checkpoint.bytes for checkpoint in saved),
        "put_aside": len(list(put_aside(record))),
    }


def put_aside(record: Record) -> Iterator[Path]:
    """Folders of checkpoints that were found not to be whole."""
    try:
        yield from sorted(record.checkpoints.folder.glob("step-*.broken-*"))
    except OSError as error:
        record.unreadable["checkpoints"] = str(error.strerror or error)


def _begun(record: Record, sessions: list[dict[str, Any]]) -> str | None:
    """When its first session began; before that is written, when the folder was touched last."""
    if sessions and isinstance(sessions[0].get("started"), str):
        return str(sessions[0]["started"])
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.folder.stat().st_mtime))
    except OSError:
        return None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
