"""Attention over a forest on a GPU by FlexAttention: blocks of 128 x 128 that nobody sees are skipped.

The block mask is worked out on the host from the blocks' extremes, in O(blocks^2), without the T x T mask that
`create_block_mask` goes through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn.attention.flex_attention import BlockMask

    from tutelage.models.attention.layout import Layout

BLOCK = 128


@dataclass(frozen=True, slots=True)
class Flex:
    """FlexAttention; compiled, but for tests: its backward pass exists in compiled form alone."""

    name: str = "FlexAttention"
    compiled: bool = True

    def missing(self, device: torch.device, dtype: torch.dtype) -> str:
        """A GPU, or a PyTorch with FlexAttention."""
        if self.compiled and device.type != "cuda":
            return "it runs on a GPU alone"
        try:
            import torch.nn.attention.flex_attention  # noqa: F401
        except ImportError:
            return "this PyTorch has no FlexAttention"
        return ""

    def takes(self, q: Tensor, v: Tensor, layout: Layout, *, softcap: float | None) -> bool:
        """Any forest."""
        return True

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
        length = q.shape[2]
        padding = -length % BLOCK
        if padding:
            q, k, v = (pad(x, (0, 0, 0, padding)) for x in (q, k, v))
        mask = layout.once(("flex", window, q.device), lambda: block_mask(layout, length + padding, window, q.device))
        out: Tensor = _attention(self.compiled)(
            q,
            k,
            v,
            score_mod=None if softcap is None else _cap(softcap),
            block_mask=mask,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out[:, :, :length].transpose(1, 2)


def block_mask(layout: Layout, length: int, window: int | None, device: torch.device) -> BlockMask:
    """Which blocks hold visible pairs, and which hold nothing else; `length` is a multiple of 128, in tokens."""
    from torch.nn.attention.flex_attention import BlockMask

    exits, depths = layout.token_exits(length), layout.token_depths(length)
    some, whole = visible_blocks(exits, depths, window)
    exit_of, depth_of = torch.from_numpy(exits).to(device), torch.from_numpy(depths).to(device)

    def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) & (q < exit_of[k])

    def visible_in_window(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) & (q < exit_of[k]) & (depth_of[q] - depth_of[k] < window)

    return BlockMask.from_kv_blocks(
        *_listed(some & ~whole, device),
        *_listed(whole, device),
        BLOCK_SIZE=BLOCK,
        mask_mod=visible if window is None else visible_in_window,
        seq_lengths=(length, length),
    )


def visible_blocks(exits: Any, depths: Any, window: int | None) -> tuple[Any, Any]:
    """For each block of queries and of keys: may a pair be visible, and are all; two (blocks, blocks) arrays."""
    exits, depths = exits.reshape(-1, BLOCK), depths.reshape(-1, BLOCK)
    count = len(exits)
    starts = np.arange(count)[:, None] * BLOCK
    before = np.arange(count)[:, None] > np.arange(count)
    some = before & (exits.max(axis=1) > starts)
    whole = before & (exits.min(axis=1) >= starts + BLOCK)
    if window is not None:
        some &= depths.min(axis=1)[:, None] - depths.max(axis=1) < window
        whole &= depths.max(axis=1)[:, None] - depths.min(axis=1) < window
    np.fill_diagonal(some, True)
    return some, whole


def _listed(blocks: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each row its number of blocks, and their numbers in front of the others; with batch and head in front."""
    counts = torch.from_numpy(blocks.sum(axis=1).astype(np.int32))
    order = torch.from_numpy(np.argsort(~blocks, axis=1, kind="stable").astype(np.int32))
    return counts[None, None].to(device), order[None, None].to(device)


@cache
def _attention(compiled: bool) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    attention: Callable[..., Any] = torch.compile(flex_attention) if compiled else flex_attention
    return attention


@cache
def _cap(softcap: float) -> Callable[..., Tensor]:
    def capped(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return capped
