"""Dropout without a state: what is dropped of a token depends on the step, the layer and the token with all before it.

So a global batch has one gradient with dropout as well, however it is cut, packed, padded or shared, and a step that
is made again is the same step. Attention weights have no such draw, since they are never held: their dropout is
switched off, and the run says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.data.batch import MicroBatch
from tutelage.data.keys import prefix_keys
from tutelage.seeds import derive

_FIRST, _SECOND = 0x2C1B3C6D, 0x297A2D39


@dataclass(slots=True)
class Draw:
    """The draw of the micro-batch that is being computed."""

    seed: int = 0
    """Of the step."""
    keys: Tensor | None = field(default=None, repr=False)
    """A number for each token (T,), int32."""
    _all: Tensor | None = field(default=None, repr=False)

    def begin(self, batch: MicroBatch, device: torch.device) -> None:
        """The next forward pass computes this micro-batch."""
        mixed = prefix_keys(batch.input_ids, batch.position_ids, batch.segments) * np.uint64(2 * self.seed + 1)
        self._all = torch.from_numpy((mixed >> np.uint64(32)).astype(np.uint32).view(np.int32) | 1).to(device)
        self.keys = self._all

    def only(self, start: int, end: int) -> None:
        """The next forward pass computes these tokens of the micro-batch."""
        assert self._all is not None
        self.keys = self._all[start:end]


class StatelessDropout(nn.Module):
    """Zeroes a share `p` of its inputs (1, T, width) while training, and scales the others by 1 / (1 - p)."""

    def __init__(self, p: float, name: str, draw: Draw) -> None:
        super().__init__()
        self.p, self._name, self._draw = p, name, draw
        self._columns: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The inputs, some of them zero."""
        if not self.training or self.p == 0.0:
            return x
        keys = self._draw.keys
        assert keys is not None, "bug: dropout without a draw"
        if len(keys) * x.shape[-1] != x.numel():  # An expert's share of the tokens, whose places are not known here.
            return nn.functional.dropout(x, self.p)
        if self._columns is None or len(self._columns) != x.shape[-1]:
            rng = np.random.default_rng(derive(0, f"dropout {self._name}"))
            columns = rng.integers(-(2**31), 2**31, x.shape[-1], dtype=np.int64).astype(np.int32) | 1
            self._columns = torch.from_numpy(columns).to(x.device)
        keep = kept(keys, self._columns, self.p).view(x.shape)
        return x * keep / (1.0 - self.p)


def kept(keys: Tensor, columns: Tensor, p: float) -> Tensor:
    """Which inputs stay (T, width): each with probability 1 - p, as 32-bit numbers mixed from row and column say."""
    bits = keys[:, None] * columns
    for factor in (_FIRST, _SECOND):
        bits ^= bits >> 15
        bits *= factor
    return bits < round((1.0 - p) * 2**32) - 2**31


def make_stateless(model: nn.Module) -> tuple[Draw, float]:
    """Replace the model's dropout layers; the draw they share, and the largest dropout of attention weights, now off.

    Adapters must be in place.
    """
    draw, off = Draw(), 0.0
    for name, module in list(model.named_modules()):
        rate = getattr(module, "attention_dropout", None)
        if isinstance(rate, float) and rate > 0.0:
            module.attention_dropout, off = 0.0, max(off, rate)
        for child_name, child in list(module.named_children()):
            if type(child) is not nn.Dropout or child.p == 0.0:
                continue
            if child_name in ("attn_dropout", "attention_dropout"):
                child.p, off = 0.0, max(off, child.p)
            else:
                stateless = StatelessDropout(child.p, f"{name}.{child_name}", draw)
                module._modules[child_name] = stateless.train(child.training)
    return draw, off
