"""Runs that may not begin, or do not end: nothing is overwritten, and the folder says how far it got."""

from __future__ import annotations

import json

import pytest

import tinyruns
from tutelage import commands
from tutelage.errors import ModelError, RecipeError


@pytest.fixture
def recipe(workdir, tiny_model, monkeypatch):
    """A recipe of three steps in a fresh folder; saves are proved in this process."""
    tinyruns.prove_here(monkeypatch)
    data = tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations())
    return tinyruns.recipe(tiny_model("llama"), data, workdir / "run")


def test_a_taken_folder_is_refused_and_untouched(recipe, workdir):
    commands.train(recipe)
    before = tinyruns.tree(workdir)
    for verb in (commands.train, commands.check):
        with pytest.raises(RecipeError) as caught:
            verb(recipe)
        assert caught.value.code == "recipe/run-exists"
    assert tinyruns.tree(workdir) == before


@pytest.mark.parametrize("stage", ["train.loop.Step", "export.delivery.save"])
def test_an_interrupted_run_says_so(recipe, workdir, monkeypatch, stage):
    def interrupt(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"tutelage.{stage}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        commands.train(recipe)
    result = json.loads((workdir / "run" / "result.json").read_text())
    assert result["status"] == "stopped"
    assert result["steps"] == (0 if stage == "train.loop.Step" else 3)


def test_an_empty_folder_stays_empty_when_the_model_cannot_be_loaded(recipe, workdir, monkeypatch):
    """So that the same command works once the cause is gone."""
    (workdir / "run").mkdir()
    monkeypatch.setattr("tutelage.models.forward.prove", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        commands.train(recipe)
    assert not list((workdir / "run").iterdir())


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_an_adapter_is_no_model_to_train(recipe, workdir, lora_run, kind):
    """It is refused before anything is read, not when the result cannot be saved."""
    recipe["model"] |= {"path": str(lora_run / "model"), "adapter": {"kind": kind}}
    with pytest.raises(ModelError) as caught:
        commands.check(recipe)
    assert caught.value.code == "model/no-weights"
    assert "merged" in str(caught.value)
    recipe["model"]["path"] = str(lora_run / "merged")
    commands.train(recipe)
