"""A step whose micro-batch did not fit is made again with smaller ones, and always comes to an end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tutelage.models.adapters import adapt, trainable
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.objectives.nll import nll
from tutelage.recipe import Full, TrainOptions
from tutelage.train.guard import Guard
from tutelage.train.loop import Group, steps
from tutelage.train.optimizer import build_optimizer
from tutelage.train.work import micro_batches_of
from tutelage.types import Example, Origin


def example(length: int, number: int) -> Example:
    ids = np.random.default_rng(number).integers(5, 300, length).astype(np.int32)
    weights = np.zeros(length, np.float32)
    weights[length // 2 :] = 1.0
    return Example(ids, weights, Origin("made", number), length // 2)


def run(folder, examples, *, budget: int, fails):
    """The steps of one group; `fails(batch)` says whether memory runs out."""
    forward = prove(load_model(locate(str(folder))), max_length=300)
    adapt(forward.model, Full(), seed=0, base="")
    parameters = trainable(forward.model)

    def cut(tokens):
        return micro_batches_of(examples, tokens, share=False)

    def objective(forward, batch):
        if fails(batch):
            raise torch.OutOfMemoryError("made up")
        return nll(forward, batch)

    group = Group(1, cut(budget), [e.origin for e in examples], 0, cut)
    optimizer = build_optimizer(parameters, TrainOptions())
    options = {"rate": lambda step: 1e-3, "max_grad_norm": 1.0, "guard": Guard()}
    done = list(steps(forward, objective, [group], optimizer, parameters=parameters, **options))
    return done[0], {name: p.detach().clone() for name, p in parameters.items()}


def test_an_example_longer_than_the_budget_does_not_keep_it_from_shrinking(tiny_model):
    """The long example is a micro-batch of its own and fits; those of several short ones do not, at first."""
    examples = [example(200, 1), *(example(20, n) for n in range(2, 12))]
    folder = tiny_model("llama")
    step, found = run(folder, examples, budget=100, fails=lambda b: len(set(b.owners.tolist())) > 2)
    _, expected = run(folder, examples, budget=40, fails=lambda b: False)
    assert step.token_budget <= 50
    for name in expected:
        assert torch.allclose(found[name], expected[name], atol=1e-6), name


def test_a_single_example_that_does_not_fit_is_the_end(tiny_model):
    examples = [example(200, 1), example(20, 2)]
    with pytest.raises(torch.OutOfMemoryError):
        run(tiny_model("llama"), examples, budget=100, fails=lambda b: b.computed_tokens > 150)
