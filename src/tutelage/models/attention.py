"""Attention over a flat row of segments: each sees itself, causally, and nothing else.

Registered with `transformers` under one name, so that any model that asks the attention interface for its kernel
can run without padding, without a mask tensor and without cross-talk. A cache, when given, takes the keys and
values instead (generation).

Shapes: q (1, heads, T, dim) · k, v (1, kv_heads, T, dim) · result (1, T, heads, dim)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

if TYPE_CHECKING:
    from torch import nn

NAME = "tutelage_segments"


class UnsupportedAttention(Exception):
    """The model asks for something that attention over segments does not compute."""


class Cache(Protocol):
    """Keeps keys and values between calls and attends to them."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, scale: float, window: int | None) -> Tensor:
        """The attended values, shaped (1, T, heads, dim); with a window, of the last `window` tokens alone."""
        ...


def attend_segments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Sequence[int],
    *,
    scale: float,
    dropout: float = 0.0,
    window: int | None = None,
) -> Tensor:
    """Causal attention within each segment, of the last `window` tokens; the segments' lengths add up to T."""
    grouped = q.shape[1] != k.shape[1]
    parts = []
    start = 0
    for length in lengths:
        end = start + length
        band = None
        if window is not None and length > window:
            band = torch.ones(length, length, dtype=torch.bool, device=q.device).tril().triu(1 - window)
        parts.append(
            scaled_dot_product_attention(
                q[:, :, start:end],
                k[:, :, start:end],
                v[:, :, start:end],
                attn_mask=band,
                is_causal=band is None,
                scale=scale,
                dropout_p=dropout,
                enable_gqa=grouped,
            )
        )
        start = end
    return torch.cat(parts, dim=2).transpose(1, 2)


def _forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    segments: Sequence[int] | None = None,
    cache: Cache | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    if segments is None and cache is None:
        raise UnsupportedAttention("the model does not hand its arguments on to the attention function")
    if attention_mask is not None or options.get("softcap") is not None or options.get("s_aux") is not None:
        raise UnsupportedAttention("the model masks, caps or offsets its attention scores")
    if getattr(module, "is_causal", True) is False:
        raise UnsupportedAttention("the model attends to tokens that come later")
    window = options.get("sliding_window")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if cache is not None:
        return cache.attend(module.layer_idx, query, key, value, scale=scale, window=window), None
    assert segments is not None
    if window is not None and max(segments) > window:
        raise UnsupportedAttention(f"the model's attention has a sliding window of {window} tokens")
    return attend_segments(query, key, value, segments, scale=scale, dropout=dropout), None


AttentionInterface.register(NAME, _forward)
