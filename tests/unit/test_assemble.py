"""A recipe becomes steps: which examples, how they are cut, and what is known before the weights are."""

from __future__ import annotations

import json
from collections import Counter

import pytest

import tinyruns
from tutelage import assemble, config
from tutelage.errors import ModelError


@pytest.fixture
def prepare(tmp_path, tiny_model):
    """`prepare(train={...})` reads 24 rows, a quarter held out."""
    data = tinyruns.write_rows(tmp_path / "rows.jsonl", tinyruns.demonstrations())

    def prepared(**sections):
        values = tinyruns.recipe(tiny_model("llama"), data, tmp_path / "run", **sections)
        for name, section in sections.items():
            for key, value in section.items():
                if value is None:
                    del values[name][key]
        return assemble.prepare_data(config.resolve(values).recipe)

    return prepared


def test_steps_and_epochs(prepare):
    by_steps = prepare(train={"steps": 7})
    assert (by_steps.steps, by_steps.epochs) == (7, None)
    count = len(by_steps.train)
    by_epochs = prepare(train={"steps": None, "epochs": 3, "global_batch_size": 4})
    assert (by_epochs.steps, by_epochs.epochs) == (3 * -(-count // 4), 3)
    neither = prepare(train={"steps": None})
    assert neither.epochs == 1


def test_the_groups_are_the_steps(prepare):
    """Each epoch uses every training example once, whatever the micro-batches."""
    prepared = prepare(train={"steps": None, "epochs": 2, "global_batch_size": 5})
    groups = list(assemble.groups(prepared, token_budget=60))
    assert [group.step for group in groups] == list(range(1, prepared.steps + 1))
    used = Counter(origin for group in groups for origin in group.rows)
    assert used == Counter({example.origin: 2 for example in prepared.train})
    for group in groups:
        assert sum(len(batch.lengths) for batch in group.micro_batches) == len(group.rows) <= 5
        assert all(batch.tokens <= 60 or len(batch.lengths) == 1 for batch in group.micro_batches)
        assert {group.seed} == {0}
    coarse = list(assemble.groups(prepared, token_budget=10_000))
    assert [group.rows for group in coarse] == [group.rows for group in groups]
    assert all(len(group.micro_batches) == 1 for group in coarse)


def test_the_seed_decides_the_order_and_epochs_differ(prepare):
    orders = []
    for seed in (0, 0, 1):
        prepared = prepare(train={"steps": None, "epochs": 2, "global_batch_size": 100, "seed": seed})
        orders.append([tuple(group.rows) for group in assemble.groups(prepared, token_budget=10_000)])
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][0] != orders[0][1]


def test_held_out_examples_may_be_capped(prepare):
    assert len(prepare(evaluate={"examples": 2}).heldout) == 2
    whole = prepare()
    assert len(whole.heldout) == whole.dataset.ledger.heldout > 2
    assert not {e.origin for e in whole.heldout} & {e.origin for e in whole.train}


def test_what_data_json_holds(prepare):
    prepared = prepare()
    described = json.loads(json.dumps(prepared.describe(), allow_nan=False))
    assert described["stop_tokens"] == [{"id": 2, "text": "<|im_end|>", "count": 24}]
    assert prepared.stop_ids == [2]
    assert described["tokens"]["train"] == sum(map(len, prepared.train))
    assert described["tokens"]["supervised"] == sum(e.supervised for e in prepared.train)
    assert described["template"]["name"] == "the tokenizer's own"
    (source,) = described["sources"]
    assert (source["rows"], len(source["sha256"])) == (24, 64)


def test_rows_longer_than_the_models_positions_are_refused(prepare):
    with pytest.raises(ModelError) as caught:
        prepare(data={"max_length": 513})
    assert caught.value.code == "model/too-short"
    assert prepare(data={"max_length": 512}).steps == 3


def test_the_environment_is_what_runs(prepare):
    import torch

    prepared = prepare()
    found = assemble.environment(prepared, "cpu")
    assert found["store"]["bytes"] == prepared.dataset.store.bytes_on_disk() > 0
    assert found["torch"] == torch.__version__
    assert found["device"] == "cpu"
    assert found["threads"] == torch.get_num_threads()
