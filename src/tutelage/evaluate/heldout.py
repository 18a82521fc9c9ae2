"""The loss on held-out rows: a sum over tokens, the same whatever the batching, kept per example for pairing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.data.batch import lay_out
from tutelage.data.cut import cut
from tutelage.data.share import silent
from tutelage.models.forward import Forward
from tutelage.types import Example

if TYPE_CHECKING:
    from tutelage.train.ranks import Ranks


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
    ranks: Ranks | None = None,
) -> HeldoutLoss:
    """The loss of each example. Memory does not grow with their number: a micro-batch is reduced at once.

    Several processes share the micro-batches, which are the same for any number of them, and so are the sums.
    """
    forward.model.eval()
    sums = np.zeros(len(examples))
    rank, world = (0, 1) if ranks is None else (ranks.rank, ranks.world)
    # The layers of a divided model meet in each forward pass, so all make equally many, of one row where rows go alone.
    budget = 1 if forward.divided and not forward.packed else token_budget
    forests = cut(examples, budget, share=forward.share)
    for first in range(0, len(forests), world):
        if first + rank >= len(forests):
            if forward.divided:
                forward.nll(silent(examples[0]))
            continue
        forest = forests[first + rank]
        batch = lay_out(examples, forest)
        _, each = forward.nll(batch)
        if ranks is not None:
            ranks.pulse.beat()
        weighted = each.cpu().double().numpy()[batch.owned] * batch.owner_weights
        np.add.at(sums, batch.owners, weighted)
        progress(sum(len(other.order) for other in forests[first : first + world]))
    if ranks is not None:
        sums = ranks.sum(torch.from_numpy(sums).to(ranks.device)).cpu().numpy()
    weights = np.array([float(example.weights.sum(dtype=np.float64)) for example in examples])
    return HeldoutLoss(sums, weights, sum(example.supervised for example in examples))
