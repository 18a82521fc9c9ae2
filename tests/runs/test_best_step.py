"""The step that is exported, runs that end early, and runs that stop at a step to go on later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tinyruns
from tutelage import commands
from tutelage.errors import ModelError, RecipeError, StoppedError
from tutelage.runs import Run

OVERCONFIDENT: dict[str, Any] = {
    "train": {"steps": 24, "learning_rate": 5e-2, "global_batch_size": 4},
    "evaluate": {"points": 5, "margin": 0.0, "samples": 0, "knowledge": 0},
    "checkpoint": {"every": 100, "keep": 1},
}
"""The loss on rows that were held out falls and then rises."""


@pytest.fixture
def recipe(workdir: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """All answers to train on say the same; those held out share its beginning and end otherwise."""
    tinyruns.prove_here(monkeypatch)

    def rows(first: int, colour: str) -> list[dict[str, str]]:
        return [
            {"instruction": f"Name colour {n}.", "input": "", "output": f"It is {colour} {colour} {colour}."}
            for n in range(first, first + 16)
        ]

    data = tinyruns.write_rows(workdir / "rows.jsonl", rows(0, "red"))
    heldout = tinyruns.write_rows(workdir / "heldout.jsonl", rows(100, "blue"))
    sections = {**OVERCONFIDENT, "data": {"heldout": {"path": str(heldout)}}}
    return tinyruns.recipe(tiny_model("llama"), data, workdir / "run", **sections)


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return list(Run(folder).read_lines(name))


def losses(folder: Path) -> dict[int, float]:
    return {one["step"]: one["nll"] for one in lines(folder, "evaluations.jsonl") if one["model"] != "tuned"}


def test_the_step_with_the_lowest_held_out_loss_is_exported(recipe: dict[str, Any], workdir: Path) -> None:
    result = commands.train(recipe)
    measured = losses(workdir / "run")
    best = min((step for step in measured if step), key=lambda step: measured[step])
    assert best < 24, measured
    assert result["steps"] == 24
    assert result["best"]["step"] == best
    assert result["best"]["exported"]
    assert result["heldout"]["tuned_nll"] == pytest.approx(measured[best], abs=1e-12)
    assert f"Step {best} of 24" in result["verdict"]["sentence"]
    until = {**recipe, "output": str(workdir / "until")}
    with pytest.raises(StoppedError):
        commands.train(until, until=best)
    state = (Run(workdir / "until").checkpoints.all()[0].folder / "model.safetensors").read_bytes()
    kept = next(one for one in Run(workdir / "run").checkpoints.all() if one.step == best)
    assert (kept.folder / "model.safetensors").read_bytes() == state
    trained, saved = load_file(kept.folder / "model.safetensors"), load_file(workdir / "run/model/model.safetensors")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in trained.items() if name in saved)
    assert trained.keys() & saved.keys()


def test_the_last_step_is_exported_where_the_recipe_says_so(recipe: dict[str, Any], workdir: Path) -> None:
    result = commands.train(recipe, ["export.step=last"])
    measured = losses(workdir / "run")
    assert result["heldout"]["tuned_nll"] == pytest.approx(measured[24], abs=1e-12)
    assert result["best"]["step"] < 24
    assert not result["best"]["exported"]
    again = commands.train(recipe, resume=True)
    assert again["best"]["exported"], "another rule exports again"
    assert again["heldout"]["tuned_nll"] == pytest.approx(measured[result["best"]["step"]], abs=1e-12)


def test_the_step_that_is_named_is_exported(recipe: dict[str, Any], workdir: Path) -> None:
    """Given from the beginning it is saved and kept; given later, it must have been kept."""
    said: list[str] = []
    result = commands.train(recipe, ["export.step=7"], tinyruns.Listening(said))
    assert "export  step 7 is the step that export.step names" in said
    assert result["steps"] == 24
    assert "and step 7 is exported" in result["best"]["sentence"]
    assert result["best"]["sentence"] in result["verdict"]["sentence"]
    assert result["exported_step"] == 7
    kept = {one.step: one for one in Run(workdir / "run").checkpoints.all()}
    assert set(kept) == {7, result["best"]["step"], 24}
    assert {one["step"] for one in result["frontier"] if one["kept"]} == {result["best"]["step"], 24}
    trained, saved = load_file(kept[7].folder / "model.safetensors"), load_file(workdir / "run/model/model.safetensors")
    assert all(torch.equal(saved[name], trained[name]) for name in trained.keys() & saved.keys())
    assert trained.keys() & saved.keys()
    again = commands.train(recipe, ["export.step=7"], resume=True)
    assert json.dumps(again) == json.dumps(result), "and then it is done"
    before = (workdir / "run" / "result.json").read_bytes()
    with pytest.raises(ModelError) as error:
        commands.train(recipe, ["export.step=8"], resume=True)
    assert error.value.code == "checkpoint/not-kept"
    assert error.value.problems[0].found == f"checkpoints of the steps 7, {result['best']['step']}, 24"
    with pytest.raises(RecipeError) as late:
        commands.train(recipe, ["export.step=25"], resume=True)
    assert late.value.code == "recipe/conflict"
    assert (workdir / "run" / "result.json").read_bytes() == before
    best = commands.train(recipe, [f"export.step={result['best']['step']}"], resume=True)
    assert best["best"]["exported"]


def test_a_step_that_is_named_is_reached_before_patience_ends_the_run(recipe: dict[str, Any], workdir: Path) -> None:
    early = commands.train({**recipe, "output": str(workdir / "early")}, ["evaluate.patience=2"])["steps"]
    result = commands.train(recipe, ["evaluate.patience=2", "export.step=23"])
    assert early < 23
    assert result["steps"] == 24
    with pytest.raises(RecipeError) as late:
        commands.check({**recipe, "output": str(workdir / "late")}, ["export.step=25"])
    assert late.value.problems[0].found == "step 25 of 24"


def test_a_named_step_whose_checkpoint_breaks_before_the_end_is_said(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.checkpoints import Checkpoints

    monkeypatch.setattr(Checkpoints, "of_step", lambda self, step, run: None)
    with pytest.raises(ModelError) as error:
        commands.train(recipe, ["export.step=7"])
    assert error.value.code == "checkpoint/not-kept"
    monkeypatch.undo()
    assert commands.train(recipe, ["export.step=last"], resume=True)["steps"] == 24


def test_a_run_that_is_done_is_merged_where_that_is_asked_for_later(recipe: dict[str, Any], workdir: Path) -> None:
    lora = [*("model.adapter.kind=lora", "train.steps=2", "evaluate.points=0"), "evaluate.drift=false"]
    first = commands.train(recipe, lora)
    adapter = (workdir / "run/model/adapter_model.safetensors").read_bytes()
    assert not (workdir / "run" / "merged").exists()
    again = commands.train(recipe, [*lora, "export.merged=true"], resume=True)
    assert again["model"]["merged_logit_difference"] < 1e-4
    assert (workdir / "run" / "merged" / "model.safetensors").is_file()
    assert (workdir / "run/model/adapter_model.safetensors").read_bytes() == adapter
    assert again["heldout"] == first["heldout"]
    assert again == commands.train(recipe, [*lora, "export.merged=true"], resume=True), "and then it is done"


def test_patience_ends_a_run_and_the_end_is_kept(recipe: dict[str, Any], workdir: Path) -> None:
    said: list[str] = []
    result = commands.train(recipe, ["evaluate.patience=2"], tinyruns.Listening(said))
    assert result["steps"] < 24
    assert result["steps"] in losses(workdir / "run")
    assert [line for line in said if line.startswith("stop ")], said
    again = commands.train(recipe, ["evaluate.patience=2"], resume=True)
    assert again["steps"] == result["steps"], "it is done, and stays done"
    longer = commands.train(recipe, ["evaluate.patience=2", "train.steps=26"], resume=True)
    assert longer["steps"] > result["steps"], "more steps are asked for"
    more = commands.train(recipe, ["evaluate.patience=10", "train.steps=26"], resume=True)
    assert more["steps"] == 26, "with more patience it goes on"


def test_a_run_that_was_stopped_at_steps_is_the_run_that_never_was(recipe: dict[str, Any], workdir: Path) -> None:
    whole = commands.train({**recipe, "output": str(workdir / "whole")})
    for until in (5, 8, 13):
        with pytest.raises(StoppedError) as stop:
            commands.train(recipe, resume=True, until=until)
        assert stop.value.exit_code == 75
        assert lines(workdir / "run", "heldout.jsonl")[-1]["step"] == until
        assert Run(workdir / "run").checkpoints.all()[0].step == until
    result = commands.train(recipe, resume=True)
    assert result["best"] == whole["best"]
    timed = ("seconds", "peak_memory_bytes")

    def compared(folder: str, name: str) -> list[str]:
        kept = [{key: one[key] for key in one if key not in timed} for one in lines(workdir / folder, name)]
        return [json.dumps(one) for one in kept if one.get("step") not in (5, 8, 13) or name == "metrics.jsonl"]

    for name in ("metrics.jsonl", "examples.jsonl", "evaluations.jsonl", "heldout.jsonl"):
        assert compared("run", name) == compared("whole", name), name
    model = [workdir / run / "model" / "model.safetensors" for run in ("run", "whole")]
    assert model[0].read_bytes() == model[1].read_bytes()


def test_a_step_beyond_the_end_stops_nothing(recipe: dict[str, Any]) -> None:
    assert commands.train(recipe, ["train.steps=2"], until=50)["steps"] == 2


def test_a_checkpoint_that_is_gone_is_said(recipe: dict[str, Any], workdir: Path, monkeypatch: Any) -> None:
    from tutelage.checkpoints import Checkpoints

    monkeypatch.setattr(Checkpoints, "of_step", lambda self, step, run: None)
    said: list[str] = []
    result = commands.train(recipe, [], tinyruns.Listening(said))
    assert result["heldout"]["tuned_nll"] == pytest.approx(losses(workdir / "run")[24], abs=1e-12)
    assert not result["best"]["exported"]
    assert any("is not there any more" in line for line in said)


def test_other_rows_leave_nothing_that_is_compared_with_them(
    recipe: dict[str, Any], workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the first attempt to go on ends before the base model is measured anew."""
    from tutelage.experiment import Experiment

    with pytest.raises(StoppedError):
        commands.train(recipe, until=4)
    for name in ("rows.jsonl", "heldout.jsonl"):
        kept = (workdir / name).read_text().splitlines(keepends=True)
        (workdir / name).write_text("".join(kept[:8]))

    def ended(self: Experiment, *given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "before", ended)
        with pytest.raises(KeyboardInterrupt):
            commands.train(recipe, resume=True, allow_data_change=True)
    result = commands.train(recipe, resume=True)
    assert result["steps"] == 24
    assert result["heldout"]["examples"] == 8
    base = next(line for line in lines(workdir / "run", "heldout.jsonl") if line["model"] == "base")
    assert len(base["sums"]) == 8
    assert [line["step"] for line in lines(workdir / "run", "examples.jsonl")] == list(range(5, 25))
