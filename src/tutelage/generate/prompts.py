"""Prompts computed together as one flat row, what they begin with in common once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tutelage.data.cut import whole
from tutelage.data.forest import Forest, segments
from tutelage.models.attention import Layout
from tutelage.models.forward import Forward
from tutelage.types import Example, Origin

NOWHERE = Origin("", 0)


@dataclass(frozen=True, slots=True)
class PromptRow:
    """The flat row of some prompts."""

    input_ids: Tensor
    position_ids: Tensor
    layout: Layout
    paths: list[Tensor]
    """Where the tokens of each prompt stand, in the order that the prompts were given in."""


def lay_out(forward: Forward, prompts: Sequence[Sequence[int]]) -> PromptRow:
    """The row in which the model computes these prompts; each has at least one token."""
    rows = [np.asarray(prompt, dtype=np.int64) for prompt in prompts]
    forest = Forest(list(range(len(rows))), [0] * len(rows))
    if forward.share and len(rows) > 1:
        forest = whole([example(prompt, len(prompt)) for prompt in prompts], share=True)
    lengths = [len(rows[index]) for index in forest.order]
    path = np.empty(max(lengths), dtype=np.int64)
    paths = [path] * len(rows)
    end = 0
    for index, shared, length in zip(forest.order, forest.shared, lengths, strict=True):
        start, end = end, end + length - shared
        path[shared:length] = np.arange(start, end)
        paths[index] = path[:length].copy()
    placed = list(zip(forest.order, forest.shared, strict=True))
    return PromptRow(
        input_ids=_tensor(np.concatenate([rows[index][shared:] for index, shared in placed]), forward),
        position_ids=_tensor(
            np.concatenate([np.arange(shared, len(rows[index])) for index, shared in placed]), forward
        ),
        layout=Layout(segments(lengths, forest.shared), forward.backends),
        paths=[_tensor(path, forward) for path in paths],
    )


def example(ids: Sequence[int], start: int) -> Example:
    """Ids whose tokens from `start` on are looked at."""
    weights = np.zeros(len(ids), dtype=np.float32)
    weights[start:] = 1
    return Example(np.asarray(ids, dtype=np.int32), weights, NOWHERE, start)


def _tensor(values: np.ndarray, forward: Forward) -> Tensor:
    return torch.from_numpy(values).to(forward.device)
