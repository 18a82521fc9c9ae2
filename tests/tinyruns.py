"""Small runs for tests: rows that can be learned, a recipe for a tiny model, and the command line called in-process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.screen import Silent

COLOURS = ["red", "green", "blue", "black", "white", "brown", "yellow", "grey"]


def demonstrations(count: int = 24) -> list[dict[str, str]]:
    """Rows in Alpaca's form whose answers follow from their prompts; no two prompts are equal."""
    return [
        {
            "instruction": f"Name colour number {n} of the box.",
            "input": "",
            "output": f"It is {COLOURS[n % len(COLOURS)]}.",
        }
        for n in range(count)
    ]


def write_rows(path: Path, values: list[Any]) -> Path:
    """The values as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), "utf-8")
    return path


def recipe(model: Path, data: Path, output: Path, /, **sections: Any) -> dict[str, Any]:
    """A recipe of a few steps on the CPU; `sections` are merged into it."""
    whole: dict[str, Any] = {
        "model": {"path": str(model), "device": "cpu", "adapter": {"kind": "full"}},
        "data": {"train": [{"path": str(data)}], "heldout": 0.25, "max_length": 128},
        "train": {"steps": 3, "global_batch_size": 4, "learning_rate": 1e-3},
        "evaluate": {"points": 1, "samples": 2, "max_new_tokens": 4, "knowledge": 0},
        "output": str(output),
    }
    return _merged(whole, sections)


def write_recipe(path: Path, values: dict[str, Any]) -> Path:
    """The recipe as a file; JSON is YAML."""
    path.write_text(json.dumps(values, indent=2), "utf-8")
    return path


def prove_here(monkeypatch: Any) -> None:
    """From now on a save is proved in this process, by the same code: a fresh one takes seconds to start."""
    from tutelage.export import parity

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            parity._main(Path(command[-1]), command[-2])
        return subprocess.CompletedProcess(command, 0, printed.getvalue(), "")

    monkeypatch.setattr(parity.subprocess, "run", run)


class Listening(Silent):
    """A screen that keeps the lines."""

    def __init__(self, said: list[str]) -> None:
        self.say = said.append  # type: ignore[method-assign]


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


def tutelage(*arguments: object) -> Outcome:
    """The command in this process."""
    from tutelage.cli import main

    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["tutelage", *map(str, arguments)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    finally:
        sys.argv = argv
    return Outcome(code, out.getvalue(), err.getvalue())


def process(*arguments: object, folder: Path | None = None, **environment: str) -> Outcome:
    """The command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tutelage", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        env={**os.environ, **environment},
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = dict(one)
    for key, value in other.items():
        both[key] = _merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both
