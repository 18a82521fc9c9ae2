"""What each row cost is the same whoever computed it: one process, or several that share the work."""

from __future__ import annotations

import json

import pytest

import launching
import tinyruns


def _record(recipe):
    path = recipe.with_suffix("") / "examples.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("parallel", ["sharded"])
def test_two_processes_write_the_record_of_one(tmp_path, tiny_model, parallel):
    data = tinyruns.write_rows(tmp_path / "rows.jsonl", tinyruns.demonstrations(21))
    recipes = {}
    for world in (1, 2):
        values = tinyruns.recipe(
            tiny_model("llama"),
            data,
            tmp_path / f"of-{world}",
            data={"heldout": 0},
            train={"global_batch_size": 8, "parallel": parallel, "steps": 4},
            evaluate={"drift": False, "knowledge": 0, "samples": 1},
        )
        recipes[world] = tinyruns.write_recipe(tmp_path / f"of-{world}.yaml", values)
        with launching.train(world, recipes[world]) as launched:
            assert launched.wait(200) == [0] * world, launched.said(0)
    one, two = _record(recipes[1]), _record(recipes[2])
    assert [line["epoch"] for line in one] == [1, 1, 1, 2]
    assert [len(line["examples"]) for line in one] == [8, 8, 5, 8]
    for a, b in zip(one, two, strict=True):
        assert {**a, "nll": 0} == {**b, "nll": 0}
        assert b["nll"] == pytest.approx(a["nll"], rel=1e-4)
