"""The head at the trained edges: losses and gradients of `cross_entropy`, without its memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.models import head as module
from tutelage.models.head import Head, find_head
from tutelage.models.load import load_model
from tutelage.models.location import locate

WIDTH, VOCABULARY = 12, 130


def made(count: int, *, bias: bool = False, dtype=torch.float64):
    generator = torch.Generator().manual_seed(count)
    linear = nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=dtype)
    for parameter in linear.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=dtype)
    hidden = torch.randn(count, WIDTH, generator=generator, dtype=dtype)
    targets = torch.randint(VOCABULARY, (count,), generator=generator)
    weights = torch.rand(count, generator=generator, dtype=dtype) * 2
    return linear, hidden, targets, weights


def reference(head: Head, hidden, targets, weights):
    """(sum, each) by materialising everything."""
    logits = head.linear(hidden) * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    each = cross_entropy(logits, targets, reduction="none")
    return (each * weights).sum(), each


CASES = {
    "plain": {},
    "bias": {"bias": True},
    "softcap": {"softcap": 3.0},
    "scale": {"scale": 0.25},
    "everything": {"bias": True, "softcap": 5.0, "scale": 2.0},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("count", [1, 16, 17, 50])
def test_losses_and_gradients_are_those_of_cross_entropy(monkeypatch, case, count):
    """In blocks of sixteen edges, so that 50 need four."""
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 16)
    options = dict(CASES[case])
    linear, hidden, targets, weights = made(count, bias=options.pop("bias", False), dtype=torch.float32)
    head = Head(linear, **options)
    assert head.rows == 16
    hidden.requires_grad_()
    wanted = [hidden, *linear.parameters()]
    total, each = head.nll(hidden, targets, weights)
    found = torch.autograd.grad(total * 0.5, wanted)
    right_total, right_each = reference(head, hidden, targets, weights)
    right = torch.autograd.grad(right_total * 0.5, wanted)
    assert torch.allclose(total, right_total, rtol=1e-5)
    assert torch.allclose(each, right_each, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(found, right, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert abs((each - right_each).mean().item()) < 1e-6


@pytest.mark.parametrize("frozen", ["weight", "hidden", "both"])
def test_what_is_frozen_gets_no_gradient(frozen):
    linear, hidden, targets, weights = made(9, dtype=torch.float32)
    linear.requires_grad_(frozen == "hidden")
    hidden.requires_grad_(frozen == "weight")
    total, _ = Head(linear).nll(hidden, targets, weights)
    assert total.requires_grad == (frozen != "both")
    if total.requires_grad:
        total.backward()
    assert (hidden.grad is None) == (frozen != "weight")
    assert (linear.weight.grad is None) == (frozen != "hidden")


def test_large_logits_neither_overflow_nor_vanish():
    linear, hidden, targets, weights = made(20, dtype=torch.float32)
    linear.weight.data *= 1e4
    total, each = Head(linear).nll(hidden.requires_grad_(), targets, weights)
    assert torch.allclose(each, reference(Head(linear), hidden, targets, weights)[1], rtol=1e-4)
    assert torch.isfinite(torch.autograd.grad(total, hidden)[0]).all()


def test_no_edges_are_no_loss():
    linear, hidden, targets, weights = made(0, dtype=torch.float32)
    total, each = Head(linear).nll(hidden.requires_grad_(), targets, weights)
    total.backward()
    assert (total.item(), each.shape, hidden.grad.shape) == (0.0, (0,), (0, WIDTH))


class Largest(TorchDispatchMode):
    """The most elements of any new tensor that has one row per edge and one column per word."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("trained", [True, False])
def test_no_tensor_is_larger_than_a_block(monkeypatch, trained):
    """700 edges in blocks of 16: nothing near 700 x 130 is ever made, forwards or backwards."""
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 16 * VOCABULARY)
    linear, hidden, targets, weights = made(700, dtype=torch.float32)
    linear.requires_grad_(trained)
    head = Head(linear, softcap=3.0)
    with Largest() as largest:
        total, _ = head.nll(hidden.requires_grad_(), targets, weights)
        total.backward()
    assert largest.elements <= max(head.rows * VOCABULARY, hidden.numel(), linear.weight.numel())
    with Largest() as largest, torch.no_grad():
        head.nll(hidden, targets, weights)
    assert largest.elements <= max(head.rows * VOCABULARY, hidden.numel(), linear.weight.numel())


@pytest.mark.parametrize(
    ("family", "scale", "softcap"), [("llama", 1.0, None), ("gemma2", 1.0, 5.0), ("cohere", 0.25, None)]
)
def test_the_head_is_read_from_the_configuration(tiny_model, family, scale, softcap):
    model = load_model(locate(str(tiny_model(family))))
    head = find_head(model)
    assert (head.scale, head.softcap) == (scale, softcap)
    ids = torch.arange(5, 20)[None]
    with torch.no_grad():
        hidden = model.get_decoder()(input_ids=ids).last_hidden_state[0]
        assert torch.allclose(head.logits(hidden), model(input_ids=ids).logits[0], atol=1e-5)


def test_a_head_of_another_kind_is_not_taken(tiny_model):
    class Other(nn.Linear):
        pass

    model = load_model(locate(str(tiny_model("llama-untied"))))
    model.set_output_embeddings(Other(32, 8, bias=False))
    assert find_head(model) is None
