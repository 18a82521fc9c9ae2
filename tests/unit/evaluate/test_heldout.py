"""The held-out loss: a sum over tokens, the same whatever the batching, in constant memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tutelage.data.cut import cut
from tutelage.evaluate.heldout import heldout_loss
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.types import Example, Origin


def made(count: int) -> list[Example]:
    rng = np.random.default_rng(3)
    examples = []
    for number in range(count):
        length = int(rng.integers(3, 60))
        weights = rng.choice([0.0, 0.5, 1.0], size=length).astype(np.float32)
        weights[0], weights[-1] = 0.0, 1.0
        examples.append(Example(rng.integers(5, 300, length).astype(np.int32), weights, Origin("made", number), 1))
    return examples


@pytest.fixture(scope="module", params=["llama", "mistral-window", "gemma2"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def forward(family, tiny_model):
    return prove(load_model(locate(str(tiny_model(family)))), max_length=64)


def test_each_example_is_what_plain_transformers_says(forward, family, tiny_model):
    examples = made(12)
    plain = load_model(locate(str(tiny_model(family))))
    loss = heldout_loss(forward, examples, token_budget=100)
    for example, found in zip(examples, loss.sums, strict=True):
        ids = torch.from_numpy(example.input_ids.astype(np.int64))[None]
        with torch.no_grad():
            each = cross_entropy(plain(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        assert found == pytest.approx(float((each * torch.from_numpy(example.weights[1:])).sum()), rel=1e-5)
    assert loss.weights == pytest.approx([e.weights.sum() for e in examples])
    assert loss.tokens == sum(e.supervised for e in examples)
    assert loss.nll == pytest.approx(loss.sums.sum() / loss.weights.sum())


@pytest.mark.parametrize("budget", [1, 64, 10_000])
def test_batching_does_not_show(forward, budget):
    examples = made(12)
    one = heldout_loss(forward, examples, token_budget=budget)
    other = heldout_loss(forward, examples, token_budget=200)
    assert one.sums == pytest.approx(other.sums, rel=1e-5)
    assert one.nll == pytest.approx(other.nll, rel=1e-6)


def test_it_is_a_mean_over_tokens_not_of_means(forward):
    """Pain 14: a row of one token must not count as much as a row of fifty."""
    examples = made(8)
    loss = heldout_loss(forward, examples, token_budget=200)
    mean_of_means = float(np.mean(loss.sums / loss.weights))
    assert loss.nll != pytest.approx(mean_of_means, rel=1e-4)


def test_nothing_is_kept_and_the_model_is_in_evaluation_mode(forward):
    done = []
    forward.model.train()
    loss = heldout_loss(forward, made(9), token_budget=64, progress=done.append)
    assert sum(done) == 9
    assert not forward.model.training
    assert isinstance(loss.sums, np.ndarray)
    assert all(p.grad is None for p in forward.model.parameters())


def test_prefixes_are_not_shared_where_the_model_was_found_unable(tiny_model, monkeypatch):
    forward = prove(load_model(locate(str(tiny_model("llama")))), max_length=64)
    shared = []
    monkeypatch.setattr("tutelage.evaluate.heldout.cut", lambda *a, share: shared.append(share) or cut(*a, share=share))
    for able in (True, False):
        forward.share = able
        heldout_loss(forward, made(4), token_budget=100)
    assert shared == [True, False]
