"""Keys and values of the rows being generated, without padding: each row has a slot and a length.

Slots in use are always the first ones, so a decoding step attends to a view and copies nothing.

Shapes: per layer (slots, kv_heads, capacity, dim)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tutelage.data.forest import trees_of_one
from tutelage.models.attention import UNCHECKED, Backend, Layout, attend_segments


class SlotCache:
    """Keys and values by layer and slot."""

    def __init__(self, slots: int, capacity: int, backends: tuple[Backend, ...] = UNCHECKED) -> None:
        self.slots = slots
        self.backends = backends
        self.capacity = capacity
        self.lengths = [0] * slots
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._admitted: list[tuple[int, int]] = []
        self._layout = Layout((), ())
        self._active = 0
        self._mask: Tensor | None = None

    def admit(self, lengths: Sequence[int], slots: Sequence[int]) -> None:
        """The next forward pass computes whole prompts of these lengths into these slots."""
        self._admitted = list(zip(slots, lengths, strict=True))
        self._layout = Layout(trees_of_one(lengths), self.backends)
        for slot, length in self._admitted:
            self.lengths[slot] = length

    def advance(self, active: int, device: torch.device) -> None:
        """The next forward pass computes one token for each of the first `active` slots."""
        self._admitted = []
        self._active = active
        self.lengths[:active] = [length + 1 for length in self.lengths[:active]]
        longest = max(self.lengths[:active])
        lengths = torch.tensor(self.lengths[:active], device=device)
        self._at = lengths - 1
        self._mask = (torch.arange(longest, device=device) < lengths[:, None])[:, None, None, :]

    def move(self, source: int, target: int) -> None:
        """Copy a slot over another one."""
        length = self.lengths[target] = self.lengths[source]
        for store in (*self._keys.values(), *self._values.values()):
            store[target, :, :length] = store[source, :, :length]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, scale: float, window: int | None) -> Tensor:
        """Keep the keys and values of a flat row, and attend: prompts to themselves, tokens to their slot."""
        if layer not in self._keys:
            shape = (self.slots, k.shape[1], self.capacity, k.shape[3])
            self._keys[layer], self._values[layer] = k.new_zeros(shape), v.new_zeros((*shape[:3], v.shape[3]))
        keys, values = self._keys[layer], self._values[layer]
        if self._admitted:
            start = 0
            for slot, length in self._admitted:
                keys[slot, :, :length] = k[0, :, start : start + length]
                values[slot, :, :length] = v[0, :, start : start + length]
                start += length
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
