"""A sweep from its first run to its table. `sweep.json` says at any moment how it stands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.config.document import read
from tutelage.errors import CLASSES, CODES, Problem, RecipeError, TutelageError
from tutelage.runs import Run
from tutelage.screen import SILENT, Screen
from tutelage.signals import StopRequested
from tutelage.sweep import field, page
from tutelage.sweep.grid import Setting, settings
from tutelage.sweep.halving import Rung, rungs
from tutelage.sweep.process import Process, Start, run_all, stopped
from tutelage.sweep.table import Entry, tabulate
from tutelage.sweep.trial import Trial

FILE, RECIPE, LOGS = "sweep.json", "recipe.yaml", "logs"
FOR_GOOD = (2, 3, 4, 6, 7)
"""Exit codes of runs that would fail again: the recipe, the rows, the model, its numbers, what is refused."""


class Sweep:
    """A folder of runs, one for each setting and seed."""

    def __init__(
        self,
        recipe: Path,
        arguments: Sequence[str],
        folder: Path | None = None,
        *,
        seeds: int = 1,
        halving: int | None = 3,
        at_once: int = 1,
        screen: Screen = SILENT,
        start: Start | None = None,
    ) -> None:
        """Check everything that can be checked without reading rows.

        Raises:
            RecipeError: everything that is wrong, at once; recipe/changed, where the folder holds another sweep.
        """
        self.settings: list[Setting] = settings(recipe, arguments, seeds=seeds)
        output = Path(self.settings[0].recipe.output)
        self.folder = Run(folder or output.with_name(f"sweep-{output.name}"), say=screen.say)
        self.recipe, self.at_once, self.screen = recipe, at_once, screen
        self.asked: dict[str, Any] = {"arguments": list(arguments), "seeds": seeds, "halving": halving}
        self.rungs: list[Rung] = rungs(len(self.settings), halving)
        self.before: dict[str, Any] = {}
        self._start = start
        self._go_on_or_refuse()

    def _go_on_or_refuse(self) -> None:
        if self.folder.is_empty():
            return
        known = self.folder.read_json(FILE)
        if not isinstance(known, dict):
            what = f"`{self.folder.folder}` already holds something that is no sweep"
            fix = "choose another folder with --out runs/sweep-NAME"
            raise RecipeError(Problem("recipe/run-exists", what, str(self.folder.folder), fix=fix))
        old, new = _flat(read(self.folder.folder / RECIPE)[0]), _flat(read(self.recipe)[0])
        changed = [(name, old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)]
        asked = known.get("asked") or {}
        changed += [(name, asked.get(name), now) for name, now in self.asked.items() if asked.get(name) != now]
        if changed:
            raise RecipeError(
                *(
                    Problem(
                        "recipe/changed",
                        f"`{name}` is not what the sweep was begun with",
                        where=name,
                        found=f"{was!r} before, {now!r} now",
                        fix="bring back what was there, or begin another sweep with --out runs/sweep-NAME",
                    )
                    for name, was, now in changed
                )
            )
        self.before = known

    def run(self) -> dict[str, Any]:
        """Train what is left to train; the value is what `sweep.json` holds.

        Raises:
            StoppedError: run/stopped; the same call goes on.
            TutelageError: as reading the data finds; or as the runs did, where every one failed.
        """
        with self.folder.locked():
            runs = field.trials(self.settings, self.folder.folder, seeds=self.asked["seeds"], screen=self.screen)
            self._recall(runs)
            if not (self.folder.folder / RECIPE).is_file():
                self.folder.write_text(RECIPE, self.recipe.read_text("utf-8"))
            entries = [Entry(setting, trials, []) for setting, trials in field.by_setting(runs)]
            try:
                self._climb(entries)
            except BaseException as ended:
                self._write("stopped", entries)
                if isinstance(ended, StopRequested):
                    raise stopped(str(ended)) from None
                raise
            found = self._write("done", entries)
            self.folder.write_text(page.FILE, page.render(found))
        if all(entry.failed for entry in entries):
            raise _all_failed(entries, self.folder.folder)
        return found

    def _recall(self, runs: Sequence[Trial]) -> None:
        """What failed for good in an earlier session is not tried again."""
        told = self.before.get("runs")
        known = {one["name"]: one for one in (told if isinstance(told, list) else []) if isinstance(one, dict)}
        for trial in runs:
            one = known.get(trial.name, {})
            if one.get("error") and one.get("code") in FOR_GOOD:
                trial.code, trial.error = one["code"], str(one["error"])

    def _climb(self, entries: Sequence[Entry]) -> None:
        """To each place in turn; the better part goes on."""
        left = list(entries)
        for number, rung in enumerate(self.rungs, start=1):
            self._write("running", entries)
            due = [(trial, rung.step(trial.steps, trial.warmup)) for entry in left for trial in entry.trials]
            name = "training" if len(self.rungs) == 1 else f"rung {number} of {len(self.rungs)}"
            todo = [(trial, step) for trial, step in due if not trial.failed]
            run_all(todo, self._start or self._process, at_once=self.at_once, screen=self.screen, name=name)
            for entry in left:
                entry.measure(rung)
                if entry.failed:
                    first = entry.failed.error.splitlines()[0]
                    self.screen.say(f"failed  {entry.setting.label}: {first}")
            left = [entry for entry in left if entry.failed is None]
            left.sort(key=lambda entry: entry.marks[-1].nll)
            if number < len(self.rungs):
                behind = left[self.rungs[number].settings :]
                left = left[: self.rungs[number].settings]
                for entry in behind:
                    self.screen.say(f"behind  {entry.setting.label}: {entry.marks[-1].nll:.4f} nats per token")

    @property
    def _process(self) -> Start:
        folder, cores = self.folder.folder, os.cpu_count() or 1
        threads = max(1, cores // self.at_once) if self.at_once > 1 else None

        def start(trial: Trial, step: int) -> Process:
            log = folder / LOGS / f"{trial.name}.log"
            return Process(folder / RECIPE, trial, step, log, threads=threads)

        return start

    def _write(self, status: str, entries: Sequence[Entry]) -> dict[str, Any]:
        confidence = self.settings[0].recipe.evaluate.confidence
        rows, sentences = tabulate(entries, self.rungs, confidence)
        found = {
            "status": status,
            "asked": self.asked,
            "folder": str(self.folder.folder),
            "rungs": [{"share": rung.share, "settings": rung.settings} for rung in self.rungs],
            "sentence": sentences[0] if status == "done" else "",
            "notes": sentences[1:] if status == "done" else [],
            "settings": rows,
            "runs": [_described(trial) for entry in entries for trial in entry.trials],
        }
        self.folder.write_json(FILE, found)
        return found


def _described(trial: Trial) -> dict[str, Any]:
    return {
        "name": trial.name,
        "setting": trial.setting.name,
        "seed": trial.seed,
        "folder": str(trial.folder),
        "overrides": list(trial.overrides),
        "steps": trial.steps,
        "made": trial.made(),
        "code": trial.code,
        "error": trial.error,
    }


def _all_failed(entries: Sequence[Entry], folder: Path) -> TutelageError:
    """The error of the first run, for its exit code, with what it said."""
    first = next(trial for entry in entries for trial in entry.trials if trial.failed)
    code = first.error.removeprefix("error[").partition("]")[0]
    code = code if code in CODES else "worker/lost"
    what = f"every run of the sweep failed, {first.name} with this"
    kind = CLASSES[code.partition("/")[0]]
    return kind(Problem(code, what, str(folder / LOGS / f"{first.name}.log"), first.error))


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Each value by its dotted name."""
    parts: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not parts or not value:
        return {name: value}
    return {n: v for key, part in parts for n, v in _flat(part, f"{name}.{key}" if name else str(key)).items()}
