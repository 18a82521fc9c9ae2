"""`tutelage track RUN`: sends what a run wrote down and its trackers have not been told."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage import config
from tutelage.errors import Problem, RecipeError
from tutelage.runs import Run
from tutelage.track.note import Note
from tutelage.track.packages import NEEDS, refuse_missing
from tutelage.track.processes import spawn

OUTCOMES = {0: "sent", 3: "busy"}
"""Exit code of a follower -> what is reported; anything else is `failed`."""


def catch_up(folder: str | Path, names: Sequence[str] = (), *, follow: bool = False) -> list[dict[str, Any]]:
    """For each tracker (those of the run's recipe when none is named) how it went, and up to which step it holds.

    With `follow`, stay until the run has ended.

    Raises:
        RecipeError: usage/not-a-run; recipe/bad-value for a tracker that there is not; recipe/missing-option when
            neither the recipe nor the caller names one.
        MachineError: machine/missing-package.
    """
    run = Run(folder)
    if not (run.folder / "recipe.yaml").is_file():
        found = "no `recipe.yaml` in it" if run.folder.is_dir() else "no such folder"
        fix = "name the folder that `tutelage train` wrote, for example `tutelage track runs/NAME --to wandb`"
        raise RecipeError(Problem("usage/not-a-run", "the folder is not a run", str(folder), found, fix=fix))
    chosen = list(dict.fromkeys(names or config.load(run.folder / "recipe.yaml").recipe.track.to))
    _refuse_unknown(chosen)
    refuse_missing(chosen)
    more = ("--follow",) if follow else ()
    processes = {name: spawn(run, name, *more, detached=False) for name in chosen}
    try:
        return [_report(run, name, process.wait()) for name, process in processes.items()]
    finally:
        for process in processes.values():
            _end(process)


def _refuse_unknown(names: Sequence[str]) -> None:
    if not names:
        what, fix = "no tracker is named, and the recipe of the run names none", f"--to {next(iter(NEEDS))}"
        raise RecipeError(Problem("recipe/missing-option", what, where="--to", fix=fix))
    for name in names:
        if name not in NEEDS:
            fix = f"one of {', '.join(NEEDS)}"
            raise RecipeError(Problem("recipe/bad-value", f"there is no tracker `{name}`", "--to", name, fix=fix))


def _report(run: Run, name: str, code: int) -> dict[str, Any]:
    note = Note.read(run, name)
    report = {"tracker": name, "outcome": OUTCOMES.get(code, "failed"), "sent": note.sent, "error": note.error}
    return {**report, "follower": note.follower} if code == 3 else report


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        process.wait()
