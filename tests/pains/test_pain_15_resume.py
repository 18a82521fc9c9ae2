"""Pain 15: a run that was broken off goes on as if it had not been: the same rows, the same weights, bit for bit."""

from __future__ import annotations

import itertools
import time

import pytest
from brokenoff import after_step, broken_off, everything, lines, within_step

import tinyruns
from tutelage import commands
from tutelage.data.mixture import Mixture, portions
from tutelage.data.plan import global_batches
from tutelage.errors import RecipeError
from tutelage.recipe import DataOptions

LORA = {"kind": "lora", "rank": 4, "dropout": 0.2}
FULL = {"kind": "full"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """19 rows to train on: by four a step, two epochs of five steps are ten, and two more are of a third."""
    return tinyruns.write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", tinyruns.demonstrations())


@pytest.fixture
def make(workdir, tiny_model, data, monkeypatch):
    """`make(name)` is a recipe of 12 steps of several micro-batches each."""
    tinyruns.prove_here(monkeypatch)
    return lambda name, adapter=FULL, **train: a_recipe(tiny_model, data, workdir / name, adapter, train)


def a_recipe(tiny_model, data, output, adapter=FULL, train=()):
    return tinyruns.recipe(
        tiny_model("llama"),
        data,
        output,
        model={"adapter": adapter},
        train={"steps": 12, "token_budget": 64, **dict(train)},
        evaluate={"points": 2},
        checkpoint={"every": 2},
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory, tiny_model, data):
    """`straight(adapter)` is everything that the unbroken run of 12 steps computes."""
    made = {}

    def make(adapter):
        if adapter["kind"] not in made:
            folder = tmp_path_factory.mktemp("straight") / "run"
            with pytest.MonkeyPatch.context() as patch:
                tinyruns.prove_here(patch)
                commands.train(a_recipe(tiny_model, data, folder, adapter))
            made[adapter["kind"]] = everything(folder)
        return made[adapter["kind"]]

    return make


@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
def test_five_steps_a_kill_and_seven_are_twelve(make, straight, workdir, adapter):
    recipe = make("broken", adapter)
    broken_off(recipe, after_step(5))
    assert [line["step"] for line in lines(workdir / "broken" / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert not (workdir / "broken" / "model").exists()
    result = commands.train(recipe, resume=True)
    assert (result["status"], result["steps"], result["sessions"]) == ("done", 12, 2)
    assert everything(workdir / "broken") == straight(adapter)


@pytest.mark.parametrize(
    "kills",
    [
        [after_step(8)],
        [within_step(7, 1)],
        [after_step(1)],
        [after_step(12)],
        [within_step(3, 1), within_step(8, 1), after_step(11)],
    ],
    ids=["mid-epoch", "mid-accumulation", "before the first checkpoint", "after the last step", "three times"],
)
def test_wherever_it_is_broken_off(make, straight, workdir, kills):
    recipe = make("broken", LORA)
    for number, kill in enumerate(kills):
        broken_off(recipe, kill, resume=number > 0)
    result = commands.train(recipe, resume=True)
    assert result["sessions"] == len(kills) + 1
    assert everything(workdir / "broken") == straight(LORA)


def test_several_micro_batches_a_step_are_what_was_tested(make, workdir):
    """The kill within step 7 lies between two of its micro-batches, and step 7 in the middle of an epoch."""
    recipe = make("run", steps=7)
    broken_off(recipe, within_step(7, 1))
    assert [line["step"] for line in lines(workdir / "run" / "metrics.jsonl")][-1] == 6
    epochs = [batch.epoch for batch in itertools.islice(global_batches(lambda epoch: range(19), size=4), 12)]
    assert epochs == [0] * 5 + [1] * 5 + [2] * 2


def test_without_a_checkpoint_it_begins_again_and_measures_the_base_once(make, workdir):
    recipe = make("run")
    recipe["checkpoint"] = {"every": 100}
    recipe["evaluate"]["points"] = 0
    broken_off(recipe, after_step(5))
    base = (workdir / "run" / "base.json").stat().st_mtime_ns
    assert not list((workdir / "run").glob("checkpoints/step-*"))
    commands.train(recipe, resume=True)
    assert (workdir / "run" / "base.json").stat().st_mtime_ns == base
    assert [line["step"] for line in lines(workdir / "run" / "metrics.jsonl")] == list(range(1, 13))
    assert [line["model"] for line in lines(workdir / "run" / "evaluations.jsonl")] == ["base", "step 12", "tuned"]


def test_a_run_that_is_done_is_not_made_again(make, workdir):
    recipe = make("run", steps=2)
    result = commands.train(recipe)
    before = {name: data for name, data in tinyruns.tree(workdir / "run").items() if name != ".holder.json"}
    assert commands.train(recipe, resume=True) == result
    assert {n: data for n, data in tinyruns.tree(workdir / "run").items() if n != ".holder.json"} == before


def test_a_longer_run_goes_on_from_a_finished_one(make, workdir):
    recipe = make("run", steps=4, schedule={"kind": "constant"})
    commands.train(recipe)
    recipe["train"]["steps"] = 9
    result = commands.train(recipe, resume=True)
    assert (result["steps"], result["sessions"]) == (9, 2)
    straight = make("straight", steps=9, schedule={"kind": "constant"})
    commands.train(straight)
    mine, theirs = everything(workdir / "run"), everything(workdir / "straight")
    assert (mine["steps"], mine["tensors"]) == (theirs["steps"], theirs["tensors"])


def test_another_rank_of_the_adapter_is_refused_with_both_values(make, workdir):
    recipe = make("run", LORA)
    broken_off(recipe, after_step(5))
    before = {name: data for name, data in tinyruns.tree(workdir / "run").items() if name != ".holder.json"}
    with pytest.raises(RecipeError) as caught:
        commands.train({**recipe, "model": {**recipe["model"], "adapter": {**LORA, "rank": 8}}}, resume=True)
    (problem,) = (problem for problem in caught.value.problems if problem.where == "model.adapter.rank")
    assert (problem.code, problem.found) == ("recipe/changed", "4 before, 8 now")
    assert {n: data for n, data in tinyruns.tree(workdir / "run").items() if n != ".holder.json"} == before


def test_far_into_a_large_run_is_reached_as_fast_as_its_beginning():
    rows = 1_000_000
    options = DataOptions.model_validate({"train": [{"path": "a"}, {"path": "b"}]})
    mixture = Mixture(portions(options.train, [rows // 2] * 2, [rows] * 2, options.mixture), seed=3)
    assert mixture.size == rows

    def at(step: int) -> tuple[float, object]:
        began = time.perf_counter()
        batch = next(global_batches(mixture.order, size=1, epochs=3, after=step - 1))
        return time.perf_counter() - began, batch

    for step in (1_000_000, 1_000_001, 2_500_000):
        seconds, batch = at(step)
        assert seconds < 1, f"step {step:,} is reached in {seconds:.2f} s"
        assert (batch.step, batch.epoch) == (step, (step - 1) // rows)


@pytest.mark.parametrize("after", [0, 1, 4, 5, 6, 14, 15])
def test_after_a_step_come_the_steps_that_would_have_come(after):
    def order(epoch: int) -> list[int]:
        return [(row * 7 + epoch) % 19 for row in range(19)]

    straight = list(global_batches(order, size=4, epochs=3))
    assert list(global_batches(order, size=4, epochs=3, after=after)) == straight[after:]
