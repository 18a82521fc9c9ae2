"""Runs that end in the middle as a killed process does: nothing is tidied up, and nothing is written any more."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage import commands
from tutelage.experiment import Experiment

STEP = ("step", "rows", "loss", "grad_norm", "learning_rate", "skipped", "tokens", "supervised_tokens")
"""What a step is, whoever made it and however long it took."""


class Killed(BaseException):
    """Nothing catches it but the test."""


def after_step(number: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Ends the run when the step was made and written down, before anything else happens."""

    def arrange(patch: pytest.MonkeyPatch) -> None:
        from tutelage.train import journal

        write_down = journal.write_down

        def fatal(step: Any, *given: Any, **named: Any) -> Any:
            found = write_down(step, *given, **named)
            if step.step == number:
                raise Killed
            return found

        patch.setattr(journal, "write_down", fatal)

    return arrange


def within_step(number: int, micro_batch: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Ends the run in a step, when the gradients of some of its micro-batches are gathered."""

    def arrange(patch: pytest.MonkeyPatch) -> None:
        from tutelage.train import loop

        derive = loop.derive

        def fatal(seed: int, purpose: str, *indices: int) -> int:
            if (purpose, *indices) == ("functions", number, micro_batch):
                raise Killed
            return derive(seed, purpose, *indices)

        patch.setattr(loop, "derive", fatal)

    return arrange


def broken_off(recipe: dict[str, Any], when: Callable[[pytest.MonkeyPatch], None], *, resume: bool = False) -> None:
    """Begin the run, or with `resume` continue it, and end it there."""
    with pytest.MonkeyPatch.context() as patch:
        when(patch)
        patch.setattr(Experiment, "record_failure", lambda self, error: None)
        with pytest.raises(Killed):
            commands.train(recipe, resume=resume)
        for thread in threading.enumerate():  # In a process that was killed it would not go on, either way.
            if thread.name == "checkpoint":
                thread.join()


def lines(path: Path) -> list[dict[str, Any]]:
    """Of a journal."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def everything(run: Path) -> dict[str, Any]:
    """All that a run computed, to the last bit: its steps, its measurements, its last checkpoint and its model."""
    newest = max(run.glob("checkpoints/step-????????"))
    tensors = {f"{newest.name}/{path.name}": path.read_bytes() for path in newest.glob("*.safetensors")}
    return {
        "steps": [{key: line[key] for key in STEP} for line in lines(run / "metrics.jsonl")],
        "evaluations": lines(run / "evaluations.jsonl"),
        "answers": [(line["model"], line["answer"]) for line in lines(run / "samples.jsonl")],
        "tensors": tensors | {path.name: path.read_bytes() for path in run.glob("model/*.safetensors")},
    }
