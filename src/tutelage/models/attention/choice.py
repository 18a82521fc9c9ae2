"""Which backends are used: those that reproduce the reference here, on this device and in this data type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.data.forest import Segment, trees_of_one
from tutelage.models.attention.backend import Backend
from tutelage.models.attention.flex import Flex
from tutelage.models.attention.layout import Layout
from tutelage.models.attention.merged import Merged
from tutelage.models.attention.part import CHUNK
from tutelage.models.attention.reference import Reference
from tutelage.models.attention.varlen import Varlen

REFERENCE = Reference()
BACKENDS: tuple[Backend, ...] = (Varlen(), Flex(), Merged())
"""In order of preference, where they are there; the reference comes last."""
UNCHECKED: tuple[Backend, ...] = (Merged(), REFERENCE)
"""For a layout that is made without a choice."""
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""Largest difference from the reference in float32, as a share of its largest number."""
WIDEST = 300
"""A wider window is checked at this width, in tokens: the code is the same."""


class Shape(NamedTuple):
    """What a model's attention is asked for."""

    heads: int
    kv_heads: int
    dim: int
    windows: tuple[int, ...] = ()
    """Sliding windows of its layers that some row may exceed, in tokens."""
    softcap: float | None = None


class Choice(NamedTuple):
    """Backends, best first, and what is to be said about those that are not among them."""

    backends: tuple[Backend, ...]
    notes: tuple[str, ...]


def choose(
    shape: Shape, *, device: torch.device, dtype: torch.dtype, candidates: Sequence[Backend] = BACKENDS
) -> Choice:
    """The candidates that are there and reproduce the reference, results and gradients, on random input."""
    chosen: list[Backend] = []
    notes = []
    for candidate in candidates:
        if candidate.missing(device, dtype):
            continue
        reason = _mistake(candidate, shape, device, dtype)
        if reason:
            notes.append(f"{candidate.name} is not used: {reason}")
        else:
            chosen.append(candidate)
    return Choice((*chosen, REFERENCE), tuple(notes))


def _mistake(candidate: Backend, shape: Shape, device: torch.device, dtype: torch.dtype) -> str:
    """What the candidate gets wrong, in words."""
    for window in (None, *(min(window, WIDEST) for window in shape.windows)):
        for segments in _forests(window):
            layout = Layout(segments, (candidate,))
            try:
                difference = _difference(candidate, layout, shape, window, device, dtype)
            except Exception as error:  # Whatever a kernel or its compiler raises, there is a fallback.
                return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            if not difference <= TOLERANCES.get(dtype, 0.0):
                what = "with a shared prefix" if layout.shared else "of rows that share nothing"
                return f"its attention {what} is off by {difference:.1g} of the largest number"
    return ""


def _forests(window: int | None) -> list[tuple[Segment, ...]]:
    if window is None:
        tree = ((0, 40, 200), (40, 100, 100), (100, 130, 200), (130, 160, 160), (160, 200, 200), (200, 330, 330))
        return [trees_of_one((150, 7, 7, 100)), tuple(Segment(*segment) for segment in tree)]
    root = window + 5
    cut = ((0, root, root + 60), (root, root + 20, root + 20), (root + 20, root + 60, root + 60))
    return [trees_of_one((window + CHUNK + 9, 7)), tuple(Segment(*segment) for segment in cut)]


def _difference(
    candidate: Backend, layout: Layout, shape: Shape, window: int | None, device: torch.device, dtype: torch.dtype
) -> float:
    generator = torch.Generator().manual_seed(0)
    sizes = [(1, layout.tokens, heads, shape.dim) for heads in (shape.heads, shape.kv_heads, shape.kv_heads)]
    inputs = [torch.randn(size, generator=generator).to(device, dtype) for size in sizes]
    push = torch.randn(sizes[0], generator=generator).to(device, dtype)
    views = [x.transpose(1, 2) for x in inputs]
    if not candidate.takes(views[0], views[2], layout, softcap=shape.softcap):
        return 0.0
    exact = torch.promote_types(dtype, torch.float32)
    ours = _with_gradients(candidate, views, push, layout, shape, window)
    theirs = _with_gradients(REFERENCE, [x.to(exact) for x in views], push.to(exact), layout, shape, window)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True))


def _with_gradients(
    backend: Backend, views: list[Tensor], push: Tensor, layout: Layout, shape: Shape, window: int | None
) -> list[Tensor]:
    with torch.enable_grad():
        q, k, v = (x.detach().requires_grad_() for x in views)
        out = backend.attend(q, k, v, layout, scale=shape.dim**-0.5, window=window, softcap=shape.softcap)
        return [x.detach() for x in (out, *torch.autograd.grad(out, (q, k, v), push))]
