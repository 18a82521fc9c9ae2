"""Starts real training processes, breaks them, and compares what they leave with an unbroken run, byte for byte.

r60 = job("lora")                               the run of a variant; see jobs.py
run = r60.begin(folder)                         a process that trains into folder/run; `Trial`
run.kill(); run.wait()                          broken
end = r60.resume(folder).wait()                 the same command again, `--resume`; `Ended`
r60.same(folder)                                raises with the first difference from the unbroken run
with outcome("F1", "kill -9", "lora") as found  a line of the matrix; see outcomes.py
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import jobs

import tinyruns
from tutelage import files
from tutelage.runs import JOURNALS
from warm import HERE, KILLED, PATIENCE, Ended, Hook, Trial, Zygote, place, zygote

__all__ = ["HERE", "KILLED", "PATIENCE", "Ended", "Hook", "Job", "Trial", "Zygote", "place", "zygote"]

LONG = os.environ.get("TUTELAGE_FAULTS") == "long"
"""Whether the counts are those of the long suite."""
SHARE = float(os.environ.get("TUTELAGE_FAULTS_SHARE", "1"))
"""Of those counts, where there is less time."""
CLOCK = ("seconds", "peak_memory_bytes")
"""In a line of metrics, what differs between two runs of the same."""
AT_ONCE = 2
"""Processes that are broken at the same time."""
T = TypeVar("T")


def count(fast: int, long: int) -> int:
    """How many trials: the long suite's number where it was asked for."""
    return max(fast, round(SHARE * long)) if LONG else fast


@dataclass
class Job:
    """R60 of a variant: begun, resumed and compared. `root` holds models and rows, made once."""

    root: Path
    variant: str
    zygote: Zygote

    def write(self, folder: Path, **sections: Any) -> Path:
        """The recipe of a run into `folder/run`, as a file."""
        folder.mkdir(parents=True, exist_ok=True)
        values = jobs.recipe(self.root, self.variant, folder / "run", **sections)
        return tinyruns.write_recipe(folder / "recipe.yaml", values)

    def begin(self, folder: Path, before: Sequence[Hook] = HERE, **sections: Any) -> Trial:
        """A process that trains into `folder/run`, by `tutelage train RECIPE --resume`, which begins or continues."""
        return self.zygote.start("train", self.write(folder, **sections), "--resume", before=before)

    resume = begin

    def done(self, folder: Path, before: Sequence[Hook] = HERE, **sections: Any) -> Ended:
        """Begin or resume, and wait for a good end."""
        trial = self.begin(folder, before, **sections)
        end = trial.wait()
        assert end.code == 0, f"exit code {end.code}\n{end.said[-3000:]}"
        assert trial.leftovers() == []
        return end

    @cached_property
    def seconds(self) -> float:
        """That an unbroken run takes, the fork included."""
        return self._unbroken[0].seconds

    @cached_property
    def reference(self) -> dict[str, Any]:
        """What an unbroken run leaves; see `state`."""
        assert self._unbroken
        return state(self.root / f"{self.variant}-reference" / "run")

    @cached_property
    def checkpoints(self) -> dict[int, dict[str, Any]]:
        """By step, the content of every checkpoint that an unbroken run writes; of one that keeps them all."""
        assert self._unbroken
        every = (self.root / f"{self.variant}-all" / "run" / "checkpoints").glob("step-*")
        found = {int(path.name[5:]): content(path) for path in every}
        last = {name: value for name, value in self.reference.items() if name.startswith("last checkpoint: ")}
        again = {f"last checkpoint: {name}": value for name, value in found[jobs.STEPS].items()}
        assert last == again, "two unbroken runs differ: nothing can be compared"
        return found

    @cached_property
    def _unbroken(self) -> list[Ended]:
        """Two runs at once: the one that is compared with, and the one that keeps every checkpoint."""
        kept = {"reference": jobs.KEEP, "all": 1000}
        return together(
            [
                functools.partial(self.done, self.root / f"{self.variant}-{name}", checkpoint={"keep": keep})
                for name, keep in kept.items()
            ]
        )

    def broken_off(self, folder: Path, after: int) -> None:
        """Put a run into `folder` that ended without warning after a step, its checkpoints being committed."""
        made = self.root / f"{self.variant}-after-{after}"
        with _MAKING:
            if not made.exists():
                end = self.begin(made, before=[*HERE, ("patches:end_after", {"step": after})]).wait()
                assert end.code == 9, end.said
        shutil.copytree(made, folder, dirs_exist_ok=True)

    def same(self, folder: Path, *, kept: bool = True) -> None:
        """Raise with the first thing in which the run in `folder/run` is not the unbroken one.

        Without `kept`, which checkpoints are kept is not compared: one may have been put aside.
        """
        run = folder / "run"
        now = state(run)
        for name in [*self.reference, *(name for name in now if name not in self.reference)]:
            if kept or name != "checkpoints kept":
                before, after = self.reference.get(name), now.get(name)
                assert before == after, f"{run}: {name} is not the unbroken run's\n{before}\n{after}"
        lines = [line["step"] for line in read_lines(run / "metrics.jsonl")]
        assert lines == list(range(1, jobs.STEPS + 1)), f"metrics.jsonl has the steps {lines}"
        assert not (found := unfinished(run)), f"left behind: {found}"
        self.true(folder)

    def true(self, folder: Path) -> list[int]:
        """Raise where a checkpoint verifies and differs from the unbroken run's; the steps of those that verify."""
        from tutelage.checkpoints import Broken, Checkpoints, verify

        good = []
        for checkpoint in Checkpoints(folder / "run" / "checkpoints").all():
            try:
                verify(checkpoint)
            except Broken:
                continue
            assert content(checkpoint.folder) == self.checkpoints[checkpoint.step], f"{checkpoint.folder} differs"
            good.append(checkpoint.step)
        return good


_MAKING = threading.Lock()


def together(trials: Sequence[Callable[[], T]]) -> list[T]:
    """What each gives; two are made at a time, and the first failure is raised when all have ended."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [future.result() for future in [pool.submit(trial) for trial in trials]]


@functools.cache
def job(variant: str) -> Job:
    """R60 of a variant; its model and rows are made by the first."""
    root = place() / "r60"
    if not root.exists():
        made = zygote().start(call=("jobs:make", {"folder": str(root)}), before=()).wait()
        assert made.code == 0, made.said
    return Job(root, variant, zygote())


def state(run: Path) -> dict[str, Any]:
    """What a finished run left, by name, without what differs between two runs of the same: clocks, memory, names."""
    checkpoints = sorted((run / "checkpoints").glob("step-????????"))
    result = json.loads((run / "result.json").read_text("utf-8"))
    return {
        "status": result["status"],
        "checkpoints kept": [path.name for path in checkpoints],
        **{f"last checkpoint: {name}": value for name, value in content(checkpoints[-1]).items()},
        **{f"model: {path.name}": _of_model(path) for path in sorted((run / "model").iterdir())},
        **{f"rows of step {line['step']}": line["rows"] for line in read_lines(run / "metrics.jsonl")},
        "metrics.jsonl": [
            {key: value for key, value in line.items() if key not in CLOCK}
            for line in read_lines(run / "metrics.jsonl")
        ],
        **{name: read_lines(run / name) for name in JOURNALS[1:]},
        **{name: result[name] for name in ("ledger", "heldout", "tasks", "stopped", "steps", "skipped_steps")},
        "plan.json, the token budget": json.loads((run / "plan.json").read_text("utf-8"))["token_budget"],
    }


def _of_model(path: Path) -> Any:
    if path.name != "adapter_config.json":
        return files.sha256(path)
    known = json.loads(path.read_text("utf-8"))
    return {**known, "target_modules": sorted(known["target_modules"])}  # A set, whose order is each process's own.


def content(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's files, and what its manifest says but for the name of the run."""
    manifest = json.loads((checkpoint / "manifest.json").read_text("utf-8"))
    for name in ("run", "sha256"):  # The run's name for itself, and the digest of what holds it.
        manifest.pop(name, None)
    hashed = {path.name: files.sha256(path) for path in checkpoint.iterdir() if path.name != "manifest.json"}
    return {**dict(sorted(hashed.items())), "manifest.json": manifest}


def read_lines(path: Path) -> list[Any]:
    """The values of a .jsonl file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def whole_lines(path: Path) -> int:
    """Lines of a journal that another process may be writing."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def unfinished(run: Path) -> list[str]:
    """What a process left half written or half removed."""
    return sorted(str(path.relative_to(run)) for path in run.rglob(".*") if path.suffix in (".part", ".gone"))


def command_line(*arguments: object, seconds: float = PATIENCE, **environment: str) -> Ended:
    """`tutelage ...` in a real process, end to end."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tutelage", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - began)
