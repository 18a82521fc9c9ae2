"""The attention function that `transformers` models call, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface

from tutelage.data.forest import Segment
from tutelage.models.attention.backend import UnsupportedAttention
from tutelage.models.attention.choice import UNCHECKED
from tutelage.models.attention.layout import Layout

if TYPE_CHECKING:
    from torch import nn

NAME = "tutelage_segments"


dropped: set[float] = set()
"""Rates of dropout that models asked for while training."""


class Cache(Protocol):
    """Keeps keys and values between calls and attends to them."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, scale: float, window: int | None) -> Tensor:
        """The attended values, shaped (1, T, heads, dim); with a window, of the last `window` tokens alone."""
        ...


def attend_segments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: Layout | Sequence[Segment],
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Causal attention over the forest, of the last `window` tokens; the segments cover the row.

    Shapes: q (1, heads, T, dim) · k, v (1, kv_heads, T, dim) · result (1, T, heads, dim)

    Raises:
        UnsupportedAttention: when no backend of the layout computes it.
    """
    layout = segments if isinstance(segments, Layout) else Layout(segments, UNCHECKED)
    backend = layout.backend(q, v, softcap=softcap)
    return backend.attend(q, k, v, layout, scale=scale, window=window, softcap=softcap)


@torch.compiler.disable  # It works on lists of segments, which are other ones at each call.
def _forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    segments: Layout | Sequence[Segment] | None = None,
    cache: Cache | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    if segments is None and cache is None:
        raise UnsupportedAttention("the model does not hand its arguments on to the attention function")
    if attention_mask is not None or options.get("s_aux") is not None:
        raise UnsupportedAttention("the model masks or offsets its attention scores")
    if getattr(module, "is_causal", True) is False:
        raise UnsupportedAttention("the model attends to tokens that come later")
    if dropout > 0.0:
        dropped.add(round(dropout, 6))  # The weights are never held, so there is nothing to drop; the run says so.
    # Under autocast, rotary positions leave queries and keys wider than values.
    query, key = query.to(value.dtype), key.to(value.dtype)
    window, softcap = options.get("sliding_window"), options.get("softcap")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if cache is not None:
        if softcap is not None:
            raise UnsupportedAttention("the model caps its attention scores")
        return cache.attend(module.layer_idx, query, key, value, scale=scale, window=window), None
    assert segments is not None
    return attend_segments(query, key, value, segments, scale=scale, window=window, softcap=softcap), None


AttentionInterface.register(NAME, _forward)
