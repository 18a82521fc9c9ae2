"""The compiled kernels compute what torch does, forward and backward; a layer that differs keeps its own code."""

from __future__ import annotations

import copy
import math
import shutil

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from tutelage.models import fused, kernels
from tutelage.models.fused import fuse
from tutelage.models.load import load_model
from tutelage.models.location import locate

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def test_the_kernels_were_built():
    """A compiler that is there and a library that is not would be a broken build, which the installer lets pass."""
    assert kernels.library() is not None


def test_a_library_of_another_version_is_not_used(monkeypatch):
    monkeypatch.setattr(kernels, "VERSION", kernels.VERSION + 1)
    assert kernels.library.__wrapped__() is None


def close(ours: torch.Tensor, reference: torch.Tensor, tolerance: float = 2e-6) -> None:
    """Equal to rounding, and not shifted to one side; the reference is float64."""
    spread = reference.abs().max()
    assert (ours.double() - reference).abs().max() <= tolerance * spread
    assert abs((ours.double() - reference).mean()) <= 2e-7 * spread


def both(function, reference, *inputs):
    """Results and gradients, in float32 by ours and in float64 by the reference."""
    found = []
    for compute, dtype in ((function, torch.float32), (reference, torch.float64)):
        leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
        y = compute(*leaves)
        slope = torch.linspace(-1, 2, y.numel(), dtype=dtype).view(y.shape)
        found.append([y.detach(), *torch.autograd.grad(y, leaves, slope)])
    for ours, theirs in zip(*found, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (1, 130, 48)])
@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
def test_gated(activation, shape):
    torch.manual_seed(0)
    act = {"silu": nn.functional.silu, "gelu_tanh": lambda x: nn.functional.gelu(x, approximate="tanh")}[activation]
    gate, up = torch.randn(shape) * 4, torch.randn(shape)
    both(lambda g, u: kernels.gated(g, u, activation), lambda g, u: act(g) * u, gate, up)


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
def test_gated_far_from_zero_and_not_finite(activation):
    gate = torch.tensor([-1e4, -200.0, -90.0, 90.0, 200.0, 1e4, math.nan], requires_grad=True)
    y = kernels.gated(gate, torch.ones(7), activation)
    y.sum().backward()
    assert y[:3].abs().max() < 1e-30
    assert torch.equal(y[3:6], gate[3:6])
    assert y[6].isnan()
    assert gate.grad[6].isnan()
    assert torch.allclose(gate.grad[:6], torch.tensor([0.0, 0, 0, 1, 1, 1]))


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("rows", [1, 50])
def test_norm(rows, offset):
    torch.manual_seed(0)
    x, weight = torch.randn(1, rows, 96) * 3, torch.randn(96)

    def reference(x, w):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * (w + offset)

    both(lambda x, w: kernels.rms_norm(x, w, 1e-5, offset), reference, x, weight)


def test_rotation_and_back():
    from transformers.models.llama.modeling_llama import rotate_half

    torch.manual_seed(0)
    x = torch.randn(1, 20, 3, 16).transpose(1, 2)
    angles = torch.rand(1, 20, 8) * 9
    cosine, sine = (torch.cat([part, part], -1) for part in (angles.cos(), angles.sin()))

    def reference(x):
        return x * cosine.double()[:, None] + rotate_half(x) * sine.double()[:, None]

    both(lambda x: kernels.rotate(x, cosine, sine), reference, x)
    both(lambda x: kernels.rotate(x.contiguous(), cosine, sine), reference, x)


def test_nll_and_its_gradient():
    torch.manual_seed(0)
    logits, target, weights = torch.randn(9, 5000) * 6, torch.randint(5000, (9,)), torch.rand(9)
    leaf = logits.double().requires_grad_()
    expected = nn.functional.cross_entropy(leaf, target, reduction="none")
    (expected * weights).sum().backward()
    each = torch.empty(9)
    kernels.nll_in_place(logits, target, weights, each, True)
    close(each, expected.detach())
    close(logits, leaf.grad)


def test_more_threads_give_the_same(tiny_model):
    torch.manual_seed(0)
    x, weight, results = torch.randn(1, 37, 64), torch.randn(64), []
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        leaf = weight.clone().requires_grad_()
        y = kernels.rms_norm(x, leaf, 1e-5, 0.0)
        y.square().sum().backward()
        results.append((y.detach(), leaf.grad))
    torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "kinds"),
    [
        ("llama", ("gate", "norm", "rotary")),
        ("qwen3", ("gate", "norm", "rotary")),
        ("gemma2", ("gate", "norm", "rotary")),
        ("cohere", ("gate",)),
        ("gpt2", ()),
    ],
)
def test_what_is_put_in_place_computes_the_same(tiny_model, family, kinds):
    location = locate(str(tiny_model(family)))
    ids = torch.arange(5, 45)[None]
    plain = AutoModelForCausalLM.from_pretrained(location.path, dtype=torch.float32).eval()
    namespace = __import__("sys").modules[type(plain).__module__]
    ours = getattr(namespace, "apply_rotary_pos_emb", None)
    namespace.apply_rotary_pos_emb = getattr(ours, "tutelage_original", ours)
    expected = plain(input_ids=ids, use_cache=False).logits
    expected.square().mean().backward()
    model = load_model(location)
    names = [type(module).__name__ for module in model.modules()]
    assert fuse(model) == kinds
    found = model(input_ids=ids, use_cache=False).logits
    found.square().mean().backward()
    assert torch.allclose(found, expected, atol=1e-5)
    for (name, p), (_, q) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        assert (p.grad - q.grad).abs().max() <= 2e-5 * q.grad.abs().max() + 1e-9, name
    assert [type(module).__name__ for module in model.modules()] == names
    assert model.state_dict().keys() == plain.state_dict().keys()
    twin = copy.deepcopy(model)
    twin.get_input_embeddings().weight.data.zero_()
    assert not torch.allclose(model(input_ids=ids, use_cache=False).logits, twin(input_ids=ids, use_cache=False).logits)


def test_a_norm_that_does_something_else_keeps_its_code():
    class OddRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = nn.Parameter(torch.rand(16)), 1e-5

        def forward(self, x):
            return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5).clamp(max=0.9)

    model = nn.Sequential(OddRMSNorm())
    assert fuse(model) == ()
    assert type(model[0]) is OddRMSNorm


def test_without_the_library_nothing_changes(tiny_model, monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: None)
    model = load_model(locate(str(tiny_model("llama"))))
    before = [type(module) for module in model.modules()]
    assert fuse(model) == ()
    assert [type(module) for module in model.modules()] == before


def test_other_numbers_go_to_the_models_own_code(tiny_model):
    model = load_model(locate(str(tiny_model("llama"))))
    assert "norm" in fuse(model)
    model = model.double()
    assert model(input_ids=torch.arange(5, 25)[None], use_cache=False).logits.dtype == torch.float64


def test_a_wrong_kernel_is_found(tiny_model, monkeypatch):
    right = kernels.gated
    monkeypatch.setattr(kernels, "gated", lambda gate, up, activation: right(gate, up, activation) * 1.001)
    assert "gate" not in fuse(load_model(locate(str(tiny_model("llama")))))
    assert fused.TOLERANCE < 0.001


@pytest.mark.parametrize("optional", [True, False])
def test_a_gated_norm_keeps_its_code(optional):
    class TinyRMSNormGated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = nn.Parameter(torch.rand(16)), 1e-5

        def plain(self, x):
            return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    class Required(TinyRMSNormGated):
        def forward(self, x, gate):
            return self.plain(x) * gate

    class Optional(TinyRMSNormGated):
        def forward(self, x, gate=None):
            return self.plain(x) if gate is None else self.plain(x) * gate

    model = nn.Sequential(Optional() if optional else Required())
    assert fuse(model) == ()
    x = torch.randn(2, 16)
    assert torch.equal(model[0](x, 2 * torch.ones(16)), 2 * model[0].plain(x))
