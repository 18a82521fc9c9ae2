"""The loss on held-out rows: a sum over tokens, the same whatever the batching, kept per example for pairing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.data.batch import pack
from tutelage.data.plan import micro_batches
from tutelage.models.forward import Forward
from tutelage.types import Example


@dataclass(frozen=True, slots=True, eq=False)
class HeldoutLoss:
    """Per example: the weighted sum of nll, the sum of weights, and how many tokens are supervised."""

    sums: NDArray[np.float64]
    weights: NDArray[np.float64]
    tokens: int

    @property
    def nll(self) -> float:
        """Nats per supervised token over all examples."""
        return float(self.sums.sum() / self.weights.sum())


@torch.no_grad()
def heldout_loss(
    forward: Forward,
    examples: Sequence[Example],
    *,
    token_budget: int,
    progress: Callable[[int], None] = lambda examples: None,
) -> HeldoutLoss:
    """The loss of each example. Memory does not grow with their number: a micro-batch is reduced at once."""
    forward.model.eval()
    sums = np.zeros(len(examples))
    for group in micro_batches([len(example) for example in examples], token_budget):
        batch = pack([examples[i] for i in group])
        _, each = forward.nll(batch)
        weighted = each.double().cpu().numpy() * batch.weights
        sums[group] = np.bincount(batch.owners, weights=weighted, minlength=len(group))
        progress(len(group))
    weights = np.array([float(example.weights.sum(dtype=np.float64)) for example in examples])
    return HeldoutLoss(sums, weights, sum(example.supervised for example in examples))
