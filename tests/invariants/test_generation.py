"""An answer is the same in any company: alone or with others, in any order, first or last of its samples (float32)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tutelage.generate.engine import generate
from tutelage.generate.likelihood import likelihoods
from tutelage.generate.sampling import GREEDY, Sampling
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate

LIMIT = 10
WARM = Sampling(temperature=1.0, top_p=0.95, samples=2, seed=7)
FAMILIES = ["llama", "qwen3", "gpt2", "mistral-window", "gemma2"]


@pytest.fixture(scope="module")
def forward_of(tiny_model):
    """`forward_of(family)`, proved once."""
    known = {}

    def get(family):
        if family not in known:
            known[family] = prove(load_model(locate(str(tiny_model(family)))), max_length=64)
        return known[family]

    return get


def prompts(count: int = 12) -> list[list[int]]:
    rng = np.random.default_rng(11)
    shared = rng.integers(5, 300, 9).tolist()
    own = [rng.integers(5, 300, int(length)).tolist() for length in rng.integers(1, 24, count)]
    return [shared + one if i % 3 else one for i, one in enumerate(own)]


def answers(forward, asked, sampling, order=None, **options):
    """Ids of all answers, in the order of the prompts, when they are asked for in another order."""
    order = list(range(len(asked))) if order is None else order
    found = generate(
        forward,
        [asked[i] for i in order],
        stop_ids=[2, 17, 40, 41],
        max_new_tokens=LIMIT,
        sampling=sampling,
        rows=[f"row {i}" for i in order],
        **options,
    )
    samples = sampling.samples
    by_row = {i: found[at * samples : (at + 1) * samples] for at, i in enumerate(order)}
    return [[(one.input_ids, one.stopped) for one in by_row[i]] for i in range(len(asked))], found


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize("family", FAMILIES)
def test_company_and_order_change_no_answer(forward_of, family, sampling):
    forward, asked = forward_of(family), prompts(12 if family != "gemma2" else 4)
    expected, _ = answers(forward, asked, sampling, in_flight=1)
    shuffled = np.random.default_rng(3).permutation(len(asked)).tolist()
    assert answers(forward, asked, sampling, in_flight=3)[0] == expected
    assert answers(forward, asked, sampling, in_flight=32)[0] == expected
    assert answers(forward, asked, sampling, shuffled, in_flight=32)[0] == expected
    assert answers(forward, asked, sampling, shuffled[::-1], in_flight=5, token_budget=20)[0] == expected
    assert answers(forward, asked, sampling, in_flight=32, cache_tokens=60)[0] == expected
    few = asked[:3]
    assert answers(forward, few, sampling, in_flight=32)[0] == expected[:3]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_is_one_of_the_same_number_however_many_are_asked_for(forward_of, family):
    forward, asked = forward_of(family), prompts(4)
    few, _ = answers(forward, asked, Sampling(temperature=1.0, samples=2), in_flight=3)
    many, _ = answers(forward, asked, Sampling(temperature=1.0, samples=5), in_flight=4)
    assert [row[:2] for row in many] == few
    assert all(len(set(row)) > 1 for row in many)
    other, _ = answers(forward, asked, Sampling(temperature=1.0, samples=2, seed=1), in_flight=3)
    assert other != few


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_the_models_own(forward_of, tiny_model, family, sampling):
    asked = prompts(4)
    _, found = answers(forward_of(family), asked, sampling, in_flight=3)
    model = load_model(locate(str(tiny_model(family))))
    for at, answer in enumerate(found):
        prompt = asked[at // sampling.samples]
        written = list(answer.input_ids)
        assert len(answer.logprobs) == len(answer.drawn) == len(written) + answer.stopped
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + written]), use_cache=False).logits[0, len(prompt) - 1 :]
        own = logits.log_softmax(-1)
        told = [float(own[i, id]) for i, id in enumerate(written)]
        assert list(answer.logprobs)[: len(written)] == pytest.approx(told, abs=1e-4)
        if answer.stopped:
            assert max(float(own[len(written), id]) for id in (2, 17, 40, 41)) >= answer.logprobs[-1] - 1e-4
        assert all(drawn >= logprob - 1e-5 for drawn, logprob in zip(answer.drawn, answer.logprobs, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_likelihoods_are_the_models_own_whatever_is_shared(forward_of, tiny_model, family):
    forward, asked = forward_of(family), prompts(6)
    rng = np.random.default_rng(2)
    options = [[rng.integers(5, 300, int(n)).tolist() for n in rng.integers(1, 5, 4)] for _ in asked]
    options[2] = [[9, 8], [9, 8, 7], [9]]  # One begins another one.
    model = load_model(locate(str(tiny_model(family))))
    expected = []
    for prompt, row in zip(asked, options, strict=True):
        for option in row:
            with torch.no_grad():
                own = model(input_ids=torch.tensor([prompt + option]), use_cache=False).logits[0].log_softmax(-1)
            expected.append([float(own[len(prompt) + i - 1, id]) for i, id in enumerate(option)])
    for budget in (1, 4096):
        counted = []
        found = likelihoods(forward, asked, options, token_budget=budget, progress=counted.append)
        assert sum(counted) == len(asked)
        ours = [list(one.logprobs) for row in found for one in row]
        assert [len(one) for one in ours] == [len(one) for one in expected]
        for mine, right in zip(ours, expected, strict=True):
            assert mine == pytest.approx(right, abs=1e-4)
    one = found[0][0]
    assert one.sum == pytest.approx(sum(one.logprobs))
    assert one.per_token == pytest.approx(one.sum / len(one.logprobs))
    assert one.per_byte("né") == pytest.approx(one.sum / 3)
