"""What a run folder says of itself: each file read for what it is, and noted where it cannot be read."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tutelage.checkpoints import Checkpoint, Checkpoints
from tutelage.errors import Problem, RecipeError
from tutelage.runs import HOLDER, LOCK

LONGEST = 1 << 26
"""Bytes of a JSON file that are read at most."""
TAIL = 1 << 16
"""Bytes from the end of a journal in which its last line is looked for."""


class Record:
    """A run folder as it was left, or as another process is writing it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unreadable: dict[str, str] = {}
        """Files that are there and are not what they should be, with the reason."""
        self._tables: dict[str, dict[str, Any]] = {}

    @staticmethod
    def at(folder: str | Path) -> Record:
        """The run in a folder.

        Raises:
            RecipeError: usage/not-a-run.
        """
        path = Path(folder)
        if not is_run(path):
            found = "no run.json in it" if path.is_dir() else "no such folder"
            fix = "`tutelage runs list FOLDER` shows the runs below a folder"
            raise RecipeError(Problem("usage/not-a-run", "the folder is not a run", str(path), found=found, fix=fix))
        return Record(path)

    def table(self, name: str) -> dict[str, Any]:
        """The object in a JSON file; an empty one where there is no such file, or none that can be read."""
        if name not in self._tables:
            self._tables[name] = self._read(name)
        return self._tables[name]

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            if not path.is_file():
                return {}
            if path.stat().st_size > LONGEST:
                raise ValueError(f"it has {path.stat().st_size:,} bytes")
            value = json.loads(path.read_bytes())
            if not isinstance(value, dict):
                raise ValueError("it does not hold an object")
            return value
        except (OSError, ValueError, RecursionError) as error:
            self.unreadable[name] = _said(error)
            return {}

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        """The objects of a journal, up to the first line that is not one."""
        path = self.folder / name
        try:
            if not path.is_file():
                return
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    value = _line(line)
                    if value is None:
                        cut = "" if line.endswith(b"\n") else "cut short and "
                        self.unreadable[name] = f"line {number:,} is {cut}not a JSON object"
                        return
                    yield value
        except OSError as error:
            self.unreadable[name] = _said(error)

    def last_line(self, name: str) -> dict[str, Any]:
        """The last whole line of a journal, found from its end; empty where there is none."""
        path = self.folder / name
        try:
            if not path.is_file():
                return {}
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - TAIL))
                found = (_line(line) for line in reversed(file.read().split(b"\n")) if line)
                return next((line for line in found if line is not None), {})
        except OSError as error:
            self.unreadable[name] = _said(error)
            return {}

    @property
    def checkpoints(self) -> Checkpoints:
        """What the run can go on from."""
        return Checkpoints(self.folder / "checkpoints")

    def saved(self) -> list[Checkpoint]:
        """The checkpoints with a manifest, the newest first."""
        try:
            return self.checkpoints.all()
        except OSError as error:
            self.unreadable["checkpoints"] = _said(error)
            return []

    def weights(self) -> list[Path]:
        """The files of weights in the finished model."""
        try:
            return sorted(path for path in (self.folder / "model").glob("*.safetensors") if path.is_file())
        except OSError as error:
            self.unreadable["model"] = _said(error)
            return []

    def is_held(self) -> bool:
        """Whether a living process is writing here. Asking takes no lock that a run could be refused for."""
        if not (self.folder / HOLDER).is_file():
            return False
        return _is_locked(self.folder / LOCK)


def is_run(folder: Path) -> bool:
    """Whether a run was begun here, or is about to be."""
    try:
        if any((folder / name).is_file() for name in ("run.json", HOLDER)):
            return True
        return (folder / "recipe.yaml").is_file() and (folder / "origins.json").is_file()
    except OSError:
        return False


def runs_below(folder: Path) -> Iterator[Path]:
    """Every run folder at or below a folder; links are not followed, and nothing is looked for inside of a run."""
    if is_run(folder):
        yield folder
        return
    try:
        with os.scandir(folder) as entries:
            inner = sorted(e.path for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith("."))
    except OSError:  # Gone, or not ours to read.
        return
    for path in inner:
        yield from runs_below(Path(path))


def number(value: Any) -> float | None:
    """The value where it is a number."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _line(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_locked(path: Path) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows, where the lock is another one.
        from filelock import FileLock, Timeout

        try:
            with FileLock(path).acquire(timeout=0):
                return False
        except (Timeout, OSError):
            return True
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # Given back as the file is closed.
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        # Where the file system has no locks, a marker stands in, which names who made it.
        return error.errno == errno.ENOSYS and path.stat().st_size > 0


def _said(error: Exception) -> str:
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)
