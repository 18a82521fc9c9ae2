"""The run folder: one writer, one reader. Every file is JSON, YAML or safetensors; none is ever half-written.

recipe.yaml · origins.json · environment.json · data.json · quarantine.jsonl · plan.json · rows.jsonl
metrics.jsonl · evaluations.jsonl · samples.jsonl · model/ · result.json · report.html
"""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tutelage.errors import MachineError, Problem, RecipeError


class Run:
    """A run folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def model(self) -> Path:
        """Where the trained model is saved."""
        return self.folder / "model"

    def refuse_if_taken(self) -> None:
        """Make sure that a run can be written here, without leaving anything behind.

        Raises:
            RecipeError: recipe/run-exists, when the folder is not empty.
            MachineError: machine/read-only, when it cannot be written.
        """
        if self.folder.is_file() or not self.is_empty():
            raise RecipeError(
                Problem(
                    "recipe/run-exists",
                    f"`{self.folder}` already holds {'a file' if self.folder.is_file() else 'something'}",
                    where=str(self.folder),
                    why="a run never overwrites anything",
                    fix="choose another folder, as in output=runs/NAME, or remove this one",
                )
            )
        nearest = self.folder
        while not nearest.exists():
            nearest = nearest.parent
        with _explained(self.folder), tempfile.NamedTemporaryFile(dir=nearest):
            pass

    def is_empty(self) -> bool:
        """Whether nothing has been written yet."""
        return not self.folder.is_dir() or not any(self.folder.iterdir())

    def create(self) -> None:
        """Make the folder."""
        with _explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        path = self.folder / name
        temporary = path.with_name(f".{name}.part")
        with _explained(path):
            try:
                with temporary.open("w", encoding="utf-8", errors="replace") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as strict JSON; numbers that are not finite become null."""
        self.write_text(name, json.dumps(_strict(value), ensure_ascii=False, indent=2, allow_nan=False) + "\n")

    def append(self, name: str, values: Iterable[Any]) -> None:
        """Add lines to a .jsonl file."""
        text = "".join(json.dumps(_strict(v), ensure_ascii=False, allow_nan=False) + "\n" for v in values)
        path = self.folder / name
        with _explained(path), path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)

    def read_json(self, name: str) -> Any:
        """The value of a JSON file, or None where there is no such file."""
        path = self.folder / name
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def read_lines(self, name: str) -> Iterator[Any]:
        """The values of a .jsonl file; nothing where there is no such file."""
        path = self.folder / name
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                for line in file:
                    yield json.loads(line)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the file system says into an error with a fix."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            code, what, fix = (
                "machine/disk-full",
                "the disk is full",
                "free some space, or choose another output folder",
            )
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
            code, what, fix = "machine/read-only", "the output folder cannot be written", "output=A/FOLDER/YOU/OWN"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            code, what, fix = (
                "machine/read-only",
                "a file stands where a folder is needed",
                "choose another output folder",
            )
        else:
            raise
        raise MachineError(Problem(code, what, where=str(path), found=str(error.strerror), fix=fix)) from error


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value
