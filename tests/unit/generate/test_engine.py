"""Greedy answers to many prompts at once are those of `transformers`, one at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tutelage.generate.engine import generate, room, stream
from tutelage.models.adapters import adapt, trainable
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.recipe import Lora

LIMIT = 12


def prompts(count: int = 40) -> list[list[int]]:
    rng = np.random.default_rng(5)
    return [rng.integers(5, 300, int(length)).tolist() for length in rng.integers(1, 40, count)]


def by_transformers(model, prompt: list[int], stop_ids: list[int], limit: int = LIMIT) -> list[int]:
    """What the model writes after the prompt, the stop token left out."""
    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=stop_ids or None,
            pad_token_id=0,
            use_cache=True,
        )[0, len(prompt) :].tolist()
    return out[:-1] if out[-1] in stop_ids else out


@pytest.fixture(scope="module")
def expected(tiny_model):
    """`expected(family)`: the prompts, two ids that end some answers, and the answers by plain transformers."""
    known = {}

    def answers(family: str):
        if family not in known:
            model = load_model(locate(str(tiny_model(family))))
            asked = prompts()
            free = [by_transformers(model, prompt, []) for prompt in asked]
            common = np.bincount([id for answer in free for id in answer[2:]]).argsort()[-2:].tolist()
            known[family] = asked, common, [by_transformers(model, prompt, common) for prompt in asked]
        return known[family]

    return answers


@pytest.mark.parametrize("in_flight", [1, 3, 32])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "mistral-window", "gemma2"])
def test_answers_are_those_of_transformers(tiny_model, expected, family, in_flight):
    forward = prove(load_model(locate(str(tiny_model(family)))), max_length=64)
    assert forward.packed == (family != "gemma2")
    asked, stops, right = expected(family)
    counted = []
    answers = generate(
        forward, asked, stop_ids=stops, max_new_tokens=LIMIT, in_flight=in_flight, progress=counted.append
    )
    assert [list(answer.input_ids) for answer in answers] == right
    assert [answer.stopped for answer in answers] == [len(answer) < LIMIT for answer in right]
    assert 0 < sum(answer.stopped for answer in answers) < len(asked)
    assert counted == [1] * len(asked)


@pytest.mark.parametrize("in_flight", [1, 32])
def test_a_window_wider_than_the_training_rows_holds_in_generation_too(tiny_model, expected, in_flight):
    """Training rows fit into the window, so the model is packed; prompts and answers may outgrow it."""
    forward = prove(load_model(locate(str(tiny_model("mistral-wide")))), max_length=16)
    assert forward.packed
    asked, stops, right = expected("mistral-wide")
    assert max(map(len, asked)) > 20
    answers = generate(forward, asked, stop_ids=stops, max_new_tokens=LIMIT, in_flight=in_flight)
    assert [list(answer.input_ids) for answer in answers] == right


@pytest.mark.parametrize("family", ["llama", "mistral-window"])
def test_a_stream_writes_the_same(tiny_model, expected, family):
    forward = prove(load_model(locate(str(tiny_model(family)))), max_length=64)
    asked, stops, right = expected(family)
    for prompt, answer in list(zip(asked, right, strict=True))[:8]:
        assert list(stream(forward, prompt, stop_ids=stops, max_new_tokens=LIMIT)) == answer


def test_an_adapter_takes_part(tiny_model):
    forward = prove(load_model(locate(str(tiny_model("llama")))), max_length=64)
    before = generate(forward, prompts(6), stop_ids=[2], max_new_tokens=LIMIT)
    forward.model = adapt(forward.model, Lora(rank=2), seed=0, base="")
    for name, parameter in trainable(forward.model).items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    after = generate(forward, prompts(6), stop_ids=[2], max_new_tokens=LIMIT)
    assert before != after


def test_one_token_no_prompt_and_equal_prompts(tiny_model):
    forward = prove(load_model(locate(str(tiny_model("llama")))), max_length=64)
    assert generate(forward, [], stop_ids=[2], max_new_tokens=3) == []
    one = generate(forward, [[7, 8], [7, 8], [7, 8]], stop_ids=[], max_new_tokens=1, in_flight=2)
    assert len(set(one)) == 1
    assert len(one[0].input_ids) == 1
    assert not one[0].stopped


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_no_answer_runs_past_the_models_positions(tiny_model, family):
    """A prompt may fill all 512 of them; there is room for the token that follows."""
    forward = prove(load_model(locate(str(tiny_model(family)))), max_length=64)
    asked = [list(range(5, 300)) + list(range(5, 5 + more)) for more in (217, 214, 100)]
    answers = generate(forward, asked, stop_ids=[], max_new_tokens=8, in_flight=2)
    assert [len(answer.input_ids) for answer in answers] == [1, 4, 8]
    assert [room(forward, prompt, 8) for prompt in asked] == [1, 4, 8]
    assert len(list(stream(forward, asked[1], stop_ids=[], max_new_tokens=8))) == 4
