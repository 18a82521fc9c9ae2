"""Attention over a forest on the CPU: unmasked flash attention by parts, merged through their log-sum-exps.

Softmax over the union of two sets of keys is a mean of the softmaxes over each, weighted by exp(log-sum-exp). The
gradient needs no merging: a part's scores S and keys give the share P = exp(S - lse) and D = sum(dO * O) of the
whole, once lse and O are those of the whole, so that each part's backward pass yields exactly its share.

Nothing of size (queries, keys) is kept; saved for the backward pass are q, k, v, the result and lse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tutelage.models.attention.part import CHUNK, Part, Plan, plan_parts

if TYPE_CHECKING:
    from tutelage.models.attention.layout import Layout

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, slots=True)
class Merged:
    """Flash attention by parts, on the CPU."""

    name: str = "merged flash attention"

    def missing(self, device: torch.device, dtype: torch.dtype) -> str:
        """It has a kernel for the CPU alone."""
        return "" if device.type == "cpu" else "it runs on the CPU alone"

    def takes(self, q: Tensor, v: Tensor, layout: Layout, *, softcap: float | None) -> bool:
        """Any forest, where keys and values are equally wide and scores are not capped."""
        return softcap is None and q.shape[-1] == v.shape[-1]

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        layout: Layout,
        *,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """The attended values (1, T, heads, dim)."""
        plan = layout.once(("parts", window), lambda: plan_parts(layout.segments, layout.depths, window))
        band = None
        if plan.cut:
            assert window is not None
            band = layout.once(("band", window, q.dtype), lambda: _band(window, q.dtype))
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        out: Tensor = _Merged.apply(q, k, v, plan, band, scale)
        return out


class _Merged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan, band: Tensor | None, scale: float) -> Tensor:
        out, lse = _forward(q, k, v, plan, band, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.plan, ctx.band, ctx.scale = plan, band, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        grads = _backward(grad.contiguous(), q, k, v, out, lse, ctx.plan, ctx.band, ctx.scale)
        return (*(x.transpose(1, 2) for x in grads), None, None, None)


def _forward(q: Tensor, k: Tensor, v: Tensor, plan: Plan, band: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """The result (1, T, heads, dim) and its log-sum-exps (1, T, heads)."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if not plan.seen and len(plan.own) == 1:
        out, lse = _flash_part(plan.own[0], q, k, v, band, scale)
        return out.transpose(1, 2).reshape(q.shape), lse.transpose(1, 2).reshape(q.shape[:3])
    # Sums of parts are kept in float32 at least.
    out = q.new_empty(q.shape, dtype=_sums(q.dtype) if plan.seen else q.dtype)
    lse = q.new_empty(q.shape[:3], dtype=_sums(q.dtype))
    for part in plan.own:
        values, lses = _flash_part(part, q, k, v, band, scale)
        _rows(out, part.start, part.end, part.times).copy_(values)
        _rows(lse, part.start, part.end, part.times).copy_(lses)
    for part in plan.seen:
        values, lses = _flash_part(part, q, k, v, band, scale)
        _merge(_rows(out, part.start, part.end), _rows(lse, part.start, part.end), values.to(out.dtype), lses)
    return out.to(q.dtype), lse


def _merge(out: Tensor, lse: Tensor, values: Tensor, lses: Tensor) -> None:
    """Add a part, values (1, heads, n, dim) with log-sum-exps (1, heads, n), to what is there, in place."""
    # The share of the new part, exp(lses) / (exp(lse) + exp(lses)), of numbers that may be large or far apart.
    out.lerp_(values, torch.sigmoid(lses - lse)[..., None])
    lse.copy_(torch.logaddexp(lse, lses))


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    plan: Plan,
    band: Tensor | None,
    scale: float,
) -> tuple[Tensor, ...]:
    """The gradients of q, k, v, each (1, T, heads or kv_heads, dim)."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if not plan.seen and len(plan.own) == 1:
        alone = _flash_backward_part(plan.own[0], grad, q, k, v, out, lse, band, scale)
        return tuple(g.transpose(1, 2).reshape(x.shape) for g, x in zip(alone, (q, k, v), strict=True))
    adding = bool(plan.seen) or plan.cut
    # A key under a band belongs to several parts, so there is no first one that could write instead of add.
    make = torch.zeros if plan.cut else torch.empty
    grads = [make(x.shape, dtype=_sums(x.dtype) if adding else x.dtype) for x in (q, k, v)]
    for part in plan.own + plan.seen:
        shares = _flash_backward_part(part, grad, q, k, v, out, lse, band, scale)
        spans = [(part.start, part.end), (part.key_start, part.key_end), (part.key_start, part.key_end)]
        for total, share, (start, end) in zip(grads, shares, spans, strict=True):
            target = _rows(total, start, end, part.times)
            target.copy_(share) if part.causal and not plan.cut else target.add_(share)
    return tuple(total.to(q.dtype) for total in grads)


def _flash_part(
    part: Part, q: Tensor, k: Tensor, v: Tensor, band: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = _flash(
        _rows(q, part.start, part.end, part.times),
        _rows(k, part.key_start, part.key_end, part.times),
        _rows(v, part.key_start, part.key_end, part.times),
        0.0,
        part.causal,
        attn_mask=_mask(part, band),
        scale=scale,
    )
    return result


def _flash_backward_part(
    part: Part,
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    band: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    queries, keys = (part.start, part.end, part.times), (part.key_start, part.key_end, part.times)
    result: tuple[Tensor, Tensor, Tensor] = _flash_backward(
        _rows(grad, *queries),
        _rows(q, *queries),
        _rows(k, *keys),
        _rows(v, *keys),
        _rows(out, *queries),
        _rows(lse, *queries),
        0.0,
        part.causal,
        attn_mask=_mask(part, band),
        scale=scale,
    )
    return result


def _rows(x: Tensor, start: int, end: int, count: int = 1) -> Tensor:
    """Rows of (1, T, heads, ...), as `count` batches of equal length, heads first; a view."""
    rows = x.narrow(1, start, end - start)
    if count > 1:
        rows = rows.view(count, (end - start) // count, *x.shape[2:])
    return rows.transpose(1, 2)


def _band(window: int, dtype: torch.dtype) -> Tensor:
    """0 where a query (row) sees a key and -inf elsewhere; the first column is the oldest key the first row sees."""
    visible = torch.ones(CHUNK, CHUNK + window - 1, dtype=torch.bool).tril_(window - 1).triu_(0)
    return torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, float("-inf"))


def _mask(part: Part, band: Tensor | None) -> Tensor | None:
    if part.column is None:
        return None
    assert band is not None
    return band[: part.end - part.start, part.column : part.column + part.key_end - part.key_start]


def _sums(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
