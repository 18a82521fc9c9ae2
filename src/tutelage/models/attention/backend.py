"""What computes attention over a forest: each backend says where it runs, what it takes, and does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tutelage.models.attention.layout import Layout


class UnsupportedAttention(Exception):
    """The model asks for something that attention over segments does not compute."""


class Backend(Protocol):
    """One way to compute attention over a forest."""

    @property
    def name(self) -> str:
        """As notices call it."""
        ...

    def missing(self, device: torch.device, dtype: torch.dtype) -> str:
        """What is missing here to use it at all, in words; empty when nothing is."""
        ...

    def takes(self, q: Tensor, v: Tensor, layout: Layout, *, softcap: float | None) -> bool:
        """Whether it computes this forest with tensors of these shapes."""
        ...

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
        """The attended values.

        Shapes: q (1, heads, T, dim) · k, v (1, kv_heads, T, dim) · result (1, T, heads, dim)
        """
        ...
