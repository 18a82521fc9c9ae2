"""Attention of rows that share nothing, on a GPU, by PyTorch's flash attention of variable length."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from tutelage.models.attention.layout import Layout


@dataclass(frozen=True, slots=True)
class Varlen:
    """Flash attention of variable length: bfloat16 or float16, nothing shared."""

    name: str = "variable-length flash attention"

    def missing(self, device: torch.device, dtype: torch.dtype) -> str:
        """A GPU, two bytes a number, or a PyTorch that has it."""
        if device.type != "cuda":
            return "it runs on a GPU alone"
        if dtype not in (torch.bfloat16, torch.float16):
            return f"it computes no {dtype}"
        return "" if _attention() is not None else "this PyTorch has no causal attention of variable length"

    def takes(self, q: Tensor, v: Tensor, layout: Layout, *, softcap: float | None) -> bool:
        """Where nothing is shared, keys and values are equally wide, and scores are not capped."""
        return softcap is None and q.shape[-1] == v.shape[-1] and not layout.shared

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
        attention = _attention()
        assert attention is not None
        starts = layout.once(("varlen", q.device), lambda: _starts(layout, q.device))
        longest = max(end - start for start, end, _ in layout.segments)
        if "enable_gqa" in inspect.signature(attention).parameters:
            options = {"enable_gqa": q.shape[1] != k.shape[1]}
        else:
            options = {}
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        out: Tensor = attention(
            *(x[0].transpose(0, 1) for x in (q, k, v)),
            starts,
            starts,
            longest,
            longest,
            scale=scale,
            window_size=(-1 if window is None else window - 1, 0),
            **options,
        )
        return out[None]


def _starts(layout: Layout, device: torch.device) -> Tensor:
    """Where each segment starts, and the last one ends, (segments + 1,)."""
    ends = [0, *(end for _, end, _ in layout.segments)]
    return torch.tensor(ends, dtype=torch.int32).to(device, non_blocking=True)


def _attention() -> Callable[..., Any] | None:
    """The function, where it is there and can be causal."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    attention: Callable[..., Any] = varlen_attn
    return attention if "window_size" in inspect.signature(attention).parameters else None
