"""Put the compiled kernels in the place of a model's norms, gated activations and rotary positions.

Nothing is taken by its name alone: each kind of layer is computed both ways on random numbers, forward and backward,
and stays as it is where they differ. A layer keeps its class (a subclass of it), its parameters and their names.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tutelage.models import kernels

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = 2e-5
"""Largest difference, as a share of the largest number, that counts as rounding."""


def fuse(model: PreTrainedModel) -> tuple[str, ...]:
    """What was put in place: `norm`, `gate`, `rotary`. The model must be in float32 on the CPU; others keep all."""
    if not kernels.takes(next(model.parameters())):
        return ()
    done = set()
    proved: dict[Any, type[nn.Module] | None] = {}
    for module in model.modules():
        for kind, matches, subclass in (("norm", _norm_eps, _fused_norm), ("gate", _activation, _fused_gate)):
            found = matches(module)
            if found is None:
                continue
            key = (kind, type(module), found)
            if key not in proved:
                proved[key] = _proved(module, subclass(type(module), found))
            if proved[key] is not None:
                module.__class__ = proved[key]
                done.add(kind)
    if any(_fuse_rotary(name) for name in {type(module).__module__ for module in model.modules()}):
        done.add("rotary")
    return tuple(sorted(done))


def _norm_eps(module: nn.Module) -> tuple[float, float] | None:
    """(eps, offset of the weight) of what looks like an RMS norm."""
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(eps, float) or "RMSNorm" not in type(module).__name__:
        return None
    if dict(module.named_parameters()).keys() != {"weight"} or module.weight.dim() != 1 or not _takes_one(module):
        return None
    with torch.no_grad():  # Some models store the weight less one.
        x = torch.linspace(1, 2, module.weight.numel())
        plain = module(x[None])[0] * (x.square().mean() + eps).sqrt() / x
    return eps, 1.0 if (plain - module.weight - 1).abs().max() < (plain - module.weight).abs().max() else 0.0


def _fused_norm(base: type[nn.Module], found: tuple[float, float]) -> type[nn.Module]:
    eps, offset = found

    class Norm(base):  # type: ignore[misc,valid-type]
        def forward(self, x: Tensor, *rest: Any, **options: Any) -> Tensor:
            if rest or options or not kernels.takes(x, self.weight):
                return super().forward(x, *rest, **options)
            return kernels.rms_norm(x, self.weight, eps, offset)

    return _named(Norm, base)


def _activation(module: nn.Module) -> str | None:
    """The activation of a gated feed-forward layer whose projections are apart."""
    parts = dict(module.named_children())
    if not {"gate_proj", "up_proj", "down_proj", "act_fn"} <= parts.keys() or not _takes_one(module):
        return None
    x = torch.linspace(-4, 4, 33)
    known = {"silu": nn.functional.silu(x), "gelu_tanh": nn.functional.gelu(x, approximate="tanh")}
    return next((name for name, y in known.items() if torch.allclose(module.act_fn(x), y, atol=1e-6)), None)


def _fused_gate(base: type[nn.Module], activation: str) -> type[nn.Module]:
    class Gate(base):  # type: ignore[misc,valid-type]
        def forward(self, x: Tensor, *rest: Any, **options: Any) -> Tensor:
            if rest or options or not kernels.takes(x):
                return super().forward(x, *rest, **options)
            gate, up = self.gate_proj(x), self.up_proj(x)
            return self.down_proj(kernels.gated(gate, up, activation))

    return _named(Gate, base)


def _takes_one(module: nn.Module) -> bool:
    """Whether a layer computes from one tensor; a gated norm takes two."""
    return len(inspect.signature(module.forward).parameters) == 1


def _named(fused: type[nn.Module], base: type[nn.Module]) -> type[nn.Module]:
    fused.__name__ = fused.__qualname__ = base.__name__
    fused.__module__ = base.__module__
    return fused


def _proved(module: nn.Module, fused: type[nn.Module]) -> type[nn.Module] | None:
    """The class, if it computes what the module computes: the result, and the gradients of input and weights."""
    weight = next(module.parameters())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 5, weight.shape[-1], generator=generator)
    original = type(module)
    try:
        expected = _with_gradients(module, x)
        module.__class__ = fused
        found = _with_gradients(module, x)
    except Exception:  # Somebody else's layer may raise anything; then it is not what it looks like.
        return None
    finally:
        module.__class__ = original
    return fused if all(map(_equal, found, expected)) else None


def _with_gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        y = module(x)
        parameters = [p for p in module.parameters() if p.requires_grad]
        slope = torch.linspace(-1, 1, y.numel()).view_as(y)
        return [y.detach(), *torch.autograd.grad(y, [x, *parameters], slope)]


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max())


def _fuse_rotary(module_name: str) -> bool:
    """Replace a modelling file's `apply_rotary_pos_emb`; inputs that the kernel does not take go to the original."""
    namespace = sys.modules.get(module_name)
    original: Callable[..., tuple[Tensor, Tensor]] | None = getattr(namespace, "apply_rotary_pos_emb", None)
    if original is None:
        return False
    if hasattr(original, "tutelage_original"):
        return True
    fused = _fused_rotary(original)
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 5, heads, 8, generator=generator).transpose(1, 2) for heads in (4, 2))
    angles = torch.rand(1, 5, 4, generator=generator)
    cosine, sine = (torch.cat([part, part], -1) for part in (angles.cos(), angles.sin()))
    try:
        pairs = zip(_turned(fused, q, k, cosine, sine), _turned(original, q, k, cosine, sine), strict=True)
        same = all(_equal(ours, theirs) for ours, theirs in pairs)
    except (RuntimeError, TypeError, ValueError):
        return False
    if same:
        namespace.apply_rotary_pos_emb = fused
    return same


def _fused_rotary(original: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    @functools.wraps(original)
    def apply_rotary_pos_emb(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *rest: Any, **options: Any) -> Any:
        plain = not rest and not options and q.dim() == 4 and q.shape[0] == 1 and q.shape[2] == k.shape[2]
        if not plain or cos.shape != (1, q.shape[2], q.shape[3]) or not kernels.takes(q, k, cos, sin):
            return original(q, k, cos, sin, *rest, **options)
        return kernels.rotate(q, cos, sin), kernels.rotate(k, cos, sin)

    apply_rotary_pos_emb.tutelage_original = original  # type: ignore[attr-defined]
    return apply_rotary_pos_emb


def _turned(
    function: Callable[..., tuple[Tensor, Tensor]], q: Tensor, k: Tensor, cosine: Tensor, sine: Tensor
) -> list[Tensor]:
    q, k = q.clone().requires_grad_(), k.clone().requires_grad_()
    with torch.enable_grad():
        turned = function(q, k, cosine, sine)
        slopes = [torch.linspace(-1, 1, t.numel()).view_as(t) for t in turned]
        return [*(t.detach() for t in turned), *torch.autograd.grad(turned, [q, k], slopes)]
