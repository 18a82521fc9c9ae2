"""Missing packages are found before a run starts, and nothing of a tracker is imported for that."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tutelage import config
from tutelage.errors import MachineError, RecipeError
from tutelage.track import packages, refuse_missing


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda module: None)
    with pytest.raises(MachineError) as refused:
        refuse_missing(["wandb", "tensorboard"])
    assert [problem.code for problem in refused.value.problems] == ["machine/missing-package"] * 2
    assert [problem.fix for problem in refused.value.problems] == [
        'pip install "tutelage[wandb]"',
        'pip install "tutelage[tensorboard]"',
    ]
    refuse_missing([])


def test_mlflow_without_a_server_needs_a_database(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda module: None if module in packages.DATABASE else object())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(MachineError):
        refuse_missing(["mlflow"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    refuse_missing(["mlflow"])


def test_nothing_heavy_is_imported():
    names = ("torch", "wandb", "mlflow", "tensorboard", "trackio")
    code = f"import sys, tutelage.track as t; t.refuse_missing(()); print([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_section_of_a_recipe():
    recipe = {"model": {"path": "m"}, "data": {"train": [{"path": "rows.jsonl"}]}, "output": "run"}
    assert config.resolve(recipe).recipe.track.to == ()
    chosen = config.resolve(recipe, ["track.to=[wandb, mlflow]", "track.project=mine"]).recipe.track
    assert (chosen.to, chosen.project) == (("wandb", "mlflow"), "mine")
    for override in ("track.to=[wandb, wandb]", "track.to=[comet]", "track.project=", "track.api_key=x"):
        with pytest.raises(RecipeError):
            config.resolve(recipe, [override])
