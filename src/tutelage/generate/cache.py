"""Keys and values of the rows being generated, without padding: each row has a slot and a length.

Slots in use are always the first ones, so a decoding step attends to a view and copies nothing.

Shapes: per layer (slots, kv_heads, capacity, dim)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tutelage.models.attention import Layout, attend_segments


class SlotCache:
    """Keys and values by layer and slot."""

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots = slots
        self.capacity = capacity
        self.lengths = [0] * slots
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._admitted: list[tuple[int, Tensor]] = []
        self._layout = Layout((), ())
        self._active = 0
        self._mask: Tensor | None = None

    def admit(self, layout: Layout, paths: Sequence[Tensor], slots: Sequence[int]) -> None:
        """The next forward pass computes prompts into these slots; `paths` says where the tokens of each stand."""
        self._admitted = list(zip(slots, paths, strict=True))
        self._layout = layout
        for slot, path in self._admitted:
            self.lengths[slot] = len(path)

    def advance(self, active: int, device: torch.device) -> None:
        """The next forward pass computes one token for each of the first `active` slots."""
        self._admitted = []
        self._active = active
        self.lengths[:active] = [length + 1 for length in self.lengths[:active]]
        longest = max(self.lengths[:active])
        lengths = torch.tensor(self.lengths[:active], device=device)
        self._at = lengths - 1
        self._mask = (torch.arange(longest, device=device) < lengths[:, None])[:, None, None, :]

    def copy(self, source: int, target: int, length: int | None = None) -> None:
        """Copy a slot, or its first `length` tokens, over another one."""
        length = self.lengths[target] = self.lengths[source] if length is None else length
        for store in (*self._keys.values(), *self._values.values()):
            store[target, :, :length] = store[source, :, :length]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, scale: float, window: int | None) -> Tensor:
        """Keep the keys and values of a flat row, and attend: prompts to themselves, tokens to their slot."""
        if layer not in self._keys:
            shape = (self.slots, k.shape[1], self.capacity, k.shape[3])
            self._keys[layer], self._values[layer] = k.new_zeros(shape), v.new_zeros((*shape[:3], v.shape[3]))
        keys, values = self._keys[layer], self._values[layer]
        if self._admitted:
            for slot, path in self._admitted:
                keys[slot, :, : len(path)] = k[0].index_select(1, path)
                values[slot, :, : len(path)] = v[0].index_select(1, path)
            return attend_segments(q, k, v, self._layout, scale=scale, window=window)
        mask = self._mask
        if mask is not None and window is not None:
            mask = mask & (torch.arange(mask.shape[-1], device=q.device) > self._at[:, None, None, None] - window)
        return self._decode(keys, values, q, k, v, scale, mask)

    def _decode(
        self, keys: Tensor, values: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None
    ) -> Tensor:
        active = self._active
        rows = torch.arange(active, device=q.device)
        keys[rows, :, self._at] = k[0].transpose(0, 1)
        values[rows, :, self._at] = v[0].transpose(0, 1)
        longest = max(self.lengths[:active])
        # The query heads that share a key head become its rows: (active, kv_heads, group, dim).
        heads, kv_heads = q.shape[1], k.shape[1]
        grouped = q[0].transpose(0, 1).reshape(active, kv_heads, heads // kv_heads, q.shape[3])
        out = scaled_dot_product_attention(
            grouped, keys[:active, :, :longest], values[:active, :, :longest], attn_mask=mask, scale=scale
        )
        return out.reshape(1, active, heads, v.shape[3])
