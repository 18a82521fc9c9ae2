"""Pain 23: a loss that is not a number skips its step and is counted; ten in a row end the run, loudly."""

from __future__ import annotations

import json
import re

import pytest
import torch

import tinyruns
from tutelage import commands
from tutelage.errors import DivergedError
from tutelage.models.adapters import trainable
from tutelage.objectives.base import Loss
from tutelage.objectives.nll import nll


class Poisoned:
    """The usual objective, which at the steps named gives a loss that is not finite."""

    REHEARSED = 3
    """Calls before the first step."""

    def __init__(self, steps: set[int], value: float = float("inf")) -> None:
        self.steps, self.value = steps, value
        self.call = -self.REHEARSED
        self.weights: list[list[torch.Tensor]] = []

    def __call__(self, forward, batch) -> Loss:
        self.call += 1
        if self.call <= 0:
            return nll(forward, batch)
        self.weights.append([p.detach().clone() for p in trainable(forward.model).values()])
        loss = nll(forward, batch)
        return Loss(loss.sum * self.value, loss.weight) if self.call in self.steps else loss


@pytest.fixture
def recipe(workdir, tiny_model):
    data = tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations(12))
    return tinyruns.recipe(
        tiny_model("llama"),
        data,
        workdir / "run",
        data={"heldout": 0},
        train={"steps": 6, "global_batch_size": 4},
    )


def poison(monkeypatch, objective: Poisoned) -> None:
    tinyruns.prove_here(monkeypatch)
    monkeypatch.setattr("tutelage.objectives.nll.nll", objective)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_one_bad_step_is_skipped_and_counted(workdir, recipe, monkeypatch, value):
    objective = Poisoned({3}, value)
    poison(monkeypatch, objective)
    result = commands.train(recipe)
    assert (result["status"], result["steps"], result["skipped_steps"]) == ("done", 6, 1)
    lines = [json.loads(line) for line in (workdir / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [False, False, True, False, False, False]
    assert lines[2]["loss"] is None
    assert all(line["loss"] is not None for line in lines if not line["skipped"])
    # weights[k] are those that step k+1 started from.
    same = [
        all(torch.equal(a, b) for a, b in zip(x, y, strict=True))
        for x, y in zip(objective.weights, objective.weights[1:], strict=False)
    ]
    assert same == [False, False, True, False, False]
    assert all(torch.isfinite(p).all() for p in objective.weights[-1])


def test_ten_in_a_row_end_the_run_with_the_rows(workdir, recipe, monkeypatch):
    objective = Poisoned(set(range(3, 100)))
    poison(monkeypatch, objective)
    recipe["train"]["steps"] = 30
    outcome = tinyruns.tutelage("train", tinyruns.write_recipe(workdir / "recipe.yaml", recipe))
    assert outcome.code == DivergedError.exit_code == 6
    assert "error[train/diverged]: 10 steps in a row" in outcome.err
    named = outcome.err.partition("  where ")[2].splitlines()[0]
    assert re.fullmatch(r"\S*rows\.jsonl:\d+(, \d+){3}", named), named
    result = json.loads((workdir / "run" / "result.json").read_text())
    assert result["status"] == "diverged"
    assert result["steps"] == 11
    assert "rows.jsonl:" in result["error"]
    first, last = objective.weights[2], objective.weights[-1]
    assert objective.call == 12
    assert all(torch.equal(a, b) for a, b in zip(first, last, strict=True))


def test_nine_in_a_row_do_not(workdir, recipe, monkeypatch):
    poison(monkeypatch, Poisoned(set(range(3, 12)) | set(range(13, 20))))
    recipe["train"]["steps"] = 22
    result = commands.train(recipe)
    assert (result["steps"], result["skipped_steps"]) == (22, 16)


def test_a_diverged_run_keeps_what_was_written_and_is_not_overwritten(workdir, recipe, monkeypatch):
    poison(monkeypatch, Poisoned(set(range(1, 100))))
    recipe["train"]["steps"] = 20
    with pytest.raises(DivergedError):
        commands.train(recipe)
    before = tinyruns.tree(workdir)
    assert "run/metrics.jsonl" in before
    outcome = tinyruns.tutelage("train", tinyruns.write_recipe(workdir.parent / f"{workdir.name}.yaml", recipe))
    assert (outcome.code, "recipe/run-exists" in outcome.err) == (2, True)
    assert tinyruns.tree(workdir) == before
