"""Renderings: each epoch shows a row in other words, held-out rows are measured in words that were never trained."""

from __future__ import annotations

import json

import pytest

import tinyruns
from tutelage import assemble, commands, config


@pytest.fixture
def recipe(tmp_path, tiny_model):
    rows = [{**row, "input": f"Box {n}"} for n, row in enumerate(tinyruns.demonstrations(16))]
    data = tinyruns.write_rows(tmp_path / "rows.jsonl", rows)
    values = tinyruns.recipe(tiny_model("llama"), data, tmp_path / "run")
    values["data"]["renderings"] = {"train": ["plain", "alpaca", "tagged"], "heldout": ["terse", "quoted"]}
    values["data"]["max_length"] = 400
    return values


def test_a_row_is_shown_in_each_rendering_before_one_comes_again(recipe):
    prepared = assemble.prepare_data(config.resolve(recipe).recipe)
    slots = prepared.training
    decode = prepared.encoder.tokenizer.decode
    for slot in range(len(slots)):
        shown = [decode(prepared.dataset.store.example(slots.index(slot, epoch)).input_ids) for epoch in range(6)]
        assert len(set(shown[:3])) == len(set(shown[3:])) == 3
        assert sum("### Instruction" in text for text in shown) == 2
    first = [slots.index(slot, 0) - slots.index(0, 0) for slot in range(len(slots))]
    assert len({place % 5 for place in first}) > 1, "all rows take the same rendering in an epoch"


def test_held_out_rows_are_measured_in_formats_that_were_not_trained(recipe, monkeypatch, one_thread):
    tinyruns.prove_here(monkeypatch)
    result = commands.train(recipe)
    heldout = result["heldout"]
    rows = result["ledger"]["heldout"]
    assert set(heldout["renderings"]) == {"terse", "quoted"}
    assert {one["n"] for one in heldout["renderings"].values()} == {rows} == {heldout["examples"]}
    losses = [one["tuned_nll"] for one in heldout["renderings"].values()]
    assert heldout["spread"]["tuned"] == pytest.approx(max(losses) - min(losses))
    run = tinyruns.Path(recipe["output"])
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert all("Box" in sample["messages"][-1]["content"] for sample in samples)
    assert all(sample["messages"][-1]["content"] in sample["prompt"] for sample in samples)
    assert "By prompt format" in (run / "report.html").read_text()
