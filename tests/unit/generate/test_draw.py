"""The choice of a token: exact distributions, stable numbers, deterministic ties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper
from transformers.generation import TopPLogitsWarper

from tutelage.errors import ModelError, RecipeError
from tutelage.generate.draw import choose, key, uniforms
from tutelage.generate.engine import generate
from tutelage.generate.likelihood import likelihoods
from tutelage.generate.sampling import GREEDY, Sampling
from tutelage.generate.stops import Stops
from tutelage.generate.work import Work
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate

LOGITS = torch.tensor([1.5, 0.2, -0.3, 0.9, -2.0, 0.9])
CRITICAL = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52}
"""Chi-square that chance exceeds once in a thousand, by degrees of freedom; the seeds are fixed."""


def by_transformers(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The distribution that `transformers` would draw from."""
    steps = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(MinPLogitsWarper(sampling.min_p))
    return steps(torch.zeros(len(logits), 1, dtype=torch.long), logits).softmax(-1)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.5),
        Sampling(temperature=3.0),
        Sampling(temperature=1.0, top_k=2),  # Two tokens are equally likely: both stay.
        Sampling(temperature=1.0, top_p=0.8),
        Sampling(temperature=1.3, min_p=0.2),
        Sampling(temperature=1.2, top_k=5, top_p=0.9, min_p=0.1),
    ],
)
def test_draws_follow_the_distribution(sampling):
    count = 4000
    keys = [key(sampling, row, 0, 0) for row in range(count)]
    chosen = choose(LOGITS.expand(count, -1).contiguous(), sampling, keys)
    expected = by_transformers(LOGITS[None].double(), sampling)[0].numpy()
    counts = np.bincount(chosen.tokens, minlength=len(LOGITS))
    assert counts[expected == 0].sum() == 0
    inside = expected > 0
    chi = float(((counts[inside] - count * expected[inside]) ** 2 / (count * expected[inside])).sum())
    assert chi < CRITICAL[int(inside.sum()) - 1]
    own = LOGITS.log_softmax(-1)
    for token, logprob, drawn in list(zip(*chosen, strict=True))[:50]:
        assert logprob == pytest.approx(float(own[token]), abs=1e-6)
        assert drawn == pytest.approx(math.log(expected[token]), abs=1e-9)


def test_a_large_vocabulary_keeps_the_same_tokens_as_transformers(monkeypatch):
    """Also where the nucleus is larger than what is looked at first."""
    monkeypatch.setattr("tutelage.generate.draw.NUCLEUS", 16)
    logits = torch.randn(3, 900, generator=torch.Generator().manual_seed(1))
    for top_k, top_p, min_p in itertools.product((0, 40), (1.0, 0.95, 0.3), (0.0, 0.05)):
        sampling = Sampling(temperature=1.5, top_k=top_k, top_p=top_p, min_p=min_p)
        expected = by_transformers(logits.double(), sampling)
        for trial in range(20):
            chosen = choose(logits, sampling, [key(sampling, row, trial, 0) for row in range(3)])
            for row, (token, drawn) in enumerate(zip(chosen.tokens, chosen.drawn, strict=True)):
                assert math.exp(drawn) == pytest.approx(float(expected[row, token]), rel=1e-9)


def test_the_numbers_are_those_of_splitmix64():
    def mixed(state: int) -> int:
        mask = (1 << 64) - 1
        z = state & mask
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    keys = [0, 1234567, 2**63 - 1]
    ours = uniforms(torch.tensor(keys), 300)
    expected = [[((mixed(k + (j + 1) * 0x9E3779B97F4A7C15) >> 12) + 0.5) * 2.0**-52 for j in range(300)] for k in keys]
    assert ours.tolist() == expected
    assert mixed(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # The first number of seed 0, as its authors give it.


def test_numbers_of_one_token_differ_by_row_sample_place_and_seed():
    names = itertools.product((0, 1), ("a", "b"), (0, 1), (0, 1))
    keys = {key(Sampling(temperature=1.0, seed=seed), row, sample, place) for seed, row, sample, place in names}
    assert len(keys) == 16


def test_a_row_is_drawn_alike_in_any_company(monkeypatch):
    logits = torch.randn(7, 300, generator=torch.Generator().manual_seed(2))
    sampling = Sampling(temperature=1.0, top_p=0.9)
    keys = [key(sampling, row, 0, 3) for row in range(7)]
    together = choose(logits, sampling, keys)
    alone = [choose(logits[row : row + 1], sampling, [keys[row]]) for row in range(7)]
    assert together.tokens == [one.tokens[0] for one in alone]
    monkeypatch.setattr("tutelage.generate.draw.BLOCK", 600)
    assert choose(logits, sampling, keys).tokens == together.tokens


def test_of_equally_likely_tokens_greedy_takes_the_first():
    logits = torch.full((3, 5000), -1.0)
    logits[0, [7, 4999]] = 2.0
    logits[1, [4998, 4999]] = 2.0
    chosen = choose(logits, GREEDY, [])
    assert chosen.tokens == [7, 4998, 0]
    assert chosen.drawn == [0.0, 0.0, 0.0]
    assert chosen.logprobs[2] == pytest.approx(-math.log(5000), abs=1e-5)


def test_a_temperature_near_zero_is_greedy():
    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(3))
    cold = Sampling(temperature=1e-9)
    assert choose(logits, cold, list(range(20))).tokens == choose(logits, GREEDY, []).tokens


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"temperature": -0.1}, "recipe/bad-value"),
        ({"temperature": float("nan")}, "recipe/bad-value"),
        ({"temperature": 1.0, "top_p": 0.0}, "recipe/bad-value"),
        ({"temperature": 1.0, "top_k": -1}, "recipe/bad-value"),
        ({"temperature": 1.0, "min_p": 1.5}, "recipe/bad-value"),
        ({"samples": 0}, "recipe/bad-value"),
        ({"samples": 2}, "recipe/conflict"),
    ],
)
def test_what_is_no_distribution_is_refused(wrong, code):
    with pytest.raises(RecipeError) as refused:
        Sampling(**wrong)
    assert refused.value.code == code


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=0.7)])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_no_answer(sampling, bad):
    work = Work([[1], [2]], ["a", "b"], [5, 5], sampling, Stops.of([]), lambda prompt, sample, token: None)
    drafts = [work.begin(0, 0), work.begin(1, 0)]
    work.continue_with(torch.stack([LOGITS, LOGITS]), drafts)
    broken = LOGITS.clone()
    broken[3] = bad
    with pytest.raises(ModelError) as refused:
        work.continue_with(torch.stack([LOGITS, broken]), drafts)
    assert (refused.value.code, refused.value.problems[0].where) == ("model/bad-weights", "prompt b")


def test_a_model_that_expects_no_numbers_neither_answers_nor_rates(tiny_model):
    forward = prove(load_model(locate(str(tiny_model("llama")))), max_length=16)
    with torch.no_grad():
        forward.model.get_input_embeddings().weight[9] = math.nan
    for refused in (
        lambda: generate(forward, [[7, 8], [7, 9]], stop_ids=[], max_new_tokens=2, rows=["a", "b"]),
        lambda: likelihoods(forward, [[7, 8], [7, 9]], [[[5]], [[6]]]),
    ):
        with pytest.raises(ModelError, match="not a number") as error:
            refused()
        assert error.value.code == "model/bad-weights"
