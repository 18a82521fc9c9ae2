"""Pain 22: no setting is ignored. Every option has a row in the table below, and each changes something."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import tinyruns
from conftest import make_model
from tutelage import commands, config
from tutelage.config.names import general
from tutelage.errors import TutelageError
from tutelage.models.location import locate
from tutelage.objectives import nll as objective


@dataclass(frozen=True)
class Change:
    """A value other than the default, what it must change, and what else must be set for it to matter."""

    value: Any
    changes: str
    given: dict[str, Any] = field(default_factory=dict)


TWO = {"data.train": [{"path": "rows.jsonl"}, {"path": "more.jsonl"}]}
TEXT = {"data.train": [{"path": "text.jsonl"}], "model.template": "none"}
FILE = {"data.heldout": {"path": "more.jsonl"}}
TEXT_FILE = {**TEXT, "data.heldout": {"path": "texts.jsonl"}}
BAD = {"data.train": [{"path": "bad.jsonl"}]}
SCORE = {"evaluate.score": "exact"}

TABLE: dict[str, Change] = {
    "model.path": Change("other", "metrics"),
    "model.revision": Change("main", "error"),
    "model.template": Change("alpaca", "data"),
    "model.adapter.kind": Change("full", "plan", {"model.adapter": {}}),
    "model.adapter.rank": Change(4, "plan"),
    "model.adapter.alpha": Change(32.0, "metrics"),
    "model.adapter.dropout": Change(0.5, "metrics"),
    "model.device": Change("mps" if sys.platform == "linux" else "cuda", "error"),
    "data.train": Change(TWO["data.train"], "data"),
    "data.train.N.path": Change("more.jsonl", "data"),
    "data.train.N.format": Change("dolly", "error"),
    "data.train.N.split": Change("validation", "data", {"data.train": [{"path": "owner/rows"}]}),
    "data.train.N.weight": Change(0.5, "metrics", TWO),
    "data.train.N.limit": Change(12, "data"),
    "data.train.N.completion_after": Change(" is ", "data", TEXT),
    "data.heldout": Change(0.5, "data"),
    "data.heldout.path": Change("third.jsonl", "data", FILE),
    "data.heldout.format": Change("dolly", "error", FILE),
    "data.heldout.split": Change("validation", "data", {"data.heldout": {"path": "owner/rows"}}),
    "data.heldout.limit": Change(3, "data", FILE),
    "data.heldout.completion_after": Change(" is ", "evaluations", TEXT_FILE),
    "data.max_length": Change(8, "error"),
    "data.over_long": Change("drop", "error", {"data.max_length": 38}),
    "data.on_bad_row": Change("quarantine", "error", {**BAD, "data.max_quarantined": 0.5}),
    "data.max_quarantined": Change(0.5, "error", {**BAD, "data.on_bad_row": "quarantine"}),
    "train.epochs": Change(2, "plan", {"train.steps": None}),
    "train.steps": Change(4, "plan"),
    "train.global_batch_size": Change(5, "metrics"),
    "train.learning_rate": Change(2e-3, "metrics"),
    "train.schedule.kind": Change("linear", "metrics"),
    "train.schedule.warmup": Change(2, "metrics"),
    "train.weight_decay": Change(0.5, "weights"),
    "train.betas": Change([0.5, 0.9], "weights"),
    "train.eps": Change(1e-2, "weights"),
    "train.max_grad_norm": Change(0.01, "weights", {"train.eps": 1e-2}),
    "train.seed": Change(1, "metrics"),
    "train.token_budget": Change(40, "micro_batches"),
    "evaluate.points": Change(2, "evaluations"),
    "evaluate.examples": Change(2, "evaluations"),
    "evaluate.samples": Change(3, "samples"),
    "evaluate.max_new_tokens": Change(6, "samples"),
    "evaluate.score": Change("exact", "tasks"),
    "evaluate.score_rows": Change(2, "tasks", SCORE),
    "evaluate.confidence": Change(0.8, "verdict"),
    "export.merged": Change(True, "files"),
    "output": Change("elsewhere", "files"),
}

BASE: dict[str, Any] = {
    "model.path": "model",
    "model.device": "cpu",
    "model.adapter": {"rank": 2},
    "data.train": [{"path": "rows.jsonl"}],
    "data.heldout": 0.25,
    "data.max_length": 128,
    "train.steps": 3,
    "train.global_batch_size": 4,
    "train.learning_rate": 1e-2,
    "evaluate.points": 1,
    "evaluate.samples": 2,
    "evaluate.max_new_tokens": 4,
    "output": "run",
}


def test_every_option_is_in_the_table():
    """An option added to the recipe must come with proof that it does something."""
    assert sorted(option.name for option in config.options()) == sorted(TABLE)


@pytest.mark.parametrize("option", TABLE)
def test_the_option_changes_what_it_says(option, observe):
    change = TABLE[option]
    before = observe(_recipe(change.given))
    after = observe(_recipe({**change.given, option: change.value}))
    if change.changes != "error":
        assert not before.get("error")
        assert not after.get("error")
    assert after.get(change.changes) != before.get(change.changes), f"{option} = {change.value!r} changes nothing"
    assert config.resolve(_recipe({**change.given, option: change.value})).origins, option


def test_a_revision_reaches_the_hub():
    assert locate("owner/name", "v2").arguments()["revision"] == "v2"


def test_an_unknown_key_is_refused_with_the_nearest_name(workdir):
    recipe = _recipe({}) | {"train": {"learning_rte": 1e-4}}
    outcome = tinyruns.process("check", tinyruns.write_recipe(workdir / "r.yaml", recipe), folder=workdir)
    assert outcome.code == 2
    assert outcome.err.startswith("error[recipe/unknown-option]")
    assert "learning_rate" in outcome.err.partition("  fix ")[2]
    assert "r.yaml:" in outcome.err.partition("  where ")[2].splitlines()[0]
    assert outcome.out == ""


def test_the_resolved_recipe_is_stored_with_the_run(learned_run):
    again = config.load(learned_run / "recipe.yaml").recipe
    origins = json.loads((learned_run / "origins.json").read_text())
    assert again.train.steps == 40
    assert again.model.template == "chatml"
    assert origins["train.weight_decay"] == "default"
    assert {general(name) for name in origins} <= {option.name for option in config.options()}


def _recipe(changed: dict[str, Any]) -> dict[str, Any]:
    """BASE with dotted options set; None takes one away."""
    nested: dict[str, Any] = {}
    for name, value in {**BASE, **changed}.items():
        place: Any = nested
        *way, last = name.split(".")
        for key in way:
            place = place[0] if key == "N" else place.setdefault(key, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = json.loads(json.dumps(value))
    return nested


@pytest.fixture(scope="module")
def observe(tmp_path_factory):
    """`observe(recipe)` runs it and gives what can be seen of it; equal recipes are run once."""
    inputs = tmp_path_factory.mktemp("inputs")
    make_model(inputs / "model")
    make_model(inputs / "other", seed=1)
    rows = tinyruns.demonstrations(24)
    text = [{"text": f"Colour {n} is {tinyruns.COLOURS[n % 8]}"} for n in range(36)]
    tinyruns.write_rows(inputs / "rows.jsonl", rows)
    for name, word in (("more.jsonl", "Why"), ("third.jsonl", "How")):
        tinyruns.write_rows(inputs / name, [{**r, "instruction": f"{word} {n}?"} for n, r in enumerate(rows)])
    tinyruns.write_rows(inputs / "bad.jsonl", [*rows, {**rows[0], "output": ""}])
    tinyruns.write_rows(inputs / "text.jsonl", text[:24])
    tinyruns.write_rows(inputs / "texts.jsonl", text[24:])
    seen: dict[str, dict[str, Any]] = {}

    def once(recipe: dict[str, Any]) -> dict[str, Any]:
        key = json.dumps(recipe, sort_keys=True)
        if key not in seen:
            folder = tmp_path_factory.mktemp("run")
            for path in inputs.iterdir():
                (folder / path.name).symlink_to(path)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                seen[key] = _observation(recipe, patch)
        return seen[key]

    return once


def _observation(recipe: dict[str, Any], patch: pytest.MonkeyPatch) -> dict[str, Any]:
    calls: list[int] = []
    original = objective.nll
    patch.setattr(objective, "nll", lambda forward, batch: calls.append(batch.tokens) or original(forward, batch))
    patch.setitem(sys.modules, "datasets", _Hub("datasets"))
    patch.setitem(sys.modules, "datasets.exceptions", SimpleNamespace(DatasetsError=RuntimeError))
    tinyruns.prove_here(patch)
    before = set(os.listdir())
    try:
        result = commands.train(recipe)
    except TutelageError as error:
        return {"error": [problem.code for problem in error.problems]}
    (run,) = map(Path, set(os.listdir()) - before)
    text = {name: (run / name).read_text() for name in ("data.json", "plan.json", "samples.jsonl", "evaluations.jsonl")}
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    weights = [path.read_bytes() for path in sorted((run / "model").glob("*.safetensors"))]
    return {
        **{name.partition(".")[0]: content for name, content in text.items()},
        "metrics": [{k: v for k, v in m.items() if k not in ("seconds", "peak_memory_bytes")} for m in metrics],
        "weights": [hashlib.sha256(content).hexdigest() for content in weights],
        "micro_batches": calls,
        "tasks": result["tasks"],
        "verdict": result["heldout"],
        "files": sorted(str(path) for path in run.rglob("*")),
    }


class _Hub(ModuleType):
    """The hub's data sets: each split has rows of its own."""

    @staticmethod
    def load_dataset(path: str, split: str) -> Any:
        return _Rows([{**row, "instruction": f"{split} {n}"} for n, row in enumerate(tinyruns.demonstrations(16))])


class _Rows(list):
    info = SimpleNamespace(download_checksums=None)

    @property
    def num_rows(self) -> int:
        return len(self)
