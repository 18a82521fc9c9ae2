"""A recipe becomes steps: which examples, how they are cut, and what is known before the weights are."""

from __future__ import annotations

import json
from collections import Counter

import pytest

import tinyruns
from tutelage import assemble, config
from tutelage.errors import MachineError, ModelError


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


def rows_of(batch) -> int:
    return len(set(batch.owners.tolist()))


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
        assert sum(rows_of(batch) for batch in group.micro_batches) == len(group.rows) <= 5
        assert all(batch.tokens <= 60 or rows_of(batch) == 1 for batch in group.micro_batches)
        assert {group.seed} == {0}
    coarse = list(assemble.groups(prepared, token_budget=10_000))
    assert [group.rows for group in coarse] == [group.rows for group in groups]
    assert all(len(group.micro_batches) == 1 for group in coarse)


def test_a_group_can_be_cut_again(prepare):
    """The same examples, whatever the budget: what a run does when memory runs out."""
    group = next(assemble.groups(prepare(), token_budget=10_000))
    assert len(group.micro_batches) == 1
    again = group.cut(30)
    assert len(again) == len(group.rows) > 1
    for count in ("tokens", "supervised_tokens"):
        assert sum(getattr(b, count) for b in again) == sum(getattr(b, count) for b in group.micro_batches)


def test_common_beginnings_are_computed_once_where_the_model_can(prepare):
    prepared = prepare()
    alone, shared = (
        next(assemble.groups(prepared, token_budget=10_000, share=share)).micro_batches[0] for share in (False, True)
    )
    assert shared.tokens == alone.tokens == alone.computed_tokens > shared.computed_tokens


def test_the_work_is_what_the_steps_compute(prepare):
    prepared = prepare(train={"steps": None, "epochs": 2, "global_batch_size": 5}, evaluate={"points": 1})
    found = assemble.work(prepared)
    groups = list(assemble.groups(prepared, token_budget=60))
    tokens = sum(batch.tokens for group in groups for batch in group.micro_batches)
    assert found.steps == len(groups)
    assert found.tokens_per_step * found.steps == pytest.approx(tokens)
    assert found.longest == max(len(e) for e in [*prepared.train, *prepared.heldout])
    assert [len(e) for e in found.first] == [
        len(e) for e in (next(e for e in prepared.train if e.origin == row) for row in groups[0].rows)
    ]
    assert found.measurements == 3
    assert len(found.prompts) == 2
    largest = found.largest(100)
    assert largest.tokens <= 100
    assert largest.position_ids.max() + 1 == max(len(e) for e in prepared.train)


def choice_of(seconds: float, steps: int):
    from tutelage.train.choice import Choice
    from tutelage.train.estimate import Estimate, Memory

    return Choice(Estimate(2048, "none", steps, Memory(0, 0, 0, 0, 0, 0, 0), 1.0, 1.0, seconds, 0), 10**9, "machine")


def test_a_time_budget_makes_fewer_steps_and_says_so(prepare):
    prepared = prepare(train={"steps": None}, budget={"time": "8s"})
    resolved = config.Resolved(prepared.recipe, {})
    assert prepared.steps == 5
    changed, shorter, choice = assemble.shortened(resolved, prepared, choice_of(10.0, 5))
    assert shorter.steps == changed.recipe.train.steps == choice.estimate.steps == 3
    assert changed.origins["train.steps"] == "budget.time"
    assert choice.chosen["train.steps"].startswith("3 steps: ")
    assert len(list(assemble.groups(shorter, token_budget=100))) == 3
    assert assemble.shortened(resolved, prepared, choice_of(8.0, 5))[1] is prepared
    # What the rehearsal finds may make it shorter still.
    assert assemble.shortened(changed, shorter, choice_of(9.0, 3))[1].steps == 2


def test_a_time_budget_never_overrules_the_recipe(prepare):
    prepared = prepare(train={"steps": 5}, budget={"time": "8s"})
    resolved = config.Resolved(prepared.recipe, {"train.steps": "r.yaml:9"})
    with pytest.raises(MachineError) as caught:
        assemble.shortened(resolved, prepared, choice_of(10.0, 5))
    assert caught.value.code == "machine/out-of-time"
    assert "train.steps=3 fits" in str(caught.value)


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
