"""Pain 22: no setting is ignored. Every option has a row in the table below, and each changes something."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

import tinyruns
from conftest import make_model
from tutelage import commands, config, files
from tutelage.config.names import general
from tutelage.errors import ModelError, TutelageError
from tutelage.models.location import locate
from tutelage.models.precision import has_bfloat16
from tutelage.objectives import nll as objective
from tutelage.objectives.base import Loss
from tutelage.recipe import CleanOptions


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
ODD = {"data.train": [{"path": "odd.jsonl"}], "data.over_long": "drop"}
TURNS = {"data.train": [{"path": "turns.jsonl"}]}
AGAIN = {"data.train": [{"path": "again.jsonl"}]}
HUB = {"data.train": [{"path": "owner/rows"}]}
HUB_FILE = {"data.heldout": {"path": "owner/rows"}}
JOINED = {"data.train": [{"path": "rows.jsonl", "join": {"path": "boxes.jsonl", "on": "input"}}]}
JOINED_FILE = {"data.heldout": {"path": "more.jsonl", "join": {"path": "boxes.jsonl", "on": "input"}}}
SHARES = {**TWO, "data.mixture": {"by": "examples"}}
KNOWN = {"data.decontaminate": {"against": ["questions.jsonl"]}}
THOUGHT = {"data.train": [{"path": "thought.jsonl"}]}
FIELDS = {"output": "instruction", "instruction": "output"}

OVERCONFIDENT = {
    "data.train": [{"path": "red.jsonl"}],
    "data.heldout": {"path": "blue.jsonl"},
    "train.steps": 24,
    "train.learning_rate": 5e-2,
    "model.adapter": {"kind": "full"},
    "evaluate.points": 5,
    "evaluate.margin": 0.0,
}

ABOUT_TURNS = ("empty_turns", "same_role_turns", "role_order")

TABLE: dict[str, Change] = {
    "model.path": Change("other", "metrics"),
    "model.revision": Change("main", "error"),
    "model.template": Change("alpaca", "data"),
    "model.trust_remote_code": Change(True, "trusted"),
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
    "data.train.N.subset": Change("other", "data", HUB),
    "data.train.N.streaming": Change(True, "data", {"data.train": [{"path": "owner/rows", "limit": 12}]}),
    "data.train.N.fields": Change(FIELDS, "metrics"),
    "data.train.N.where": Change({"output": "It is red."}, "data", {"data.heldout": 0.4}),
    "data.train.N.join": Change({"path": "boxes.jsonl", "on": "input"}, "data"),
    "data.train.N.join.path": Change("other_boxes.jsonl", "data", JOINED),
    "data.train.N.join.on": Change("output", "error", JOINED),
    "data.train.N.limit": Change(12, "data"),
    "data.train.N.name": Change("mine", "data"),
    "data.train.N.share": Change(3.0, "plan", SHARES),
    "data.train.N.cap": Change(5, "plan"),
    "data.train.N.completion_after": Change(" is ", "data", TEXT),
    "data.heldout": Change(0.5, "data"),
    "data.heldout.path": Change("third.jsonl", "data", FILE),
    "data.heldout.format": Change("dolly", "error", FILE),
    "data.heldout.split": Change("validation", "data", {"data.heldout": {"path": "owner/rows"}}),
    "data.heldout.subset": Change("other", "data", HUB_FILE),
    "data.heldout.streaming": Change(True, "data", {"data.heldout": {"path": "owner/rows", "limit": 12}}),
    "data.heldout.fields": Change(FIELDS, "evaluations", FILE),
    "data.heldout.where": Change({"output": "It is red."}, "data", FILE),
    "data.heldout.join": Change({"path": "boxes.jsonl", "on": "input"}, "data", FILE),
    "data.heldout.join.path": Change("other_boxes.jsonl", "data", JOINED_FILE),
    "data.heldout.join.on": Change("output", "error", JOINED_FILE),
    "data.heldout.limit": Change(3, "data", FILE),
    "data.heldout.completion_after": Change(" is ", "evaluations", TEXT_FILE),
    **{
        f"data.clean.{rule}": Change("drop", "data", TURNS if rule in ABOUT_TURNS else ODD)
        for rule in CleanOptions.model_fields
    },
    "data.duplicates.exact": Change("drop", "data", AGAIN),
    "data.duplicates.prompt": Change("drop", "data", AGAIN),
    "data.duplicates.near": Change("drop", "data", AGAIN),
    "data.duplicates.threshold": Change(0.5, "data", {**AGAIN, "data.duplicates": {"near": "drop"}}),
    "data.duplicates.words": Change(1, "data", {**AGAIN, "data.duplicates": {"near": "drop"}}),
    "data.decontaminate.against": Change(["questions.jsonl"], "data"),
    "data.decontaminate.words": Change(5, "data", KNOWN),
    "data.decontaminate.threshold": Change(0.3, "data", KNOWN),
    "data.mixture.by": Change("examples", "plan", {"data.train": [{"path": "rows.jsonl"}, {"path": "few.jsonl"}]}),
    "data.mixture.temperature": Change(
        5.0,
        "plan",
        {
            "data.train": [{"path": "rows.jsonl"}, {"path": "few.jsonl"}],
            "data.mixture": {"by": "temperature"},
        },
    ),
    "data.mixture.epoch_examples": Change(7, "plan"),
    "data.renderings.train": Change(["terse"], "metrics", {"data.train": [{"path": "boxed.jsonl"}]}),
    "data.renderings.heldout": Change(["terse"], "evaluations", {"data.train": [{"path": "boxed.jsonl"}]}),
    "data.max_length": Change(8, "error"),
    "data.over_long": Change("drop", "error", {"data.max_length": 38}),
    "data.thinking_weight": Change(0.0, "metrics", THOUGHT),
    "data.store": Change("shelf", "stores"),
    "data.store_limit": Change(1, "stores"),
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
    "train.checkpointing": Change("full", "plan"),
    "train.parallel": Change("sharded", "error", {"train.compile": True}),
    "train.compile": Change(True, "compiled"),
    "precision.weights": Change("bfloat16", "plan"),
    "precision.compute": Change("bfloat16", "plan" if has_bfloat16("cpu") else "error"),
    "precision.optimizer": Change("bfloat16", "plan"),
    "precision.master": Change(
        "stochastic", "plan", {"model.adapter": {"kind": "full"}, "precision.weights": "bfloat16"}
    ),
    "checkpoint.every": Change(1, "files", {"checkpoint.keep": 5}),
    "checkpoint.keep": Change(5, "files", {"checkpoint.every": 1}),
    "checkpoint.wait": Change(0, "waits"),
    "guard.non_finite": Change("stop", "error", {"guard.limit": 10}),
    "guard.limit": Change(1, "error", {"guard.non_finite": "skip"}),
    "guard.spikes": Change("stop", "error", {"guard.limit": 10, "train.steps": 20}),
    "budget.memory": Change("8GB", "plan"),
    "budget.time": Change("0.001s", "error"),
    "track.to": Change(["tensorboard"], "project"),
    "track.project": Change("mine", "project", {"track.to": ["tensorboard"]}),
    "evaluate.points": Change(2, "evaluations"),
    "evaluate.examples": Change(2, "evaluations"),
    "evaluate.samples": Change(3, "samples"),
    "evaluate.max_new_tokens": Change(6, "samples"),
    "evaluate.score": Change("exact", "tasks"),
    "evaluate.score_rows": Change(2, "tasks", SCORE),
    "evaluate.confidence": Change(0.8, "verdict"),
    "evaluate.tasks": Change(["colour.yaml"], "tasks"),
    "evaluate.task_rows": Change(3, "tasks", {"evaluate.tasks": ["colour.yaml"]}),
    "evaluate.drift": Change(False, "evaluations"),
    "evaluate.general": Change(["texts.jsonl"], "evaluations"),
    "evaluate.knowledge": Change(0, "knowledge"),
    "evaluate.patience": Change(1, "metrics", {"evaluate.margin": 1e9}),
    "evaluate.margin": Change(1e9, "metrics", {"evaluate.patience": 1}),
    "data.adjust": Change("adjust.jsonl", "data"),
    "evaluate.canaries": Change(2, "data"),
    "export.step": Change("last", "weights", OVERCONFIDENT),
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
    "data.store": "tokens",
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
    with pytest.raises(ModelError) as caught:  # There is no hub here to answer.
        locate("owner/name", "v2")
    assert "owner/name at v2" in str(caught.value)


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
    _write_odd_rows(inputs, rows)
    tinyruns.write_rows(inputs / "text.jsonl", text[:24])
    tinyruns.write_rows(inputs / "texts.jsonl", text[24:])
    for name, colour, first in (("red.jsonl", "red", 0), ("blue.jsonl", "blue", 100)):
        told = [
            {"instruction": f"Name colour {first + n}.", "output": f"It is {colour} {colour} {colour}."}
            for n in range(16)
        ]
        tinyruns.write_rows(inputs / name, [{"input": "", **row} for row in told])
    tinyruns.write_rows(inputs / "adjust.jsonl", [{"row": "aa8457690a2ea93c", "weight": 0}])
    task = {"name": "colour", "data": "rows.jsonl", "prompt": "{instruction}", "reference": "output"}
    tinyruns.write_recipe(inputs / "colour.yaml", {**task, "scorer": {"kind": "exact"}, "max_new_tokens": 4})
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
    waits: set[float] = set()
    original, patiently = objective.nll, files.patiently

    def computed(forward: Any, batch: Any) -> Loss:
        calls.append(batch.tokens)
        loss = original(forward, batch)
        # With a guard, a step that is not finite and, much later, a spike; three passes rehearse.
        factor = {5: float("inf"), 22: 50.0}.get(len(calls), 1.0) if "guard" in recipe else 1.0
        return replace(loss, sum=loss.sum * factor)

    patch.setattr(objective, "nll", computed)
    patch.setattr(
        files, "patiently", lambda write, seconds, *rest: waits.add(seconds) or patiently(write, seconds, *rest)
    )
    patch.setitem(sys.modules, "datasets", _Hub("datasets"))
    patch.setitem(sys.modules, "datasets.exceptions", SimpleNamespace(DatasetsError=RuntimeError))
    tinyruns.prove_here(patch)
    compiled: list[Any] = []
    patch.setattr("tutelage.models.training.compile_layers", compiled.append)
    for name in ("tokens", "shelf"):
        Path(name, "0" * 32).mkdir(parents=True)
        Path(name, "0" * 32, "part").write_text("somebody's tokens")
    before = set(os.listdir())
    try:
        result = commands.train(recipe)
    except TutelageError as error:
        return {"error": [problem.code for problem in error.problems]}
    (run,) = map(Path, set(os.listdir()) - before)
    text = {name: (run / name).read_text() for name in ("data.json", "samples.jsonl", "evaluations.jsonl")}
    plan = json.loads((run / "plan.json").read_text())
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    weights = [path.read_bytes() for path in sorted((run / "model").glob("*.safetensors"))]
    return {
        **{name.partition(".")[0]: content for name, content in text.items()},
        "metrics": [{k: v for k, v in m.items() if k not in ("seconds", "peak_memory_bytes")} for m in metrics],
        "weights": [hashlib.sha256(content).hexdigest() for content in weights],
        "micro_batches": calls,
        "plan": {k: v for k, v in plan.items() if k not in ("predicted", "measured", "memory_limit_bytes")},
        "compiled": len(compiled),
        "trusted": json.loads((run / "environment.json").read_text())["model"]["trust_remote_code"],
        "waits": waits,
        "tasks": result["tasks"],
        "verdict": result["heldout"],
        "knowledge": result["knowledge"],
        "project": _told(run),
        "files": sorted(str(path) for path in run.rglob("*")),
        "stores": {name: len([p for p in Path(name).iterdir() if p.is_dir()]) for name in ("tokens", "shelf")},
    }


def _told(run: Path) -> str | None:
    """What the trackers of a run file it under; None where there are none."""
    path = run / "track" / "run.json"
    return json.loads(path.read_text())["project"] if path.exists() else None


def _write_odd_rows(inputs: Path, rows: list[dict[str, str]]) -> None:
    """Rows in which each cleaning rule finds something, rows that repeat, and what other options need."""
    answers = [
        *("Caf\u00c3\u00a9 au lait.", "One.\r\nTwo.", "A\x01b.", "A\u200bb.", "A\u202eb\u202c.", "A\U000e0041b."),
        *("Cafe\u0301.", "A \ufffd b.", "<nooutput>", "Hello {{name}}.", "The key is AKIAQYLPMN5HIJKLMNOP."),
        *("Write to ann.lee@mail.org.", "As an AI language model, I cannot do that."),
        *("word " * 120 + "and then the", "so on and so on " * 30),
        *("\u4f60\u597d\uff0c\u4e16\u754c\u548c\u5e73\u3002" * 4,),
    ]
    odd = [{"instruction": f"Ask about odd thing {n}", "output": answer} for n, answer in enumerate(answers)]
    odd.append({"instruction": "Copy this long prompt word by word", "output": "Copy this long prompt word by word"})
    odd.append({"instruction": "Ask without an input", "input": "<noinput>", "output": "Yes."})
    tinyruns.write_rows(inputs / "odd.jsonl", [*rows, *odd])
    user, said = {"role": "user", "content": "Ask"}, {"role": "assistant", "content": "Yes."}
    turns = [
        *([{"role": "user", "content": f"Twice {n}"}, user, said] for n in range(6)),
        *([{"role": "user", "content": f"Empty {n}"}, said, {"role": "user", "content": ""}, said] for n in range(6)),
        *([said, {"role": "user", "content": f"First {n}"}, said] for n in range(6)),
        *([{"role": "user", "content": f"Plain {n}"}, said] for n in range(6)),
    ]
    tinyruns.write_rows(inputs / "turns.jsonl", [{"messages": messages} for messages in turns])
    near = [{**row, "instruction": f"Name the colour number {n} of the box."} for n, row in enumerate(rows)]
    tinyruns.write_rows(inputs / "again.jsonl", [*rows, rows[0], {**rows[1], "output": "Blue?"}, *near])
    questions = [rows[2]["instruction"], "Please name colour number 3 of the box that stands over there by the door."]
    tinyruns.write_rows(inputs / "questions.jsonl", [{"question": question} for question in questions])
    tinyruns.write_rows(inputs / "few.jsonl", [{**r, "instruction": f"Few {n}?"} for n, r in enumerate(rows[:8])])
    tinyruns.write_rows(inputs / "boxed.jsonl", [{**row, "input": f"Box {n}"} for n, row in enumerate(rows)])
    tinyruns.write_rows(inputs / "boxes.jsonl", [{"input": "", "box": "wood"}])
    tinyruns.write_rows(inputs / "other_boxes.jsonl", [{"input": "", "box": "iron"}])
    thought = [{"role": "assistant", "content": "<think>\nIt is red.\n</think>\n\nRed."}]
    tinyruns.write_rows(
        inputs / "thought.jsonl",
        [{"messages": [{"role": "user", "content": row["instruction"]}, *thought]} for row in rows],
    )


class _Hub(ModuleType):
    """The hub's data sets: each split of each subset has rows of its own, and others when it is streamed."""

    exceptions = SimpleNamespace(DatasetsError=RuntimeError)
    config = SimpleNamespace()

    @staticmethod
    def load_dataset(path: str, *, name: str | None, split: str) -> Any:
        return _Rows(f"{split} {name}")

    @staticmethod
    def load_dataset_builder(path: str, *, name: str | None) -> Any:
        return SimpleNamespace(hash="c0ffee", as_streaming_dataset=lambda split: list(_Rows(f"{split} {name} stream")))


class _Rows(list):
    cache_files: ClassVar[list[dict[str, str]]] = []

    def __init__(self, said: str) -> None:
        super().__init__({**row, "instruction": f"{said} {n}"} for n, row in enumerate(tinyruns.demonstrations(16)))

    @property
    def num_rows(self) -> int:
        return len(self)

    def with_format(self, form: str) -> Any:
        return SimpleNamespace(iter=lambda size: [SimpleNamespace(to_pylist=lambda: list(self))])
