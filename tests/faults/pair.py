"""Runs of two processes, which are broken, brought to their end, and compared with an unbroken one."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from outcomes import Outcome

import launching
import tinyruns
from conftest import make_model
from launching import Launched

STEPS, EVERY, KILLS = 60, 5, 4
"""Of a run, between two checkpoints, and how often one run is killed."""
LORA = {"kind": "lora", "rank": 4, "dropout": 0.1}


class Pair:
    """A recipe for two processes, and what its unbroken run comes to."""

    def __init__(self, folder: Path, parallel: str = "replicated") -> None:
        self.folder, self.parallel = folder, parallel
        make_model(folder / "model")
        tinyruns.write_rows(folder / "rows.jsonl", tinyruns.demonstrations(45))
        whole = self.recipe("unbroken")
        launched_at = time.monotonic()
        with launching.train(2, whole, "--resume") as launched:
            launching.wait_for(launched.watched, 120)
            began = time.monotonic()
            assert launched.wait(240) == [0, 0], launched.said(0)
            self.start, self.seconds = began - launched_at, time.monotonic() - began
        self.end = end_of(whole)

    def recipe(self, name: str, *, guard: dict[str, Any] | None = None, **train: Any) -> Path:
        """A new run of the same."""
        values = tinyruns.recipe(
            self.folder / "model",
            self.folder / "rows.jsonl",
            self.folder / name,
            model={"adapter": LORA if self.parallel == "replicated" else {"kind": "full"}},
            train={"global_batch_size": 8, "steps": STEPS, "parallel": self.parallel, **train},
            checkpoint={"every": EVERY, "wait": 0},
            guard=guard or {},
        )
        return tinyruns.write_recipe(self.folder / f"{name}.yaml", values)

    def broken_and_finished(self, found: Outcome, name: str, runs: int, kill: Callable[[Launched], None]) -> None:
        """So many runs, each broken off some times by `kill`, and then brought to the end of the unbroken one."""
        for run in range(runs):
            recipe = self.recipe(f"{name}-{run}")
            for attempt in range(KILLS):
                with found.trial(), launching.train(2, recipe, "--resume", attempt=attempt) as launched:
                    kill(launched)
            with found.trial():
                self.finished(recipe, KILLS)

    def broken_off(self, name: str, after: int) -> Path:
        """The recipe of a run that ended without warning after the checkpoint of a step."""
        recipe, folder = self.recipe(name), self.folder / name
        shutil.copytree(self.folder / "unbroken", folder)
        for path in (folder / "checkpoints").glob("step-*"):
            if int(path.name.removeprefix("step-")) > after:
                shutil.rmtree(path)
        shutil.rmtree(folder / "model")
        for path in (folder / "result.json", folder / "report.html"):
            path.unlink()
        return recipe

    def finished(self, recipe: Path, attempt: int) -> str:
        """Go on to the end and compare with the unbroken run; what was said."""
        with launching.train(2, recipe, "--resume", attempt=attempt) as launched:
            codes = launched.wait(240)
            said = launched.said(0)
            assert codes == [0, 0], said + launched.said(1)
        assert end_of(recipe) == self.end
        return said


def end_of(recipe: Path) -> dict[str, str]:
    """Digests of what a run came to."""
    folder = recipe.with_suffix("")
    last = max((folder / "checkpoints").glob("step-????????"))
    found = [*last.glob("*.safetensors"), last / "state.json", *(folder / "model").glob("*.safetensors")]
    digests = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if k not in ("seconds", "peak_memory_bytes")} for line in lines]
    return {**digests, "metrics": json.dumps(kept), "evaluations": (folder / "evaluations.jsonl").read_text()}
