"""The rehearsal finds what would fail later, and leaves no trace."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tutelage.data.batch import MicroBatch, pack
from tutelage.errors import MachineError
from tutelage.export.delivery import try_saving
from tutelage.models.adapters import adapt, trainable
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.models.precision import Precision
from tutelage.objectives.nll import nll
from tutelage.recipe import Full, Lora, TrainOptions
from tutelage.train import rehearsal
from tutelage.train.choice import Choice
from tutelage.train.estimate import Estimate, Memory
from tutelage.train.optimizer import build_optimizer
from tutelage.train.rehearsal import rehearse, rehearse_until_it_fits
from tutelage.types import Example, Origin

LENGTHS = (40, 30, 20, 20)


def filled(budget: int) -> MicroBatch:
    """Examples of 20 tokens up to the budget, the longest of 40."""
    rng = np.random.default_rng(0)
    examples, room = [], budget
    for length in LENGTHS:
        if not examples or length <= room:
            ids = rng.integers(5, 300, length).astype(np.int32)
            examples.append(Example(ids, (np.arange(length) > 5).astype(np.float32), Origin("made", 1), 6))
            room -= length
    return pack(examples)


class Case:
    """A tiny model about to be trained."""

    def __init__(self, model, folder, adapter=None):
        self.forward = prove(load_model(locate(str(model))), max_length=64)
        self.forward.model = adapt(self.forward.model, adapter or Full(), seed=0, base=str(model))
        self.parameters = trainable(self.forward.model)
        self.folder = folder

    def given(self, **changed):
        given = {
            "build": lambda: build_optimizer(self.parameters, TrainOptions(), Precision()),
            "save": lambda folder: try_saving(self.forward, folder),
            "folder": self.folder,
        }
        return {**given, **changed}

    def rehearse(self, objective=nll, **changed):
        given = self.given(batch=filled(80), heldout=filled(200), disk_bytes=1000)
        return rehearse(self.forward, objective, self.parameters, **{**given, **changed})

    def until_it_fits(self, objective=nll, *, free=True, allowed=None, tokens=110, longest=40):
        memory = Memory(10**9, 0, 0, 0, 0, 0, 0)
        estimate = Estimate(tokens, "none", 10, memory, 100.0, 1.0, 20.0, 1000)
        choice = Choice(estimate, 10**12, "budget.memory", {"train.token_budget": "it fits"} if free else {})
        work = SimpleNamespace(largest=filled, largest_heldout=filled, longest=longest)
        return rehearse_until_it_fits(
            choice, work, self.forward, objective, self.parameters, allowed=allowed, **self.given()
        )


def above(limit: int):
    """An objective that runs out of memory above so many tokens."""

    def objective(forward, batch):
        if batch.computed_tokens > limit:
            raise torch.OutOfMemoryError("made up")
        return nll(forward, batch)

    return objective


@pytest.mark.parametrize("adapter", [Full(), Lora(rank=2, dropout=0.5)], ids=["full", "lora"])
def test_nothing_is_changed(tiny_model, tmp_path, adapter):
    case = Case(tiny_model("llama"), tmp_path, adapter)
    with torch.no_grad():
        next(iter(case.parameters.values())).view(-1)[:4] = torch.tensor([0.0, -0.0, 1.0, -1.0])
    weights = {name: p.detach().clone() for name, p in case.forward.model.named_parameters()}
    random = torch.get_rng_state()
    done = case.rehearse()
    assert done is not None
    for name, parameter in case.forward.model.named_parameters():
        assert parameter.detach().numpy().tobytes() == weights[name].numpy().tobytes(), name
        assert parameter.grad is None
    assert torch.equal(random, torch.get_rng_state())
    assert list(tmp_path.iterdir()) == []


def test_what_it_measures(tiny_model, tmp_path):
    done = Case(tiny_model("llama"), tmp_path).rehearse()
    assert done.tokens == 70
    assert done.token_seconds > 0 < done.update_seconds
    assert done.peak_memory_bytes > 50e6
    model = tiny_model("llama") / "model.safetensors"
    assert done.saved_bytes > 0.9 * model.stat().st_size


def test_the_state_is_there_while_the_second_pass_runs(tiny_model, tmp_path):
    """Otherwise the rehearsed peak would be below that of the second step."""
    case, seen = Case(tiny_model("llama"), tmp_path), []

    def objective(forward, batch):
        seen.append((len(made), all(p.grad is not None for p in case.parameters.values())))
        return nll(forward, batch)

    made = []

    def build():
        optimizer = build_optimizer(case.parameters, TrainOptions(), Precision())
        made.append(optimizer)
        return optimizer

    case.rehearse(objective, build=build)
    assert seen == [(1, False), (1, True), (1, True)]
    assert made[0].made == 2


def test_memory_that_runs_out_is_told_and_nothing_is_held(tiny_model, tmp_path):
    case = Case(tiny_model("llama"), tmp_path)
    assert case.rehearse(above(69)) is None
    assert all(p.grad is None for p in case.parameters.values())
    assert case.rehearse(above(70)) is not None


def test_other_errors_are_not_memory(tiny_model, tmp_path):
    def objective(forward, batch):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Case(tiny_model("llama"), tmp_path).rehearse(objective)


def test_a_budget_of_the_plan_is_halved_until_it_fits(tiny_model, tmp_path):
    found = Case(tiny_model("llama"), tmp_path).until_it_fits(above(50))
    assert found.estimate.token_budget == 55
    assert "did not fit in the rehearsal" in found.chosen["train.token_budget"]
    assert found.measured["rehearsal"]["tokens"] == 40
    assert found.seconds == pytest.approx(20.0 + 10 * (found.step_seconds - 1.0))


def test_the_longest_example_must_fit(tiny_model, tmp_path):
    with pytest.raises(MachineError) as caught:
        Case(tiny_model("llama"), tmp_path).until_it_fits(above(39))
    assert caught.value.code == "machine/out-of-memory"
    assert "data.max_length" in str(caught.value)


def test_a_budget_of_the_recipe_is_never_changed(tiny_model, tmp_path):
    with pytest.raises(MachineError) as caught:
        Case(tiny_model("llama"), tmp_path).until_it_fits(above(50), free=False)
    assert "train.token_budget=55" in str(caught.value)


def test_more_than_the_memory_that_was_allowed_does_not_fit(tiny_model, tmp_path):
    with pytest.raises(MachineError) as caught:
        Case(tiny_model("llama"), tmp_path).until_it_fits(allowed=1000)
    assert caught.value.code == "machine/out-of-memory"


def test_a_full_disk_is_found_before_the_first_step(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(MachineError) as caught:
        Case(tiny_model("llama"), tmp_path).rehearse()
    assert caught.value.code == "machine/disk-full"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), Exception("I/O error: No space left on device")]
)
def test_a_disk_that_fills_up_while_saving_is_found(tiny_model, tmp_path, error):
    def save(folder):
        (folder / "half").write_bytes(b"x" * 100)
        raise error

    with pytest.raises(MachineError) as caught:
        Case(tiny_model("llama"), tmp_path).rehearse(save=save)
    assert caught.value.code == "machine/disk-full"
    assert list(tmp_path.iterdir()) == []


def test_held_out_rows_are_measured_without_gradients(tiny_model, tmp_path, monkeypatch):
    case, seen = Case(tiny_model("llama"), tmp_path), []
    compute = type(case.forward).nll

    def watched(forward, batch):
        seen.append((batch.tokens, torch.is_grad_enabled()))
        return compute(forward, batch)

    monkeypatch.setattr(type(case.forward), "nll", watched)
    case.rehearse()
    assert seen == [(70, True), (70, True), (70, True), (110, False)]


def test_the_figures_replace_the_estimate(tiny_model, tmp_path):
    found = Case(tiny_model("llama"), tmp_path).until_it_fits()
    stored = found.as_json()
    assert stored["predicted"]["peak_memory_bytes"] == 10**9
    assert stored["measured"]["peak_memory_bytes"] == found.measured["rehearsal"]["peak_memory_bytes"]
    assert replace(found, measured=None).seconds == 20.0
    assert "predicted" in found.measured_line()
