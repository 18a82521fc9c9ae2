"""Pain 10: the four formats are chosen once, said and stored, and updates are not lost between two bfloat16 numbers."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from torch import nn

import tinyruns
from tutelage import commands
from tutelage.errors import RecipeError
from tutelage.models.precision import FLOAT32, Precision
from tutelage.recipe import TrainOptions
from tutelage.train.optimizer import build_optimizer

STEPS, RATE = 100, 1e-5
masters = Precision("bfloat16", "bfloat16", "float32", "float32")
stochastic = Precision("bfloat16", "bfloat16", "float32", "stochastic")


def norm_weights(precision: Precision) -> torch.Tensor:
    """A norm's weights after 100 steps of a constant gradient, as far as the optimizer knows them."""
    parameter = nn.Parameter(torch.ones(4096, dtype=getattr(torch, precision.weights)))
    optimizer = build_optimizer({"norm": parameter}, TrainOptions(), precision)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (parameter.float() * 0.01).sum().backward()
        optimizer.step(RATE, norm=optimizer.norm(), clip=1.0, sound=torch.tensor(True))
    return optimizer.state().get("norm/master", parameter.detach()).double()


def test_norm_weights_move_as_in_float32():
    """By 1e-3, a quarter of the distance to the next bfloat16 number below 1; within 5 % in the mean."""
    expected = 1 - norm_weights(FLOAT32).mean().item()
    assert expected == pytest.approx(STEPS * RATE, rel=0.01)
    for precision in (masters, stochastic):
        moved = 1 - norm_weights(precision).mean().item()
        assert moved == pytest.approx(expected, rel=0.05), precision.master


def test_the_naive_way_loses_every_update():
    """What the protection is for: torch's own AdamW on bfloat16 weights leaves them exactly where they were."""
    parameter = nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
    optimizer = torch.optim.AdamW([parameter], lr=RATE, weight_decay=0.0)
    for _ in range(STEPS):
        parameter.grad = torch.full_like(parameter, 0.01)
        optimizer.step()
    assert torch.equal(parameter, torch.ones_like(parameter))


@pytest.fixture
def recipe(workdir, tiny_model):
    return partial(
        tinyruns.recipe,
        tiny_model("llama"),
        tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations(12)),
        workdir / "run",
    )


def test_the_naive_way_cannot_be_asked_for(recipe):
    with pytest.raises(RecipeError, match=r"precision.master = none") as caught:
        commands.train(recipe(precision={"weights": "bfloat16", "master": "none"}))
    assert caught.value.code == "recipe/conflict"


def test_the_four_formats_are_stored_and_said(workdir, recipe, monkeypatch):
    tinyruns.prove_here(monkeypatch)
    path = tinyruns.write_recipe(workdir / "recipe.yaml", recipe(precision={"optimizer": "bfloat16"}))
    outcome = tinyruns.tutelage("train", path)
    assert outcome.code == 0, outcome.err
    assert "weights float32, products float32, optimizer state bfloat16, float32 masters" in outcome.err
    stored = json.loads((workdir / "run" / "plan.json").read_text())
    expected = {"weights": "float32", "compute": "float32", "optimizer": "bfloat16", "master": "float32"}
    assert {name: stored[name] for name in expected} == expected
