"""One global batch has one gradient, however it is cut, packed, padded or adapted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tutelage.data.batch import pack
from tutelage.models.adapters import adapt, trainable
from tutelage.models.forward import Forward, prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.recipe import Full, Lora
from tutelage.types import Example, Origin

FAMILIES = ["llama", "llama-untied", "qwen2", "qwen3", "gpt2", "mistral-window", "gemma2", "cohere"]
PACKED = {"llama", "llama-untied", "qwen2", "qwen3", "gpt2", "mistral-window", "cohere"}
LENGTHS = [3, 50, 7, 31, 2, 18, 64, 9, 12, 5, 27, 40, 4, 33, 21, 16]


def uneven(count: int = 16, seed: int = 0) -> list[Example]:
    """Rows of very different lengths, with weights 0, 0.5, 1 and 2 scattered over them."""
    rng = np.random.default_rng(seed)
    examples = []
    for number, length in enumerate(LENGTHS[:count]):
        weights = rng.choice([0.0, 0.5, 1.0, 2.0], size=length).astype(np.float32)
        weights[0] = 0.0
        weights[-1] = 1.0
        ids = rng.integers(5, 300, size=length).astype(np.int32)
        examples.append(Example(ids, weights, Origin("made", number + 1), int(np.flatnonzero(weights)[0])))
    return examples


def gradients(forward: Forward, groups: list[list[Example]]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one global batch, cut as given."""
    forward.model.zero_grad(set_to_none=True)
    total = sum(float(e.weights.sum()) for group in groups for e in group)
    summed = 0.0
    for group in groups:
        loss, _ = forward.nll(pack(group))
        (loss / total).backward()
        summed += loss.item()
    return summed / total, {n: p.grad.clone() for n, p in trainable(forward.model).items()}


def padded_reference(model: torch.nn.Module, examples: list[Example]) -> tuple[float, dict[str, torch.Tensor]]:
    """The same by plain `transformers`: each row padded on the right, attention mask, `cross_entropy`."""
    model.zero_grad(set_to_none=True)
    total = sum(float(e.weights.sum()) for e in examples)
    width = max(map(len, examples)) + 3
    summed = 0.0
    for example in examples:
        ids = torch.full((1, width), 2)
        ids[0, : len(example)] = torch.from_numpy(example.input_ids.astype(np.int64))
        mask = (torch.arange(width) < len(example)).long()[None]
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0, : len(example) - 1]
        each = cross_entropy(logits, ids[0, 1 : len(example)], reduction="none")
        loss = (each * torch.from_numpy(example.weights[1:])).sum()
        (loss / total).backward()
        summed += loss.item()
    return summed / total, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    """Equal tensor by tensor, and not shifted to one side."""
    assert one.keys() == other.keys()
    norm = torch.sqrt(sum(g.double().square().sum() for g in other.values()))
    difference = torch.sqrt(sum((one[n].double() - other[n].double()).square().sum() for n in one))
    assert float(difference / norm) < tolerance, f"gradients differ by {float(difference / norm):.1e} of their norm"
    for name in one:
        spread = other[name].abs().max()
        assert (one[name] - other[name]).abs().max() <= 2e-5 * spread + 1e-9, name
    drift = sum((one[n].double() - other[n].double()).sum() for n in one) / sum(g.numel() for g in one.values())
    assert abs(float(drift)) < 1e-8, "the difference is one-sided"


def cuts(examples: list[Example]) -> dict[str, list[list[Example]]]:
    """Sixteen rows as one micro-batch, sixteen, and four by four."""
    return {
        "1x16": [examples],
        "16x1": [[e] for e in examples],
        "4x4": [examples[i : i + 4] for i in range(0, 16, 4)],
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_full_gradient_is_the_same_for_every_cut(family, tiny_model):
    """Pain 5: 16x1, 1x16, 4x4 and padded rows through plain transformers agree to 1e-6."""
    examples = uneven()
    location = locate(str(tiny_model(family)))
    plain = AutoModelForCausalLM.from_pretrained(location.path, dtype=torch.float32).eval()
    if family == "gemma2":
        plain.set_attn_implementation("eager")
    reference_loss, reference = padded_reference(plain, examples)
    forward = prove(load_model(location), max_length=64)
    assert forward.packed == (family in PACKED), forward.reason
    print(family, forward.fused)
    adapt(forward.model, Full(), seed=0, base="")
    for name, groups in cuts(examples).items():
        loss, found = gradients(forward, groups)
        assert loss == pytest.approx(reference_loss, rel=1e-6), name
        assert_same(found, reference)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_lora_gradient_is_the_same_for_every_cut(family, tiny_model):
    """The same with adapters that are no longer at their start."""
    examples = uneven()
    forward = prove(load_model(locate(str(tiny_model(family)))), max_length=64)
    forward.model = adapt(forward.model, Lora(rank=4), seed=1, base="")
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trainable(forward.model).items():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    results = {name: gradients(forward, groups) for name, groups in cuts(examples).items()}
    for name, (loss, found) in results.items():
        assert loss == pytest.approx(results["1x16"][0], rel=1e-6), name
        assert_same(found, results["1x16"][1])


def test_lora_at_step_0_is_the_base_model(tiny_model):
    examples = uneven(4)
    forward = prove(load_model(locate(str(tiny_model("llama")))), max_length=64)
    before = forward.nll(pack(examples))[1]
    forward.model = adapt(forward.model, Lora(rank=4), seed=1, base="")
    assert torch.equal(before, forward.nll(pack(examples))[1])


def test_a_zero_weight_batch_changes_nothing(tiny_model):
    """Pain 23: a micro-batch without a trained token adds exactly zero."""
    forward = prove(load_model(locate(str(tiny_model("llama")))), max_length=64)
    adapt(forward.model, Full(), seed=0, base="")
    silent = Example(np.arange(5, 12, dtype=np.int32), np.zeros(7, dtype=np.float32), Origin("made", 1), 7)
    loss, _ = forward.nll(pack([silent]))
    loss.backward()
    assert loss.item() == 0.0
    assert all(torch.isfinite(p.grad).all() and not p.grad.any() for p in trainable(forward.model).values())
