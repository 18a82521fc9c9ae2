"""Canaries: a source of their own, never held out, once an epoch; and an exposure that grows with being seen."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tinyruns
from conftest import make_encoder
from tutelage.data.canaries import DIGITS, alternatives, canaries, source_of, with_canaries
from tutelage.data.dataset import prepare
from tutelage.data.examples import Examples
from tutelage.data.mixture import Mixture, portions
from tutelage.data.selection import TRAIN
from tutelage.evaluate.canaries import OTHERS, Planted, exposed, exposure
from tutelage.models.adapters import adapt, trainable
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.models.tokenizer import load_tokenizer
from tutelage.objectives.nll import nll
from tutelage.recipe import DataOptions, Full, TrainOptions
from tutelage.train.guard import Guard
from tutelage.train.loop import Group, steps
from tutelage.train.optimizer import build_optimizer
from tutelage.train.work import micro_batches_of

COUNT, SEED = 5, 3


@pytest.fixture
def model(tiny_model):
    return tiny_model("llama")


@pytest.fixture
def encoder(model):
    return make_encoder(load_tokenizer(locate(str(model))))


def options(workdir, rows=40, **more) -> DataOptions:
    data = tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations(rows))
    given = {"train": [{"path": str(data)}], "heldout": 0.3, "max_length": 128, **more}
    return with_canaries(DataOptions.model_validate(given), COUNT, SEED)


def test_they_are_drawn_by_the_seed():
    made = list(canaries(50, SEED))
    assert made == list(canaries(50, SEED))
    assert [one.prompt for one in made] != [one.prompt for one in canaries(50, SEED + 1)]
    assert len({one.prompt for one in made}) == 50
    assert made[:5] == list(canaries(5, SEED))  # more of them leave the others as they are
    others = list(alternatives(OTHERS, SEED, 7, made[7]))
    assert len({one.completion for one in others} | {made[7].completion}) == OTHERS + 1
    name = made[7].prompt.removeprefix("What is the access code of ").removesuffix("?")
    assert all(name in one.completion and one.prompt == made[7].prompt for one in others)
    assert all(sum(c.isdigit() for c in one.completion) == DIGITS for one in others)


def test_none_changes_nothing(workdir):
    given = DataOptions.model_validate({"train": [{"path": "a"}]})
    assert with_canaries(given, 0, SEED) is given


def test_they_are_a_source_that_is_counted_and_never_held_out(workdir, encoder):
    dataset = prepare(options(workdir, heldout=0.7), encoder)
    assert dataset.ledger.rows == 45
    assert dataset.sources[-1]["name"] == "canaries"
    assert dataset.sources[-1]["rows"] == COUNT
    mine = dataset.store.rows["source"] == source_of(dataset.options)
    assert (dataset.selection.sides[mine] == TRAIN).all()
    plain = {"train": [{"path": str(workdir / "rows.jsonl")}], "heldout": 0.7, "max_length": 128}
    sides = prepare(DataOptions.model_validate(plain), encoder).selection.sides
    assert np.array_equal(sides, dataset.selection.sides[~mine])  # and they move nobody
    assert prepare(options(workdir, heldout=0.7), encoder).store.digest() == dataset.store.digest()


@pytest.mark.parametrize("mixture", [{}, {"by": "examples"}, {"by": "temperature"}, {"epoch_examples": 100}])
def test_an_epoch_takes_each_once(workdir, mixture):
    given = options(workdir, mixture=mixture)
    found = portions(given.train, [40, COUNT], [4000, 100], given.mixture)
    assert (found[-1].first, found[-1].taken, found[-1].size) == (40, COUNT, COUNT)
    order = Mixture(found, seed=0).order(0)
    slots = [order[position][0] for position in range(len(order))]
    assert sorted(slot for slot in slots if slot >= 40) == list(range(40, 45))
    assert len(slots) == mixture.get("epoch_examples", 40) + COUNT


def test_the_exposure_of_a_rank():
    losses = np.arange(1.0, 129.0)
    assert exposure(losses) == 7.0
    assert exposure(losses[::-1]) == 0.0
    assert exposure(np.array([4.0, *losses[:3], *losses[4:]])) == 5.0
    assert exposure(np.ones(128)) == pytest.approx(np.log2(128 / 64.5))  # a model that knows no difference
    assert exposure(np.array([np.nan, *losses[1:]])) == 0.0


def test_it_is_near_nothing_before_and_everything_after_many_passes(workdir, model, encoder):
    """A tiny model trained on nothing but canaries: from 1.4 bits by chance to all seven."""
    dataset = prepare(options(workdir, rows=4), encoder)
    planted = Planted.of(dataset, encoder, count=COUNT, seed=SEED)
    assert [len(group) for group in planted.groups] == [OTHERS + 1] * COUNT
    forward = prove(load_model(locate(str(model))), max_length=128)
    adapt(forward.model, Full(), seed=0, base="")
    parameters = trainable(forward.model)
    base = planted.exposures(forward, token_budget=4000)
    training = dataset.training()
    mine = training.source == source_of(dataset.options)
    examples = list(Examples(dataset.store, training.at(0)[mine]))
    batches, origins = micro_batches_of(examples, 1000, share=False), [example.origin for example in examples]
    groups = [Group(step, batches, origins, 0) for step in range(1, 161)]
    optimizer = build_optimizer(parameters, TrainOptions())
    given = {"rate": lambda step: 3e-3, "max_grad_norm": 1.0, "guard": Guard()}
    for _ in steps(forward, nll, groups, optimizer, parameters=parameters, **given):
        pass
    tuned = planted.exposures(forward, token_budget=4000)
    assert planted.exposures(forward, token_budget=300) == tuned
    assert np.mean(base) < 3.5
    assert tuned == [7.0] * COUNT
    told = exposed(base, tuned, passes=160)
    assert told["first"] == COUNT
    assert "5 of them are likelier than all 127 others" in told["sentence"]
    assert json.dumps(told)


def test_one_that_was_dropped_is_not_measured(workdir, encoder):
    dataset = prepare(options(workdir, rows=4), encoder)
    mine = np.flatnonzero(dataset.store.rows["source"] == source_of(dataset.options))
    dataset.selection.sides[mine[1]] = 7
    assert len(Planted.of(dataset, encoder, count=COUNT, seed=SEED).groups) == COUNT - 1
    assert exposed([], [], passes=1) is None
