"""Attention over a forest in the plainest way: each segment with its ancestors' keys, by PyTorch's own attention.

It runs anywhere and is what the other backends are compared with. It copies keys, and where a segment has ancestors
or a window cuts it, it makes a mask of that segment's queries and keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from torch import Tensor

    from tutelage.data.forest import Segment
    from tutelage.models.attention.layout import Layout


@dataclass(frozen=True, slots=True)
class Reference:
    """Segment by segment."""

    name: str = "segment by segment"

    def missing(self, device: torch.device, dtype: torch.dtype) -> str:
        """Nothing: it runs anywhere."""
        return ""

    def takes(self, q: Tensor, v: Tensor, layout: Layout, *, softcap: float | None) -> bool:
        """All but capped scores: it computes those too, but slower than the model's own code."""
        return softcap is None

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
        done: list[Tensor] = []
        path: list[Segment] = []
        for segment in layout.segments:
            start, end, _ = segment
            path = [above for above in path if above.exit > start]
            keys, values = (torch.cat([x[:, :, a:b] for a, b, _ in (*path, segment)], dim=2) for x in (k, v))
            done.append(_segment(q[:, :, start:end], keys, values, scale=scale, window=window, softcap=softcap))
            path.append(segment)
        return torch.cat(done, dim=2).transpose(1, 2)


def _segment(q: Tensor, k: Tensor, v: Tensor, *, scale: float, window: int | None, softcap: float | None) -> Tensor:
    """Attention of queries to keys of which the last are their own."""
    length, depth = q.shape[2], k.shape[2] - q.shape[2]
    grouped = q.shape[1] != k.shape[1]
    if softcap is None and depth == 0 and (window is None or length <= window):
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
    ahead = torch.arange(depth, depth + length, device=q.device)[:, None] - torch.arange(k.shape[2], device=q.device)
    visible = (ahead >= 0) & (ahead < (k.shape[2] if window is None else window))
    if softcap is None:
        return scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scale, enable_gqa=grouped)
    group = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(group, 1).transpose(2, 3) * scale
    scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~visible, float("-inf"))
    return scores.softmax(dim=-1) @ v.repeat_interleave(group, 1)
