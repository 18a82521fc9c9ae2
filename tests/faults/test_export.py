"""F26: the process ends at each file operation of the export; the model is whole or not there."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

from harness import HERE, LONG, Job, job, together
from outcomes import outcome

AFTER = 60
"""All steps are made; the export is what is left."""


def begun_with(path: Path) -> bytes:
    """The bytes of the model that training started from."""
    return b"".join(file.read_bytes() for file in sorted(path.iterdir()))


def breaking(r60: Job, folder: Path, at: int, *, half: bool) -> None:
    """End the export at an operation; `model/` proves itself or is absent, and the same command makes it."""
    from safetensors.torch import load_file

    source = begun_with(r60.root / r60.variant)
    r60.broken_off(folder, AFTER)
    run = folder / "run"
    arguments = {"root": str(run), "at": at, "half": half, "since": ".model.part"}
    end = r60.begin(folder, [*HERE, ("operations:die", arguments)], export={"merged": True}).wait()
    assert end.code in (0, 9), end.said[-2000:]
    for model, name in ((run / "model", "adapter_model"), (run / "merged", "model")):
        if model.exists():
            assert load_file(model / f"{name}.safetensors")
            assert not list(model.glob("*.part"))
            assert not (model / "parity.safetensors").exists()
            assert {"tokenizer.json", "tokenizer_config.json"} <= {path.name for path in model.iterdir()}
    assert begun_with(r60.root / r60.variant) == source
    r60.done(folder, export={"merged": True})
    r60.same(folder)
    assert load_file(run / "merged" / "model.safetensors")
    shutil.rmtree(folder)


def test_the_export_ends_at_each_operation(tmp_path):
    r60 = job("lora")
    r60.broken_off(tmp_path / "counted", AFTER)
    out = tmp_path / "operations"
    arguments = {"root": str(tmp_path / "counted" / "run"), "out": str(out), "since": ".model.part"}
    r60.done(tmp_path / "counted", [*HERE, ("operations:record", arguments)], export={"merged": True})
    known = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    names = [name for _, _, name in known]
    assert "rename .model.part to model" in names
    assert "rename .merged.part to merged" in names
    points = [(n, half) for n, kind, _ in known for half in (False, True) if not half or kind in ("write", "save")]
    chosen = points if LONG else points[20::36]
    with outcome("F26", "ended at each file operation of the export and what follows", "lora") as found:
        together(
            [partial(found.check, partial(breaking, r60, tmp_path / f"{n}-{half}", n, half=half)) for n, half in chosen]
        )
        found.note = f"{len(known)} operations, the merged model included"
