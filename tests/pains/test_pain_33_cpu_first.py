"""Pain 33: everything runs on the CPU, and a device that is not there is refused at once, in one message."""

from __future__ import annotations

import json
import time

import pytest
import torch

import tinyruns
from tutelage import commands
from tutelage.errors import MachineError
from tutelage.models.load import choose_device


def absent() -> str:
    """A device that this machine does not have."""
    return "mps" if torch.cuda.is_available() else "cuda"


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_the_whole_flow(workdir, tiny_model, monkeypatch, kind):
    """check, preview, train, chat, report: each does its part and says where it ran."""
    tinyruns.prove_here(monkeypatch)
    data = tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations())
    values = tinyruns.recipe(tiny_model("qwen2"), data, workdir / "run", evaluate={"score": "exact"})
    values["model"]["adapter"] = {"kind": kind}
    recipe = tinyruns.write_recipe(workdir / "recipe.yaml", values)
    for command, said in {
        ("check", recipe): "nothing is wrong",
        ("preview", recipe): "24 rows = ",
        ("train", recipe): "tutelage chat",
        ("chat", workdir / "run", "-m", "Hello", "--max-new-tokens", 5): "",
        ("report", workdir / "run"): "report.html",
    }.items():
        outcome = tinyruns.tutelage(*command)
        assert outcome.code == 0, outcome.err
        assert said in outcome.out
    plan = json.loads((workdir / "run" / "plan.json").read_text())
    assert plan["device"] == "cpu"
    assert plan["compute"] == plan["weights"] == "float32"


def test_an_absent_device_is_refused_before_anything_is_read(workdir, tiny_model):
    """Under two seconds of work, and nothing is left behind."""
    data = tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations(20_000))
    values = tinyruns.recipe(tiny_model("llama"), data, workdir / "run", model={"device": absent()})
    before = tinyruns.tree(workdir)
    for command in (commands.train, commands.check):
        started = time.process_time()
        with pytest.raises(MachineError) as caught:
            command(values)
        assert time.process_time() - started < 2
        assert caught.value.code == "machine/no-device"
        assert len(caught.value.problems) == 1
        assert "model.device=auto" in str(caught.value)
        assert tinyruns.tree(workdir) == before


def test_auto_takes_what_there_is():
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cuda", "mps", "cpu")
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        assert choose_device("auto") == "cpu"
