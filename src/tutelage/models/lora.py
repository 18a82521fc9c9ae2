"""LoRA's linear layer as one function: y = W x + b + scale * B (A x), without a pass over memory for the update.

`peft` computes the update beside the layer, scales it and adds it: three passes over the result and as many again in
the backward pass. Here the small products are added where the large one stands, by the product itself (Hu et al. 2021,
arXiv 2106.09685). Adapters that do more than that stay with `peft`.

Shapes: x (..., in) · W (out, in) · A (rank, in) · B (out, rank)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def fuse_lora(model: nn.Module) -> int:
    """Put the function in the place of every plain adapter of a linear layer; how many there are."""
    from peft.tuners.lora import Linear

    fused = _fused(Linear)
    places = [m for m in model.modules() if type(m) is Linear and type(m.get_base_layer()) is nn.Linear]
    for place in places:
        if not place.lora_variant and not place.fan_in_fan_out:
            place.__class__ = fused
    return sum(type(place) is fused for place in places)


def keep_results(model: nn.Module) -> None:
    """From now on no result is changed in place, so that selective checkpointing can keep it."""
    for module in model.modules():
        if getattr(module, "tutelage_fused", False):
            module.tutelage_in_place = False


def _fused(base: type[nn.Module]) -> type[nn.Module]:
    class FusedLinear(base):  # type: ignore[misc,valid-type]
        tutelage_fused = True
        tutelage_in_place = True

        def forward(self, x: Tensor, *rest: Any, **options: Any) -> Tensor:
            active = [name for name in self.active_adapters if name in self.lora_A]
            other = self.disable_adapters or self.merged or len(active) != 1 or rest or options
            if other or torch.compiler.is_compiling():
                return super().forward(x, *rest, **options)
            dropout = self.lora_dropout[active[0]]
            dropping = self.training and getattr(dropout, "p", 0.0) > 0.0
            a, b = self.lora_A[active[0]].weight, self.lora_B[active[0]].weight
            layer = self.get_base_layer()
            if dropping or not (x.dtype == layer.weight.dtype == a.dtype) or torch.is_autocast_enabled(x.device.type):
                return super().forward(x)
            return _Lora.apply(x, layer.weight, layer.bias, a, b, self.scaling[active[0]], self.tutelage_in_place)

    FusedLinear.__name__ = FusedLinear.__qualname__ = base.__name__
    FusedLinear.__module__ = base.__module__
    return FusedLinear


class _Lora(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, in_place: bool
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        small = rows @ a.t()
        if in_place:
            y = nn.functional.linear(rows, weight, bias).addmm_(small, b.t(), alpha=scale)
        else:
            y = torch.addmm((small * scale) @ b.t(), rows, weight.t())
            y = y if bias is None else y + bias
        ctx.save_for_backward(rows, small, weight, a, b)
        ctx.scale = scale
        return y.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        rows, small, weight, a, b = ctx.saved_tensors
        need_x, need_weight, need_bias, need_a, need_b = ctx.needs_input_grad[:5]
        shape = dy.shape[:-1]
        dy = dy.reshape(-1, dy.shape[-1])
        d_small = (dy @ b).mul_(ctx.scale) if need_x or need_a else None
        dx = (dy @ weight).addmm_(d_small, a).view(*shape, -1) if need_x else None
        return (
            dx,
            dy.t() @ rows if need_weight else None,
            dy.sum(0) if need_bias else None,
            d_small.t() @ rows if need_a else None,
            # The tall operand on the left of a product with few columns is slow; on the right it is not.
            (small.t() @ dy).mul_(ctx.scale).t().contiguous() if need_b else None,
            None,
            None,
        )
