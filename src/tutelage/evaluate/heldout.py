"""The loss on held-out rows: a sum over tokens, the same whatever the batching, kept per example for pairing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.data.batch import lay_out
from tutelage.data.cut import cut
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
    for forest in cut(examples, token_budget, share=forward.share):
        batch = lay_out(examples, forest)
        _, each = forward.nll(batch)
        weighted = each.cpu().double().numpy()[batch.owned] * batch.owner_weights
        np.add.at(sums, batch.owners, weighted)
        progress(len(forest.order))
    weights = np.array([float(example.weights.sum(dtype=np.float64)) for example in examples])
    return HeldoutLoss(sums, weights, sum(example.supervised for example in examples))
