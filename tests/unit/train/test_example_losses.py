"""What the loop says of each example: its loss before the update, whatever the cut, and counted once."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tinyruns
from tutelage import commands
from tutelage.data.share import micro_batches_of_rank
from tutelage.evaluate.heldout import heldout_loss
from tutelage.models.adapters import adapt, trainable
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.objectives.base import Loss
from tutelage.objectives.nll import nll
from tutelage.recipe import Full, TrainOptions
from tutelage.runs import Run
from tutelage.screen import SILENT
from tutelage.train.guard import Guard
from tutelage.train.journal import write_down
from tutelage.train.loop import Group, steps
from tutelage.train.losses import Losses, blamed, gathered
from tutelage.train.optimizer import build_optimizer
from tutelage.train.ranks import Ranks
from tutelage.types import Example, Origin


def made() -> list[Example]:
    """Two with a common beginning, one of which is trained in two places, and others with weights of their own."""
    rng = np.random.default_rng(5)
    examples = []
    for number in range(9):
        ids = rng.integers(5, 300, int(rng.integers(12, 40))).astype(np.int32)
        ids[:10] = np.arange(7, 17) if number < 4 else ids[:10]
        weights = np.zeros(len(ids), np.float32)
        weights[6 if number < 2 else 10 :] = 0.5 + number
        examples.append(Example(ids, weights, Origin("made", number), 10, index=100 - number))
    return examples


def one_step(folder, *, budget, share, objective=nll, out_of_memory_at=None):
    """The model before the step, and the step; memory runs out in the micro-batch of this number."""
    sizes = []
    forward = prove(load_model(locate(str(folder))), max_length=64)
    adapt(forward.model, Full(), seed=0, base="")
    parameters, examples = trainable(forward.model), made()

    def cut(tokens):
        return micro_batches_of_rank(examples, tokens, share=share and forward.share, rank=0, world=1)

    def computed(forward, batch):
        sizes.append(batch.computed_tokens)
        if len(sizes) == out_of_memory_at:
            raise torch.OutOfMemoryError("made up")
        return objective(forward, batch)

    before = heldout_loss(forward, examples, token_budget=1000)
    places = [example.index for example in examples]
    group = Group(1, cut(budget), [e.origin for e in examples], 0, cut, examples=places, epoch=3)
    optimizer = build_optimizer(parameters, TrainOptions())
    options = {"rate": lambda step: 1e-3, "max_grad_norm": 1.0, "guard": Guard()}
    (step,) = steps(forward, computed, [group], optimizer, parameters=parameters, **options)
    return before, step


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("budget", [30, 90, 10_000])
def test_each_example_has_the_loss_that_it_has_alone(tiny_model, family, share, budget):
    before, step = one_step(tiny_model(family), budget=budget, share=share)
    assert step.losses is not None
    assert list(step.losses.examples) == [100 - number for number in range(9)]
    assert step.losses.nll == pytest.approx(before.sums, rel=2e-5)
    assert step.losses.weights == pytest.approx(before.weights)
    assert sum(step.losses.nll) / sum(step.losses.weights) == pytest.approx(step.loss, rel=1e-6)


def test_a_step_that_is_made_again_counts_once(tiny_model):
    before, step = one_step(tiny_model("llama"), budget=90, share=False, out_of_memory_at=2)
    assert step.token_budget is not None
    assert step.losses.nll == pytest.approx(before.sums, rel=2e-5)
    assert step.losses.weights == pytest.approx(before.weights)


def test_an_objective_that_says_nothing_of_edges_leaves_nothing_to_tell(tiny_model):
    def silent(forward, batch):
        loss = nll(forward, batch)
        return Loss(loss.sum, loss.weight)

    _, step = one_step(tiny_model("llama"), budget=90, share=False, objective=silent)
    assert np.isnan(step.losses.nll).all()
    assert np.isfinite(step.loss)


def test_several_processes_add_up_exactly():
    """Each example is computed by one of them: the sums are those of one process, bit for bit, in one meeting."""
    examples = made()
    losses = np.random.default_rng(0).random(1000).astype(np.float32)
    (whole,) = micro_batches_of_rank(examples, 10_000, share=False, rank=0, world=1)
    at = {}  # the loss of each (example, target place), whichever edge it is
    counts, expected = gathered([whole], losses[: len(whole.targets)], 9, Ranks())
    for owner, edge in zip(whole.owners.tolist(), whole.owned.tolist(), strict=True):
        at.setdefault(owner, []).append(losses[edge])
    met, sums = [], []
    for turn in range(2):  # the first finds what each process adds, the second what all of them see
        for rank in range(3):
            batches = micro_batches_of_rank(examples, 60, share=False, rank=rank, world=3, lockstep=True)
            each = np.zeros(sum(len(b.targets) for b in batches), np.float32)
            first = 0
            for batch in batches:
                places = dict.fromkeys(at, 0)
                for owner, edge in zip(batch.owners.tolist(), batch.owned.tolist(), strict=True):
                    each[first + edge] = at[owner][places[owner]]
                    places[owner] += 1
                first += len(batch.targets)

            def meet(tensor, turn=turn, sums=sums):
                met.append(tensor.clone())
                return tensor if turn == 0 else torch.stack(sums).sum(0)

            ranks = SimpleNamespace(alone=False, device="cpu", sum=meet)
            found = gathered(batches, each, 9, ranks)
        if turn == 0:
            sums = list(met)
    assert len(met) == 6  # one meeting for each process and turn
    assert found[0] == counts
    assert list(counts.values()) == [
        sum(map(len, examples)),
        sum(map(len, examples)),
        sum(e.supervised for e in examples),
    ]
    assert np.array_equal(found[1], expected)


def test_the_line_is_short_and_exact(tmp_path):
    nll = [np.float64(np.float32(0.1)), 1 / 3, np.nan]
    step = one_of(Losses(2, [5, 7, 9], nll, [1.0, 2.5, 3.0]))
    write_down(step, Run(tmp_path), SILENT, device=torch.device("cpu"), token_budget=64)
    text = (tmp_path / "examples.jsonl").read_text()
    assert '"nll": [0.1, 0.33333334, null]' in text
    assert json.loads(text) == {
        **{"step": 4, "epoch": 2, "examples": [5, 7, 9], "weight": [1.0, 2.5, 3.0]},
        "nll": [0.1, 0.33333334, None],
    }
    assert "losses" not in json.loads((tmp_path / "metrics.jsonl").read_text())


def test_a_step_that_is_passed_over_has_a_line_without_examples(tmp_path):
    step = replace(one_of(Losses(1)), skipped=True, tokens=0)
    write_down(step, Run(tmp_path), SILENT, device=torch.device("cpu"), token_budget=64)
    line = {"step": 4, "epoch": 1, "examples": [], "nll": [], "weight": []}
    assert json.loads((tmp_path / "examples.jsonl").read_text()) == line


def one_of(losses):
    from tutelage.train.loop import Step

    return Step(4, 1.0, 1.0, 1e-3, 10, 10, 5, 0.1, skipped=False, rows="", losses=losses)


def test_a_run_writes_what_its_store_holds(workdir, tiny_model):
    """Every training row once an epoch, under its place in the token store."""
    data = tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations(12))
    quick = {"drift": False, "knowledge": 0}
    given = {"train": {"steps": None, "epochs": 2}, "evaluate": quick}
    recipe = tinyruns.recipe(tiny_model("llama"), data, workdir / "run", **given)
    tinyruns.write_recipe(workdir / "recipe.yaml", recipe)
    result = commands.train(workdir / "recipe.yaml")
    lines = [json.loads(line) for line in (workdir / "run" / "examples.jsonl").read_text().splitlines()]
    prepared, _ = commands.preview({**recipe, "output": str(workdir / "other")})
    trained = sorted(prepared.train.indices.tolist())
    assert [line["step"] for line in lines] == list(range(1, result["steps"] + 1))
    for epoch in (1, 2):
        assert sorted(i for line in lines if line["epoch"] == epoch for i in line["examples"]) == trained
    weights = {i: w for line in lines for i, w in zip(line["examples"], line["weight"], strict=True)}
    assert weights == {i: float(prepared.dataset.store.example(i).weights.sum()) for i in trained}


def test_a_run_that_goes_on_writes_the_same_record(workdir, tiny_model):
    """Bit for bit: what an earlier process wrote beyond its checkpoint is cut off and made again."""
    data = tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations(12))
    texts = []
    for name in ("whole", "parts"):
        recipe = tinyruns.recipe(
            tiny_model("llama"),
            data,
            workdir / name,
            data={"heldout": 0},
            train={"steps": 6, "schedule": {"kind": "constant", "warmup": 0}},
            evaluate={"drift": False, "knowledge": 0, "samples": 1},
        )
        path = tinyruns.write_recipe(workdir / f"{name}.yaml", recipe)
        journal = workdir / name / "examples.jsonl"
        if name == "parts":
            commands.train(path, ["train.steps=3"])
            text = journal.read_text()
            assert text.count("\n") == 3
            journal.write_text(
                text + text.splitlines()[-1].replace('"step": 3', '"step": 4') + "\n" + '{"step": 5, "ep'
            )
            commands.train(path, resume=True)
        else:
            commands.train(path)
        texts.append(journal.read_bytes())
    assert texts[0] == texts[1]
    assert texts[0].count(b"\n") == 6


def test_the_rows_of_an_unsound_step_are_named_and_first_those_whose_own_loss_is_not_finite():
    rows = [*(Origin("a.jsonl", line) for line in (7, 3, 9)), Origin("b.jsonl", 1)]
    some, weights = np.array([1.0, math.nan, 2.0, math.inf]), np.ones(4)
    assert blamed(rows, np.stack([some, weights])) == (
        "a.jsonl:3; b.jsonl:1 (whose loss is not finite), in one step with a.jsonl:7, 9"
    )
    for equal in (np.ones(4), np.full(4, math.nan)):  # None is worse than the others.
        assert blamed(rows, np.stack([equal, weights])) == "a.jsonl:7, 3, 9; b.jsonl:1"
    many = [Origin("a.jsonl", line) for line in range(1, 101)]
    assert blamed(many, np.ones((2, 100))) == f"a.jsonl:{', '.join(map(str, range(1, 65)))} and 36 more"
