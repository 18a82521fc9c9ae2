"""Pain 5: the loss is divided once, by what the whole global batch supervises.

That one global batch has one gradient, however it is cut, is held by tests/invariants/test_one_gradient.py; here is
that the steps use every row, and that the tail of an epoch is a step of its own.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tutelage.data.batch import pack
from tutelage.data.plan import Permutation, global_batches, micro_batches, total_steps
from tutelage.models.adapters import adapt, trainable
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.objectives.nll import nll
from tutelage.recipe import Full
from tutelage.train.guard import Guard
from tutelage.train.loop import Group, steps
from tutelage.types import Example, Origin


def rows(count: int) -> list[Example]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        length = 4 + 3 * number
        weights = np.zeros(length, dtype=np.float32)
        weights[-(1 + number % 3) :] = 1.0
        ids = rng.integers(5, 300, length).astype(np.int32)
        made.append(Example(ids, weights, Origin("made", number + 1), length - 1 - number % 3))
    return made


class Record:
    """Keeps the gradient of every step and changes nothing."""

    def __init__(self, parameters):
        self.parameters, self.seen = list(parameters), []

    def zero_grad(self):
        for parameter in self.parameters:
            parameter.grad = None

    def gather(self):
        """All of the batch is here."""

    def norm(self):
        return torch.stack([p.grad.norm() for p in self.parameters]).norm()

    def step(self, learning_rate, *, norm, clip, sound):
        self.seen.append([p.grad.clone() for p in self.parameters])


def run(model_folder, examples: list[Example], *, size: int, budget: int):
    """One epoch; (steps, gradients before clipping does anything, rows of each step)."""
    forward = prove(load_model(locate(str(model_folder))), max_length=64)
    adapt(forward.model, Full(), seed=0, base="")
    parameters = trainable(forward.model)
    groups = []
    for batch in global_batches(lambda epoch: Permutation(len(examples), seed=0, epoch=epoch), size=size, epochs=1):
        chosen = [examples[i] for i in batch.examples]
        cut = micro_batches([len(e) for e in chosen], budget)
        groups.append(Group(batch.step, [pack([chosen[i] for i in g]) for g in cut], [e.origin for e in chosen], 0))
    recorder = Record(parameters.values())
    done = list(
        steps(
            forward, nll, groups, recorder, parameters=parameters, rate=lambda s: 0.0, max_grad_norm=1e9, guard=Guard()
        )
    )
    return done, recorder.seen, [group.rows for group in groups]


def test_ten_rows_by_four_are_three_steps_and_each_row_counts_once(tiny_model):
    examples = rows(10)
    done, _, used = run(tiny_model("llama"), examples, size=4, budget=64)
    assert len(done) == total_steps(10, size=4, epochs=1, steps=None) == 3
    assert [len(step) for step in used] == [4, 4, 2]
    assert Counter(o for step in used for o in step) == Counter(e.origin for e in examples)
    assert sum(step.supervised_tokens for step in done) == sum(e.supervised for e in examples)


def test_the_tail_is_divided_by_its_own_count(tiny_model):
    """Loss and gradient of the last step are those of its two rows alone, by plain `cross_entropy`."""
    examples = rows(10)
    done, gradients, used = run(tiny_model("llama"), examples, size=4, budget=64)
    model = load_model(locate(str(tiny_model("llama"))))
    tail = [e for e in examples if e.origin in used[-1]]
    summed = torch.zeros(())
    for example in tail:
        ids = torch.from_numpy(example.input_ids.astype(np.int64))[None]
        each = cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        summed = summed + (each * torch.from_numpy(example.weights[1:])).sum()
    mean = summed / sum(e.supervised for e in tail)
    mean.backward()
    assert done[-1].loss == pytest.approx(mean.item(), rel=1e-6)
    expected = dict(model.named_parameters())
    norm = torch.sqrt(sum(p.grad.square().sum() for p in expected.values())).item()
    assert done[-1].grad_norm == pytest.approx(norm, rel=1e-5)
    for found, parameter in zip(gradients[-1], expected.values(), strict=True):
        assert torch.allclose(found, parameter.grad, rtol=1e-4, atol=2e-6 * float(parameter.grad.abs().max()))


@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_the_token_budget_changes_no_step(tiny_model, budget):
    examples = rows(10)
    one, gradients, _ = run(tiny_model("llama"), examples, size=4, budget=budget)
    other, expected, _ = run(tiny_model("llama"), examples, size=4, budget=64)
    assert [s.loss for s in one] == pytest.approx([s.loss for s in other], rel=1e-6)
    for found, right in zip(gradients, expected, strict=True):
        for a, b in zip(found, right, strict=True):
            assert torch.allclose(a, b, atol=1e-6)
