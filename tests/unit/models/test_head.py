"""The head at the trained edges: losses and gradients of `cross_entropy`, without its memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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


FORMATS = [
    (torch.bfloat16, torch.float32, 1e-5),
    (torch.float32, torch.bfloat16, 1e-5),
    (torch.bfloat16, torch.bfloat16, 1e-5),
    (torch.float64, torch.float64, 1e-5),
]


@pytest.mark.parametrize(("of_hidden", "of_weight", "tolerance"), FORMATS)
def test_formats_may_differ_and_the_loss_is_float32(monkeypatch, of_hidden, of_weight, tolerance):
    """Losses and sums are those of the same numbers in float32; gradients come back in the formats of their tensors."""
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 16)
    linear, hidden, targets, weights = made(50, bias=True, dtype=torch.float32)
    linear, hidden = linear.to(of_weight), hidden.to(of_hidden).requires_grad_()
    exact, same = nn.Linear(WIDTH, VOCABULARY), hidden.detach().float().requires_grad_()
    exact.load_state_dict(linear.state_dict())
    total, each = Head(linear).nll(hidden, targets, weights)
    right_total, right_each = reference(Head(exact), same, targets, weights)
    found = torch.autograd.grad(total, [hidden, *linear.parameters()])
    right = torch.autograd.grad(right_total, [same, *exact.parameters()])
    assert (total.dtype, each.dtype) == (torch.float32, torch.float32)
    assert torch.allclose(each, right_each, rtol=tolerance, atol=tolerance)
    for ours, theirs, tensor in zip(found, right, [hidden, *linear.parameters()], strict=True):
        assert ours.dtype == tensor.dtype
        assert torch.allclose(ours, theirs.to(tensor.dtype), rtol=1e-2 if tensor.dtype == torch.bfloat16 else 1e-4)


def test_the_gradient_of_a_bfloat16_weight_is_not_rounded_where_it_is_gathered_in_float32():
    linear, hidden, targets, weights = made(50, dtype=torch.float32)
    linear = linear.to(torch.bfloat16)
    linear.weight.grad_dtype = torch.float32
    Head(linear).nll(hidden, targets, weights)[0].backward()
    assert linear.weight.grad.dtype == torch.float32
    assert not torch.equal(linear.weight.grad, linear.weight.grad.to(torch.bfloat16).float())


def test_a_thread_reuses_its_block_and_no_other_threads():
    """A block is remade when it is too small or of another format, and never two are held."""

    def address(rows: int, dtype: torch.dtype = torch.float32) -> int:
        block = module._block(rows, VOCABULARY, dtype, torch.device("cpu"))
        assert (block.shape, block.dtype) == ((rows, VOCABULARY), dtype)
        return block.data_ptr()

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        first = one.submit(address, 30).result()
        assert one.submit(address, 30).result() == one.submit(address, 7).result() == first
        assert other.submit(address, 30).result() != first
        assert one.submit(address, 30).result() == first
        one.submit(address, 3, torch.float64).result()


def test_losses_of_two_calls_do_not_disturb_each_other():
    """An evaluation in inference mode between a training pass and its way back."""
    linear, hidden, targets, weights = made(40, dtype=torch.float32)
    head = Head(linear)
    total, each = head.nll(hidden.requires_grad_(), targets, weights)
    alone = torch.autograd.grad(total, hidden)[0]
    kept = each.clone()
    total, each = head.nll(hidden, targets, weights)
    with torch.inference_mode():
        head.nll(torch.randn(300, WIDTH), torch.zeros(300, dtype=torch.long), torch.ones(300))
    assert torch.equal(torch.autograd.grad(total, hidden)[0], alone)
    assert torch.equal(each, kept)
    head.nll(torch.randn(300, WIDTH).requires_grad_(), torch.zeros(300, dtype=torch.long), torch.ones(300))


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
