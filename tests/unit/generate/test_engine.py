"""Greedy answers to many prompts at once are those of `transformers`, one at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tutelage.errors import DataError
from tutelage.generate.cache import SlotCache
from tutelage.generate.engine import generate, room, stream
from tutelage.generate.sampling import Sampling
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
    assert len({answer.input_ids for answer in one}) == 1
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


@pytest.fixture
def passes(monkeypatch):
    """Tokens of each forward pass, as they happen."""
    from tutelage.models.forward import Forward

    seen: list[int] = []
    hidden = Forward.hidden

    def counted(self, input_ids, position_ids, **options):
        seen.append(len(input_ids))
        return hidden(self, input_ids, position_ids, **options)

    monkeypatch.setattr(Forward, "hidden", counted)
    return seen


def test_prompts_are_computed_within_the_budget(tiny_model, passes):
    forward = prove(load_model(locate(str(tiny_model("llama")))), max_length=64)
    passes.clear()
    asked = [list(range(5 + i, 35 + i)) for i in range(9)] + [list(range(5, 105))]
    generate(forward, asked, stop_ids=[], max_new_tokens=2, in_flight=16, token_budget=70)
    assert passes[:6] == [100, 60, 60, 60, 60, 30]  # The one longer than the budget comes alone.
    assert passes[6:] == [10]


def test_a_prompt_is_computed_once_for_all_its_answers(tiny_model, passes):
    forward = prove(load_model(locate(str(tiny_model("llama")))), max_length=64)
    passes.clear()
    warm = Sampling(temperature=1.0, samples=5)
    answers = generate(forward, [list(range(5, 45))], stop_ids=[], max_new_tokens=3, sampling=warm, in_flight=2)
    assert len(answers) == 5
    assert passes == [40, 2, 2, 2, 2, 1, 1]


def test_what_prompts_begin_with_in_common_is_computed_once(tiny_model, passes):
    forward = prove(load_model(locate(str(tiny_model("llama")))), max_length=64)
    passes.clear()
    generate(forward, [[*range(5, 45), 50 + i] for i in range(8)], stop_ids=[], max_new_tokens=1)
    assert passes == [48]


def test_long_prompts_make_no_large_cache(tiny_model, monkeypatch):
    forward = prove(load_model(locate(str(tiny_model("llama")))), max_length=64)
    made = []
    start = SlotCache.__init__

    def noted(self, slots, capacity):
        made.append((slots, capacity))
        start(self, slots, capacity)

    monkeypatch.setattr(SlotCache, "__init__", noted)
    asked = [list(range(5, 5 + length)) for length in (250, 240, *[10] * 20)]
    answers = generate(forward, asked, stop_ids=[], max_new_tokens=6, in_flight=16, cache_tokens=300)
    assert made == [(1, 256), (16, 16)]
    assert len(answers) == 22


def test_each_token_is_told_of_as_it_is_written(tiny_model, expected):
    forward = prove(load_model(locate(str(tiny_model("llama")))), max_length=64)
    asked, stops, right = expected("llama")
    told: dict[int, list[int]] = {}

    def note(prompt, sample, token):
        assert sample == 0
        told.setdefault(prompt, []).append(token)

    generate(forward, asked[:9], stop_ids=stops, max_new_tokens=LIMIT, in_flight=4, written=note)
    assert [told.get(i, []) for i in range(9)] == right[:9]


def test_an_empty_prompt_is_refused(tiny_model):
    forward = prove(load_model(locate(str(tiny_model("llama")))), max_length=64)
    with pytest.raises(DataError) as refused:
        generate(forward, [[5], []], stop_ids=[], max_new_tokens=2)
    assert refused.value.code == "data/bad-row"
    assert refused.value.problems[0].where == "prompt 1"


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_settings_that_the_model_brings_do_not_apply(tiny_model, family):
    """A penalty or a temperature in the model's folder would make its answers incomparable."""
    forward = prove(load_model(locate(str(tiny_model(family)))), max_length=64)
    asked = prompts(3)
    plain = generate(forward, asked, stop_ids=[], max_new_tokens=8)
    own = forward.model.generation_config
    own.repetition_penalty, own.eos_token_id = 50.0, [answer.input_ids[1] for answer in plain]
    changed = generate(forward, asked, stop_ids=[], max_new_tokens=8)
    assert [one.input_ids for one in changed] == [one.input_ids for one in plain]
    assert forward.model.generation_config is own


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_prompt_longer_than_the_models_positions_is_refused(tiny_model, family):
    forward = prove(load_model(locate(str(tiny_model(family)))), max_length=64)
    fits = [7] * 512
    with pytest.raises(DataError) as refused:
        generate(forward, [fits, [*fits, 7]], stop_ids=[], max_new_tokens=4)
    assert [problem.where for problem in refused.value.problems] == ["prompt 1"]
    with pytest.raises(DataError):
        list(stream(forward, [*fits, 7], stop_ids=[], max_new_tokens=4))
