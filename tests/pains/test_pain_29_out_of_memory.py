"""Pain 29: out of memory after hours, with no way to know beforehand.

The need is said by `check`, tried before the first step, and when memory runs out all the same, the step is made again
in smaller pieces with the same gradient.
"""

from __future__ import annotations

import json

import pytest
import torch

import tinyruns
from tutelage import commands
from tutelage.errors import MachineError
from tutelage.objectives.nll import nll
from tutelage.train import rehearsal


@pytest.fixture
def recipe(tmp_path, tiny_model):
    """`recipe("a", train={...})` is a run of three steps, without a rehearsal of its own size."""
    data = tinyruns.write_rows(tmp_path / "rows.jsonl", tinyruns.demonstrations())

    def make(name: str, **sections):
        sections = {"evaluate": {"points": 0, "samples": 0}, **sections}
        return tinyruns.recipe(tiny_model("llama"), data, tmp_path / name, **sections)

    return make


@pytest.fixture
def limited(monkeypatch):
    """`limited(n)`: from now on memory runs out above n tokens at once, from the second call on where `late`."""

    def limit(tokens: int, *, late: bool = False):
        calls = []

        def objective(forward, batch):
            calls.append(batch.computed_tokens)
            # The rehearsal makes three calls; a run that fails later does so for reasons that it could not see.
            if batch.computed_tokens > tokens and not (late and len(calls) <= 3):
                raise torch.OutOfMemoryError("made up")
            return nll(forward, batch)

        monkeypatch.setattr("tutelage.objectives.nll.nll", objective)
        return calls

    return limit


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


class Said:
    """A screen that keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    def stage(self, name, total):
        from tutelage.screen import SILENT

        return SILENT.stage(name, total)


def test_a_step_that_does_not_fit_is_made_again_with_the_same_gradient(tmp_path, recipe, limited, monkeypatch):
    tinyruns.prove_here(monkeypatch)
    commands.train(recipe("small", train={"token_budget": 60}))
    calls = limited(60, late=True)
    screen = Said()
    commands.train(recipe("large", train={"token_budget": 10_000}), screen=screen)
    small, large = weights(tmp_path / "small"), weights(tmp_path / "large")
    for name, tensor in small.items():
        assert torch.allclose(tensor, large[name], atol=1e-6), name
    metrics = [json.loads(line) for line in (tmp_path / "large" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["token_budget"] <= 60
    assert len({line["token_budget"] for line in metrics}) == 1, "it stays halved"
    assert sum(call > 60 for call in calls[2:]) <= 3, "later steps begin with what fitted"
    assert any("memory ran out in step 1" in line for line in screen.lines)


def test_a_single_example_that_does_not_fit_ends_the_run(tmp_path, recipe, limited):
    limited(5, late=True)
    with pytest.raises(MachineError) as caught:
        commands.train(recipe("run"))
    assert caught.value.code == "machine/out-of-memory"
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"


def test_what_would_fail_at_step_n_fails_before_step_1(tmp_path, recipe, limited):
    """The longest example comes when it comes; the rehearsal has it first."""
    limited(35)
    with pytest.raises(MachineError) as caught:
        commands.train(recipe("run"))
    assert caught.value.code == "machine/out-of-memory"
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not (tmp_path / "run" / "evaluations.jsonl").exists(), "nor was the base measured"


def test_a_plan_that_was_too_bold_is_corrected(tmp_path, recipe, limited, monkeypatch):
    tinyruns.prove_here(monkeypatch)
    limited(100)
    commands.train(recipe("run"))
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["token_budget"] <= 128
    assert "rehearsal" in plan["chosen"]["train.token_budget"]
    assert plan["measured"]["peak_memory_bytes"] > 0 < plan["predicted"]["peak_memory_bytes"]


def test_without_the_rehearsal_the_run_would_have_started(recipe, limited, monkeypatch):
    """The tests above can fail: it is the rehearsal that finds it."""
    tinyruns.prove_here(monkeypatch)
    calls = limited(35)
    kept = rehearsal.rehearse
    done = []

    def blind(*given, **options):
        done.append(1)
        calls.clear()
        return rehearsal.Rehearsal(1, 1, 1.0, 1.0, 1, 1.0)

    monkeypatch.setattr(rehearsal, "rehearse", blind)
    with pytest.raises(MachineError):
        commands.train(recipe("run"))
    assert done
    assert calls, "training began"
    assert kept is not blind


def test_check_says_what_a_run_needs_and_refuses_what_cannot_fit(tmp_path, recipe):
    file = tinyruns.write_recipe(tmp_path / "r.yaml", recipe("run"))
    shown = tinyruns.tutelage("check", file)
    assert shown.code == 0, shown.err
    assert "tokens at once" in shown.out
    plan = json.loads(tinyruns.tutelage("check", file, "--json").out)["plan"]
    predicted = plan["predicted"]
    memory = predicted["memory"]
    assert predicted["peak_memory_bytes"] >= memory["process"] + memory["weights"] + memory["gradients"]
    assert predicted["seconds"] > predicted["step_seconds"] > 0
    assert predicted["disk_bytes"] > memory["weights"]
    assert (plan["token_budget"], plan["checkpointing"]) == (2048, "none")
    refused = tinyruns.tutelage("check", file, "--budget-memory", "50MB")
    assert refused.code == 5
    assert "error[machine/out-of-memory]" in refused.err
    assert "budget.memory" in refused.err
    late = tinyruns.tutelage("check", file, "--budget-time", "0.001s")
    assert late.code == 5
    assert "error[machine/out-of-time]" in late.err
    for option, value in (("--budget-memory", "6"), ("--budget-time", "soon")):
        wrong = tinyruns.tutelage("check", file, option, value)
        assert wrong.code == 2
        assert "error[recipe/bad-value]" in wrong.err
    assert not (tmp_path / "run").exists()
