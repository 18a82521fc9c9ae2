"""Whole runs of tiny models: the files of the run folder, what they hold, and that a run can be repeated."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import tinyruns
from tutelage import commands
from tutelage.train.schedule import evaluation_points

RESULT = {
    *("status", "steps", "ledger", "heldout", "tasks", "tokens_per_second", "supervised_tokens_per_second"),
    *("peak_memory_bytes", "seconds"),
}
HELDOUT = {"examples", "tokens", "base_nll", "tuned_nll", "difference", "interval", "verdict", "sentence"}
TASK = {"metric", "base", "tuned", "difference", "interval", "n"}
STEP = {
    *("step", "loss", "learning_rate", "grad_norm", "tokens", "computed_tokens", "supervised_tokens", "seconds"),
    "peak_memory_bytes",
}
MEASURED = {"seconds", "peak_memory_bytes", "training_seconds", "tokens_per_second", "supervised_tokens_per_second"}


def strict(text: str):
    """JSON without NaN and infinities."""

    def refuse(name: str):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def lines(path):
    return [strict(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def recipe(workdir, tiny_model, monkeypatch):
    """A recipe of three steps in a fresh folder; saves are proved in this process."""
    tinyruns.prove_here(monkeypatch)
    data = tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations())
    return tinyruns.recipe(tiny_model("llama"), data, workdir / "run")


def test_the_files_of_a_run(learned_run):
    expected = {
        *("recipe.yaml", "origins.json", "environment.json", "data.json", "plan.json", "rows.jsonl", "metrics.jsonl"),
        *("evaluations.jsonl", "samples.jsonl", "model", "result.json", "report.html"),
        *("run.json", "base.json", "checkpoints", ".lock"),
        *("examples.jsonl", "heldout.json", "heldout.jsonl", "general.safetensors"),
    }
    assert {path.name for path in learned_run.iterdir()} == expected
    for path in learned_run.glob("*.json"):
        strict(path.read_text("utf-8"))
    for path in learned_run.glob("*.jsonl"):
        assert lines(path)


def test_the_result_is_whole(learned_run):
    result = strict((learned_run / "result.json").read_text("utf-8"))
    assert result.keys() >= RESULT
    assert result["heldout"].keys() >= HELDOUT
    assert (result["status"], result["steps"]) == ("done", 40)
    ledger = result["ledger"]
    assert ledger["rows"] == 24 == ledger["trained"] + ledger["heldout"] + sum(ledger["dropped"].values())
    heldout = result["heldout"]
    assert heldout["examples"] == ledger["heldout"]
    assert heldout["difference"] == pytest.approx(heldout["tuned_nll"] - heldout["base_nll"])
    low, high = heldout["interval"]
    assert low <= heldout["difference"] <= high < 0
    assert f"{heldout['base_nll']:.3f} -> {heldout['tuned_nll']:.3f}" in heldout["sentence"]
    assert all(result[key] > 0 for key in MEASURED)
    assert result["stopped"] == {"base": 0.0, "tuned": 1.0}


def test_every_step_is_a_line(learned_run):
    metrics = lines(learned_run / "metrics.jsonl")
    result = strict((learned_run / "result.json").read_text("utf-8"))
    assert [m["step"] for m in metrics] == list(range(1, 41))
    assert all(m.keys() >= STEP for m in metrics)
    assert sum(m["seconds"] for m in metrics) == pytest.approx(result["training_seconds"])
    assert all(0 < m["supervised_tokens"] < m["computed_tokens"] <= m["tokens"] for m in metrics)
    assert metrics[-1]["loss"] < metrics[0]["loss"] / 2


def test_samples_pair_base_and_tuned(learned_run):
    samples = lines(learned_run / "samples.jsonl")
    base, tuned = ([s for s in samples if s["model"] == model] for model in ("base", "tuned"))
    assert [s["origin"] for s in base] == [s["origin"] for s in tuned]
    assert len(base) == 2
    assert {s["answer"] for s in tuned} == {"red"} == {s["reference"] for s in tuned}
    assert all(s["stopped"] for s in tuned)
    assert {s["step"] for s in base} == {0}
    assert {s["step"] for s in tuned} == {40}
    assert all(s["decoding"]["method"] == "greedy" for s in samples)


def test_the_held_out_loss_is_measured_before_between_and_after(learned_run):
    evaluations = lines(learned_run / "evaluations.jsonl")
    assert [e["step"] for e in evaluations] == [0, 20, 40, 40]
    heldout = strict((learned_run / "result.json").read_text("utf-8"))["heldout"]
    assert evaluations[0]["nll"] == pytest.approx(heldout["base_nll"])
    assert evaluations[-1]["nll"] == pytest.approx(heldout["tuned_nll"])
    assert evaluation_points(40, 3) == {10, 20, 30}
    assert evaluation_points(2, 8) == {1}
    assert evaluation_points(1, 3) == set()
    assert evaluation_points(10, 0) == set()


def test_the_same_seed_gives_the_same_bits_and_another_does_not(recipe, workdir):
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        recipe["output"], recipe["train"]["seed"] = str(workdir / name), seed
        recipe["model"]["adapter"] = {"kind": "lora", "rank": 2, "dropout": 0.1}
        commands.train(recipe)
    one, two, other = (
        (
            (workdir / name / "model" / "adapter_model.safetensors").read_bytes(),
            [{k: v for k, v in m.items() if k not in MEASURED} for m in lines(workdir / name / "metrics.jsonl")],
            (workdir / name / "samples.jsonl").read_text(),
        )
        for name in ("one", "two", "other")
    )
    assert one == two
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_full_training_is_bit_identical_too(recipe, workdir):
    saved = []
    for name in ("one", "two"):
        recipe["output"] = str(workdir / name)
        commands.train(recipe)
        saved.append((workdir / name / "model" / "model.safetensors").read_bytes())
    assert saved[0] == saved[1]


def test_measuring_does_not_change_what_is_trained(recipe, workdir):
    """Held-out losses and samples draw no randomness and leave no trace."""
    recipe["model"]["adapter"] = {"kind": "lora", "rank": 2, "dropout": 0.3}
    saved = []
    for name, points, samples in (("none", 0, 0), ("many", 2, 4)):
        recipe["output"] = str(workdir / name)
        recipe["evaluate"] |= {"points": points, "samples": samples}
        commands.train(recipe)
        saved.append((workdir / name / "model" / "adapter_model.safetensors").read_bytes())
    assert saved[0] == saved[1]


def test_the_adapter_loads_elsewhere(lora_run, tiny_model):
    """Plain transformers, peft and the merged model give the same logits."""
    ids = torch.arange(5, 30)[None]
    base = AutoModelForCausalLM.from_pretrained(tiny_model("llama"), dtype=torch.float32)
    before = base(ids).logits.detach()
    plain = AutoModelForCausalLM.from_pretrained(lora_run / "model", dtype=torch.float32)(ids).logits
    peft = PeftModel.from_pretrained(base, lora_run / "model")(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(lora_run / "merged", dtype=torch.float32)(ids).logits
    assert torch.allclose(plain, peft, atol=1e-5)
    assert torch.allclose(plain, merged, atol=1e-4)
    assert (plain - before).abs().max() > 0.1
    assert not any((lora_run / "merged").glob("adapter*"))
    assert not (lora_run / "model" / "model.safetensors").exists()


def test_an_adapter_finds_its_base_from_any_folder(workdir, tiny_model, monkeypatch):
    """The recipe may name the base relative to where the run was started."""
    tinyruns.prove_here(monkeypatch)
    (workdir / "base").symlink_to(tiny_model("llama"))
    tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations())
    values = tinyruns.recipe("base", "rows.jsonl", "run", model={"adapter": {"kind": "lora", "rank": 2}})
    commands.train(values)
    elsewhere = workdir / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    AutoModelForCausalLM.from_pretrained(workdir / "run" / "model")
    assert tinyruns.tutelage("chat", workdir / "run", "-m", "Hi", "--max-new-tokens", 2).code == 0


def test_a_held_out_file(recipe, workdir):
    heldout = [{**row, "instruction": f"Again: {row['instruction']}"} for row in tinyruns.demonstrations(6)]
    shared = tinyruns.demonstrations(1)
    recipe["data"]["heldout"] = {"path": str(tinyruns.write_rows(workdir / "heldout.jsonl", heldout + shared))}
    ledger = commands.train(recipe)["ledger"]
    dropped = {"prompt is also held out": 1, "nearly held out": 5}
    assert ledger == {"rows": 31, "trained": 18, "heldout": 7, "dropped": dropped}
    assert {s["origin"]["file"] for s in lines(workdir / "run" / "samples.jsonl")} == {str(workdir / "heldout.jsonl")}


def test_without_held_out_rows_there_is_no_verdict(recipe, workdir):
    recipe["data"]["heldout"] = 0
    result = commands.train(recipe)
    assert result["heldout"] is None
    assert result["tasks"] == {}
    assert result["ledger"]["trained"] == 24
    assert (workdir / "run" / "report.html").is_file()
    assert [set(line) for line in lines(workdir / "run" / "evaluations.jsonl")] == [
        {"step", "model", "general_nll", "kl"}
    ] * 2, "general text needs no held-out rows"


def test_steps_may_go_on_past_an_epoch(recipe, workdir):
    """Rows are used equally often, give or take one epoch."""
    recipe["train"] |= {"steps": 12, "global_batch_size": 4}
    result = commands.train(recipe)
    metrics = lines(workdir / "run" / "metrics.jsonl")
    assert result["steps"] == len(metrics) == 12
    assert strict((workdir / "run" / "plan.json").read_text())["epochs"] is None
    # 18 or so training rows by four: a short step ends each epoch.
    trained = result["ledger"]["trained"]
    assert math.ceil(trained / 4) < 12
    per_epoch = math.ceil(trained / 4)
    assert metrics[per_epoch - 1]["tokens"] < metrics[0]["tokens"]


def test_scores_are_written(recipe, workdir):
    recipe["evaluate"]["score"] = "exact"
    tasks = commands.train(recipe)["tasks"]
    assert set(tasks) == {"exact match"}
    assert tasks["exact match"].keys() >= TASK
    assert {s["correct"] for s in lines(workdir / "run" / "samples.jsonl")} <= {True, False}


def test_sampling_settings_of_the_base_survive(recipe, workdir, tiny_model):
    """Published models carry settings that contradict each other; saving must not fail on them."""
    model = shutil.copytree(tiny_model("llama"), workdir / "base")
    settings = json.loads((model / "generation_config.json").read_text())
    sampling = {"do_sample": False, "temperature": 0.6, "top_p": 0.9}
    (model / "generation_config.json").write_text(json.dumps(settings | sampling))
    recipe["model"]["path"] = str(model)
    commands.train(recipe)
    saved = json.loads((workdir / "run" / "model" / "generation_config.json").read_text())
    assert {key: saved[key] for key in sampling} == sampling
