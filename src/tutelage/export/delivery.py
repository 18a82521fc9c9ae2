"""The end of a run: the model is written, and a fresh process reproduces it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    """
    save(forward.model, run.model, **given)  # First: what follows needs memory of its own.
    prompts = [example.input_ids.tolist() for example in examples[:8]]
    with in_float32(forward.model):
        recorded = record(forward, prompts)
    allowed: dict[str, Any] = {"weights": weights}
    if base_of(forward.model) is not forward.model:
        with without_adapter(forward.model), in_float32(forward.model):
            allowed["allowed"] = tolerance(recorded, record(forward, prompts))
    saved = {"folder": str(run.model), "logit_difference": prove(run.model, recorded, **allowed)}
    if merged:
        folder = run.folder / "merged"
        save_merged(forward.model.float(), folder, **given)
        worst = prove(folder, recorded, **{**allowed, "weights": "float32"})
        saved |= {"merged": str(folder), "merged_logit_difference": worst}
    return saved


def try_saving(forward: Forward, folder: Path) -> None:
    """Write what `save` writes of the model, trained or not."""
    forward.model.save_pretrained(folder, safe_serialization=True)
