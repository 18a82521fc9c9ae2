"""The end of a run: the model is written, and a fresh process reproduces it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage import files
from tutelage.data.examples import Examples
from tutelage.export.folder import save, save_merged
from tutelage.export.parity import prove, record, tolerance
from tutelage.models.adapters import base_of, without_adapter
from tutelage.models.forward import Forward
from tutelage.models.precision import in_float32
from tutelage.runs import Run


def deliver(
    forward: Forward, run: Run, examples: Examples, *, merged: bool, weights: str, given: dict[str, Any]
) -> dict[str, Any]:
    """Save the model, and with `merged` the merged one, and have each reproduced on a few examples.

    `given` is what `export.folder.save` takes beside the model. The value is for `result.json`.

    `weights` is the format of the weights in memory. They are compared as float32, in which rounding is small enough
    to tell two models apart; a merged model is written in float32, where merging rounds nothing away.

    Raises:
        ModelError: save/untrained, save/not-reproduced.
        DivergedError: train/diverged, when the model in memory gives logits that are not finite.
    """
    part = _written(run, run.model, lambda part: save(forward.model, part, **given))  # What follows needs memory.
    prompts = [example.input_ids.tolist() for example in examples[:8]]
    with in_float32(forward.model):
        recorded = record(forward, prompts)
    # What was loaded from a folder's own code needs that code to be loaded again.
    own = type(base_of(forward.model)).__module__.startswith("transformers_modules")
    allowed: dict[str, Any] = {"weights": weights, "trusted": own}
    if base_of(forward.model) is not forward.model:
        with without_adapter(forward.model), in_float32(forward.model):
            allowed["allowed"] = tolerance(recorded, record(forward, prompts))
    saved = {"folder": str(run.model), "logit_difference": _proved(part, run.model, recorded, **allowed)}
    if merged:
        folder = run.folder / "merged"
        part = _written(run, folder, lambda part: save_merged(forward.model.float(), part, **given))
        worst = _proved(part, folder, recorded, **{**allowed, "weights": "float32"})
        saved |= {"merged": str(folder), "merged_logit_difference": worst}
    return saved


def _written(run: Run, folder: Path, write: Callable[[Path], None]) -> Path:
    """Write a folder beside the one that it will be; on a full disk it is begun again until there is room."""

    def attempt() -> Path:
        part = _begun(folder)
        write(part)
        return part

    with files.explained(folder):
        return files.patiently(attempt, run.wait_seconds, run.tell_of_waiting)


def _begun(folder: Path) -> Path:
    """Where the folder is written until it was proved; what a killed process left there is removed."""
    part = files.part_of(folder)
    _remove(part)
    part.mkdir()
    return part


def _remove(folder: Path) -> None:
    """Remove a folder; of a link that stands in its place only the link."""
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _proved(part: Path, folder: Path, recorded: dict[str, Any], **allowed: Any) -> float:
    """Prove what was written and give it its name; one of an earlier session, which this one goes beyond, makes room.

    The value is the largest relative difference of logits.
    """
    with files.explained(folder):
        worst = prove(part, recorded, **allowed)
        for path in part.rglob("*"):
            if path.is_file():
                files.sync(path)
        files.sync_folder(part)
        if folder.exists():
            _remove(folder.with_name(f".{folder.name}.gone"))
            os.rename(folder, folder.with_name(f".{folder.name}.gone"))
        os.rename(part, folder)
        files.sync_folder(folder.parent)
        _remove(folder.with_name(f".{folder.name}.gone"))
    return worst


def try_saving(forward: Forward, folder: Path) -> None:
    """Write what `save` writes of the model, trained or not."""
    forward.model.save_pretrained(folder, safe_serialization=True)
