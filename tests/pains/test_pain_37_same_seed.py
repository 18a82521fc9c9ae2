"""Pain 37: the same recipe gives the same weights, whatever else is measured, saved or drawn beside it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from brokenoff import everything

import tinyruns
from tutelage import commands

LORA = {"adapter": {"kind": "lora", "rank": 4, "dropout": 0.1}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tinyruns.write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", tinyruns.demonstrations())


@pytest.fixture(scope="module")
def run(tiny_model, data, tmp_path_factory):
    """`run(section={...})` is what a run of six steps computes."""

    def run(**sections):
        folder = tmp_path_factory.mktemp("same") / "run"
        whole = {"model": LORA, "train": {"steps": 6}, **sections}
        with pytest.MonkeyPatch.context() as patch:
            tinyruns.prove_here(patch)
            commands.train(tinyruns.recipe(tiny_model("llama"), data, folder, **whole))
        return everything(folder)

    return run


@pytest.fixture(scope="module")
def once(run):
    return run()


def test_twice_is_once(once, run):
    assert run() == once


@pytest.mark.parametrize(
    "sections",
    [
        {"evaluate": {"points": 0, "samples": 0}},
        {"evaluate": {"points": 5, "samples": 5, "max_new_tokens": 9}},
        {"checkpoint": {"every": 1, "keep": 1}},
        {"checkpoint": {"every": 100}},
        {"guard": {"non_finite": "rollback", "spikes": "rollback"}},
    ],
    ids=["not measured", "measured often", "saved often", "saved once", "watched"],
)
def test_what_is_done_beside_changes_no_weight(once, run, sections):
    other = run(**sections)
    assert (other["steps"], other["tensors"]) == (once["steps"], once["tensors"])


def test_nothing_is_drawn_from_the_generators_that_others_use(once, run):
    torch.manual_seed(12345)
    np.random.seed(12345)
    random.seed(12345)
    assert run() == once


def test_another_order_of_the_options_is_the_same_recipe(once, run):
    assert run(train={"seed": 0, "steps": 6}, model={"adapter": dict(reversed(LORA["adapter"].items()))}) == once


def test_another_seed_is_another_run(once, run):
    other = run(train={"steps": 6, "seed": 1})
    assert other["tensors"] != once["tensors"]
    rows = [[step["rows"] for step in one["steps"]] for one in (once, other)]
    assert rows[0] != rows[1]


def test_the_command_line_and_a_fresh_process_give_the_same(once, data, tiny_model, workdir):
    recipe = tinyruns.recipe(tiny_model("llama"), data, workdir / "run", model=LORA, train={"steps": 6})
    path = tinyruns.write_recipe(workdir / "recipe.yaml", recipe)
    threads = str(torch.get_num_threads())
    done = tinyruns.process("train", path, PYTHONHASHSEED="1", OMP_NUM_THREADS=threads)
    assert done.code == 0, done.err
    assert everything(workdir / "run") == once
