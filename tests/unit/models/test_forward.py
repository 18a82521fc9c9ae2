"""The fastest exact way to run a model: found by measuring, and left where it is not exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tutelage.data.batch import MicroBatch, pack
from tutelage.data.forest import Segment, trees_of_one
from tutelage.models import attention
from tutelage.models import forward as module
from tutelage.models.attention import Layout
from tutelage.models.forward import prove
from tutelage.models.head import Head
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.types import Example, Origin

PACKED = ["llama", "llama-untied", "qwen2", "qwen3", "gpt2", "cohere", "mistral-window"]
ALONE = {"gemma2": "caps"}


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
    for row in torch.from_numpy(made.input_ids).split([end - start for start, end, _ in made.segments]):
        with torch.no_grad():
            logits = model(input_ids=row[None], use_cache=False).logits[0, :-1]
        parts.append(torch.nn.functional.cross_entropy(logits, row[1:], reduction="none"))
    return torch.cat(parts)


@pytest.mark.parametrize("family", PACKED)
def test_these_run_packed(tiny_model, family):
    forward = prove(load(tiny_model, family), max_length=64)
    assert (forward.packed, forward.share, forward.reason, forward.notes) == (True, True, "", ())
    assert forward.model.config._attn_implementation == attention.NAME
    assert torch.allclose(forward.nll(batch())[1], expected(tiny_model, family), atol=2e-5)


@pytest.mark.parametrize("family", ALONE)
def test_these_run_one_at_a_time_and_say_why(tiny_model, family):
    forward = prove(load(tiny_model, family), max_length=64)
    assert not forward.packed
    assert not forward.share
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
        attention.interface,
        "attend_segments",
        lambda q, k, v, segments, **options: real(q, k, v, trees_of_one([q.shape[2]]), **options),
    )
    model = load(tiny_model, "llama")
    before = model.config._attn_implementation
    forward = prove(model, max_length=64)
    assert not forward.packed
    assert "do not come out as they do alone" in forward.reason
    assert model.config._attn_implementation == before
    assert torch.allclose(forward.nll(batch())[1], expected(tiny_model, "llama"), atol=2e-5)


def forest_of_three() -> tuple[MicroBatch, list[np.ndarray]]:
    """A root of 11 tokens that three rows of 16, 20 and 26 share; the last two share 15. And the rows."""
    rng = np.random.default_rng(1)
    root, stem = rng.integers(5, 300, 11), rng.integers(5, 300, 4)
    leaves = [rng.integers(5, 300, n) for n in (5, 5, 11)]
    rows = [np.r_[root, leaves[0]], np.r_[root, stem, leaves[1]], np.r_[root, stem, leaves[2]]]
    starts = [0, 11, 11, 15, 15]
    parts = [root, leaves[0], stem, *leaves[1:]]
    ids = np.concatenate(parts)
    segments = ((0, 11, 36), (11, 16, 16), (16, 20, 36), (20, 25, 25), (25, 36, 36))
    none = np.zeros(0, dtype=np.int64)
    made = MicroBatch(
        input_ids=ids,
        position_ids=np.concatenate([np.arange(s, s + len(p)) for s, p in zip(starts, parts, strict=True)]),
        segments=tuple(Segment(*segment) for segment in segments),
        positions=np.array([*range(10), *range(11, 15), *range(16, 19), *range(20, 24), *range(25, 35)]),
        targets=np.concatenate([part[1:] for part in parts]),
        weights=np.ones(len(ids) - len(parts), dtype=np.float32),
        owned=none,
        owners=none,
        owner_weights=none.astype(np.float32),
        tokens=sum(map(len, rows)),
    )
    return made, rows


@pytest.mark.parametrize("family", PACKED)
def test_a_shared_forest_comes_out_as_the_rows_alone(tiny_model, family):
    """For mistral-window the window cuts the root and the branches."""
    made, rows = forest_of_three()
    model = load(tiny_model, family)
    alone = []
    for row in map(torch.from_numpy, rows):
        with torch.no_grad():
            logits = model(input_ids=row[None], use_cache=False).logits[0, :-1]
        alone.append(torch.nn.functional.cross_entropy(logits, row[1:], reduction="none"))
    first, second, third = alone
    expected = torch.cat([first[:10], first[11:], second[11:14], second[15:], third[15:]])
    assert torch.allclose(prove(model, max_length=64).nll(made)[1], expected, atol=2e-5)


@pytest.mark.parametrize("family", PACKED)
def test_gradients_of_a_shared_forest_are_those_of_its_rows(tiny_model, family):
    made, rows = forest_of_three()
    trained = [[*range(1, 11), *range(12, 16)], [*range(12, 15), *range(16, 20)], [*range(16, 26)]]
    examples = []
    for number, (row, targets) in enumerate(zip(rows, trained, strict=True)):
        weights = np.zeros(len(row), dtype=np.float32)
        weights[targets] = 1.0
        examples.append(Example(row.astype(np.int32), weights, Origin("made", number), 1))
    forward = prove(load(tiny_model, family), max_length=64)
    parameters = [p for p in forward.model.parameters() if p.requires_grad]
    shared = torch.autograd.grad(forward.nll(made)[0], parameters)
    apart = torch.autograd.grad(forward.nll(pack(examples))[0], parameters)
    largest = max(float(b.abs().max()) for b in apart)
    assert max(float((a - b).abs().max()) for a, b in zip(shared, apart, strict=True)) < 2e-6 * largest


def test_a_model_that_mistakes_shared_prefixes_alone_shares_nothing(tiny_model, monkeypatch):
    real = Layout.__init__
    no_one_else = lambda segments: [segment._replace(exit=segment.end) for segment in segments]  # noqa: E731
    monkeypatch.setattr(
        Layout, "__init__", lambda self, segments, backends: real(self, no_one_else(segments), backends)
    )
    forward = prove(load(tiny_model, "llama"), max_length=64)
    assert forward.packed
    assert not forward.share
    assert "common prefix" in forward.reason


def test_a_model_that_mistakes_its_window_is_run_alone(tiny_model, monkeypatch):
    """The window of the attention function is off by one."""
    real = attention.interface.attend_segments
    wrong = lambda *inputs, window, **o: real(*inputs, window=window and window + 1, **o)  # noqa: E731
    monkeypatch.setattr(attention.interface, "attend_segments", wrong)
    model = load(tiny_model, "mistral-wide")
    assert prove(load(tiny_model, "mistral-wide"), max_length=20).packed
    forward = prove(model, max_length=64)
    assert not forward.packed
    assert "sliding window" in forward.reason


def test_layers_of_two_kinds_each_get_their_window():
    """Gemma 3: some layers see six tokens, one sees all."""
    config = AutoConfig.for_model(
        "gemma3_text",
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 else None
    made, rows = forest_of_three()
    row = torch.from_numpy(rows[2]) % 300
    with torch.no_grad():
        logits = model(input_ids=row[None], use_cache=False).logits[0, 15:-1]
    expected = torch.nn.functional.cross_entropy(logits, row[16:], reduction="none")
    forward = prove(model, max_length=64)
    assert (forward.packed, forward.share, forward.reason) == (True, True, "")
    assert torch.allclose(forward.nll(made)[1][-10:], expected, atol=1e-4)


def test_proving_leaves_the_weights_and_the_randomness_alone(tiny_model):
    model = load(tiny_model, "qwen2")
    before = {name: p.clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    prove(model, max_length=64)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
