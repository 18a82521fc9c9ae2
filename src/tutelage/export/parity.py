"""A save is a proof: a fresh process loads the folder with plain `transformers` and must reproduce recorded logits.

in the run:    record(...)  -> parity.safetensors (a few prompts and the last row of logits of each)
fresh process: python -m tutelage.export.parity FOLDER
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tutelage.data.forest import trees_of_one
from tutelage.errors import DivergedError, ModelError, Problem
from tutelage.models.attention import Layout
from tutelage.models.forward import Forward

ROWS = 8
LONGEST = 512
TOLERANCE = 1e-3
"""Largest difference of logits, as a share of the largest logit; float32 on one machine stays far below it."""
FLOOR = 2e-5
"""Rounding: two orders of computing the same float32 logits differ by about this."""
FILE = "parity.safetensors"


@torch.no_grad()
def record(forward: Forward, sequences: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """The logits after the last token of each sequence, by the model in memory.

    Shapes: ids.N (length,), logits.N (vocabulary,)

    Raises:
        DivergedError: train/diverged, when logits are not finite.
    """
    forward.model.eval()
    recorded: dict[str, torch.Tensor] = {}
    for number, sequence in enumerate(sequences[:ROWS]):
        ids = torch.tensor(list(sequence[:LONGEST]), device=forward.device)
        logits = forward.model(input_ids=ids[None], use_cache=False, logits_to_keep=1, **_flat(forward, ids)).logits
        recorded[f"ids.{number}"] = ids.cpu()
        recorded[f"logits.{number}"] = logits[0, -1].float().cpu().clone()
        if not recorded[f"logits.{number}"].isfinite().all():
            raise DivergedError(
                Problem(
                    "train/diverged",
                    "the trained model gives logits that are not finite",
                    why="its weights broke in memory, or grew until its layers overflow; it was not exported",
                    fix="`--resume` goes on from the newest checkpoint; where this comes again, lower "
                    "train.learning_rate and begin another run",
                )
            )
    return recorded


def tolerance(tuned: dict[str, torch.Tensor], base: dict[str, torch.Tensor]) -> float:
    """How far the reloaded logits may be off: always much less than the base model's are.

    Otherwise a save that lost the adapter would pass whenever training changed little.
    """
    names = [name for name in tuned if name.startswith("logits.")]
    distance = min(_distance(base[name], tuned[name]) for name in names)
    return max(FLOOR, min(TOLERANCE, 0.1 * distance))


def prove(
    folder: Path,
    recorded: dict[str, torch.Tensor],
    *,
    allowed: float = TOLERANCE,
    weights: str = "float32",
    trusted: bool = False,
) -> float:
    """Load the folder in a fresh process and compare; the largest relative difference.

    The fresh process reads the weights as `weights` and computes in float32. With `trusted` it runs the code that
    the model came with, which was saved beside it.

    Raises:
        ModelError: save/not-reproduced.
    """
    path = folder / FILE
    save_file(recorded, path)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tutelage.export.parity", *(["--trusted"] * trusted), weights, str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        path.unlink(missing_ok=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    said = json.loads(last) if done.returncode == 0 and last.startswith("{") else None
    worst = math.inf if said is None else said["worst"]
    if said is None or worst > allowed or said["missing"]:
        found = done.stderr.strip()[-600:] if said is None else _found(said, allowed)
        raise ModelError(
            Problem(
                "save/not-reproduced",
                "the saved model is not the one that was trained",
                where=str(folder),
                found=found,
                why="a fresh process loaded the folder and compared its logits with those recorded after training",
                fix="keep the run folder and report this; do not serve the folder",
            )
        )
    return float(worst)


def _found(said: dict[str, Any], allowed: float) -> str:
    """What the fresh process saw, in words."""
    differ = f"logits differ by {said['worst']:.1e}, allowed is {allowed:.1e}"
    missing = said["missing"]
    return f"{differ}; {len(missing):,} tensors are missing: {', '.join(missing[:5])}" if missing else differ


def _flat(forward: Forward, ids: torch.Tensor) -> dict[str, object]:
    if not forward.packed:
        return {}
    layout = Layout(trees_of_one([len(ids)]), forward.backends)
    return {"position_ids": torch.arange(len(ids), device=ids.device)[None], "segments": layout}


def _distance(logits: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference as a share of the largest logit; anything that is not a number is infinitely far."""
    difference = float((logits - expected).abs().max() / expected.abs().max())
    return difference if math.isfinite(difference) else 1e9


def _main(folder: Path, weights: str, *, trusted: bool = False) -> None:
    """What the fresh process does: nothing of Tutelage takes part in loading or computing."""
    from transformers import AutoModelForCausalLM

    recorded = load_file(folder / FILE)
    adapter = folder / "adapter_config.json"
    revision = json.loads(adapter.read_text("utf-8")).get("revision") if adapter.is_file() else None
    model, loading = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, weights),
        use_safetensors=True,
        output_loading_info=True,
        local_files_only=True,
        revision=revision or "main",
        trust_remote_code=trusted,
    )
    model.float().eval()
    worst = 0.0
    with torch.no_grad():
        for number in range(len(recorded) // 2):
            expected = recorded[f"logits.{number}"]
            logits = model(input_ids=recorded[f"ids.{number}"][None]).logits[0, -1].float()
            worst = max(worst, _distance(logits, expected))
    print(json.dumps({"worst": worst, "missing": sorted(loading["missing_keys"])}))


if __name__ == "__main__":
    _main(Path(sys.argv[-1]), sys.argv[-2], trusted="--trusted" in sys.argv[1:-2])
