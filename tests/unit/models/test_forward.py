"""The fastest exact way to run a model: found by measuring, and left where it is not exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tutelage.data.batch import pack
from tutelage.models import attention
from tutelage.models import forward as module
from tutelage.models.forward import prove
from tutelage.models.head import Head
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.types import Example, Origin

PACKED = ["llama", "llama-untied", "qwen2", "qwen3", "gpt2", "cohere"]
ALONE = {"mistral-window": "sliding window of 8 tokens", "gemma2": "caps"}


def batch():
    rng = np.random.default_rng(0)
    examples = []
    for number, length in enumerate((9, 4, 17)):
        weights = np.ones(length, dtype=np.float32)
        weights[0] = 0.0
        ids = rng.integers(5, 300, length).astype(np.int32)
        examples.append(Example(ids, weights, Origin("made", number), 1))
    return pack(examples)


def load(tiny_model, family):
    return load_model(locate(str(tiny_model(family))))


def expected(tiny_model, family) -> torch.Tensor:
    model, made = load(tiny_model, family), batch()
    parts = []
    for row in torch.from_numpy(made.input_ids).split(made.lengths):
        with torch.no_grad():
            logits = model(input_ids=row[None], use_cache=False).logits[0, :-1]
        parts.append(torch.nn.functional.cross_entropy(logits, row[1:], reduction="none"))
    return torch.cat(parts)


@pytest.mark.parametrize("family", PACKED)
def test_these_run_packed(tiny_model, family):
    forward = prove(load(tiny_model, family), max_length=64)
    assert (forward.packed, forward.reason) == (True, "")
    assert forward.model.config._attn_implementation == attention.NAME
    assert torch.allclose(forward.nll(batch())[1], expected(tiny_model, family), atol=2e-5)


@pytest.mark.parametrize("family", ALONE)
def test_these_run_one_at_a_time_and_say_why(tiny_model, family):
    forward = prove(load(tiny_model, family), max_length=64)
    assert not forward.packed
    assert ALONE[family] in forward.reason
    assert forward.model.config._attn_implementation != attention.NAME
    assert torch.allclose(forward.nll(batch())[1], expected(tiny_model, family), atol=2e-5)


def test_a_window_that_no_row_reaches_is_no_hindrance(tiny_model):
    model = load(tiny_model, "mistral-window")
    model.config.sliding_window = 64
    for layer in model.model.layers:
        layer.self_attn.sliding_window = 64
    assert prove(model, max_length=64).packed


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_head_that_lies_is_found_out_and_left(tiny_model, monkeypatch, family):
    """The configuration promises another scale than the model uses."""
    real = module.find_head
    monkeypatch.setattr(module, "find_head", lambda model: Head(real(model).linear, scale=1.001))
    forward = prove(load(tiny_model, family), max_length=64)
    assert forward.head is None
    assert not forward.packed
    assert "output head" in forward.reason
    total, each = forward.nll(batch())
    assert torch.allclose(each, expected(tiny_model, family), atol=2e-5)
    total.backward()
    assert all(p.grad is not None for p in forward.model.parameters())


def test_a_model_whose_rows_mix_is_found_out(tiny_model, monkeypatch):
    """Attention that crosses from one row to the next gives other logits than the model's own."""
    real = attention.attend_segments
    monkeypatch.setattr(
        attention, "attend_segments", lambda q, k, v, lengths, **options: real(q, k, v, [sum(lengths)], **options)
    )
    model = load(tiny_model, "llama")
    before = model.config._attn_implementation
    forward = prove(model, max_length=64)
    assert not forward.packed
    assert "do not come out as they do alone" in forward.reason
    assert model.config._attn_implementation == before
    assert torch.allclose(forward.nll(batch())[1], expected(tiny_model, "llama"), atol=2e-5)


def test_attention_asked_for_what_it_cannot_do_refuses():
    q = torch.zeros(1, 2, 4, 8)
    layer = torch.nn.Module()
    for options in (
        {},
        {"segments": (4,), "softcap": 5.0},
        {"segments": (4,), "s_aux": torch.zeros(2)},
        {"segments": (4,), "sliding_window": 3},
    ):
        with pytest.raises(attention.UnsupportedAttention):
            attention._forward(layer, q, q, q, None, **options)
    layer.is_causal = False
    with pytest.raises(attention.UnsupportedAttention):
        attention._forward(layer, q, q, q, None, segments=(4,))


def test_proving_leaves_the_weights_and_the_randomness_alone(tiny_model):
    model = load(tiny_model, "qwen2")
    before = {name: p.clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    prove(model, max_length=64)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
