"""What each example of a global batch cost when it was trained on: known from the gradient's own forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.batch import MicroBatch
from tutelage.objectives.base import Loss
from tutelage.train.ranks import Ranks
from tutelage.types import Origin, by_file


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """Of one optimizer step, before its update."""

    epoch: int
    """Counted from 1."""
    examples: Sequence[int] = ()
    """Places in the token store, in the order of the global batch."""
    nll: Sequence[float] = ()
    """Of each example, the sum over its trained tokens of weight * nll, in nats."""
    weights: Sequence[float] = ()
    """Of each example, the sum of its weights."""

    def as_json(self, step: int) -> dict[str, Any]:
        """A line of `examples.jsonl`; the numbers are as exact as what they were computed in."""
        given = {"step": step, "epoch": self.epoch, "examples": list(self.examples)}
        return {**given, "nll": _short(self.nll), "weight": _short(self.weights)}


def of_edges(loss: Loss, batch: MicroBatch) -> Tensor:
    """The loss of each edge of a micro-batch; not a number where the objective does not say."""
    if loss.each is None:
        return loss.sum.new_full((len(batch.targets),), torch.nan).detach().float()
    return loss.each.detach().float()


def gathered(
    batches: Sequence[MicroBatch], nll: NDArray[np.float32], count: int, ranks: Ranks
) -> tuple[dict[str, int], NDArray[np.float64]]:
    """Of all processes, in one meeting: the tokens of the step by name, and for each of its examples (nll, weight).

    The tokens are those of the examples, those computed, and those trained. `nll` are the losses of the edges of
    these micro-batches, end to end.
    """
    computed = [batch for batch in batches if batch.supervised_tokens]
    tokens = [(batch.tokens, batch.computed_tokens, batch.supervised_tokens) for batch in computed]
    each = np.zeros((2, count))
    first = 0
    for batch in batches:
        own = nll[first + batch.owned].astype(np.float64)
        each += [
            np.bincount(batch.owners, weights=values, minlength=count)
            for values in (own * batch.owner_weights, batch.owner_weights)
        ]
        first += len(batch.targets)
    # An example is computed whole by one process, so nothing is rounded; nor is a count below 2^53.
    sums = np.concatenate([np.array(tokens, dtype=np.float64).reshape(-1, 3).sum(axis=0), each.ravel()])
    if not ranks.alone:
        sums = ranks.sum(torch.from_numpy(sums).to(ranks.device)).cpu().numpy()
    names = ("tokens", "computed_tokens", "supervised_tokens")
    return {name: int(number) for name, number in zip(names, sums[:3], strict=True)}, sums[3:].reshape(2, count)


def blamed(rows: Sequence[Origin], each: NDArray[np.float64]) -> str:
    """The rows of a step that is not sound, in words: first those whose own loss is not finite, where it tells them
    from others of the step; `each` as `gathered` gives it."""
    bad = ~np.isfinite(each[0])
    if not bad.any() or bad.all():
        return by_file(rows)
    first, others = ([row for row, is_bad in zip(rows, bad, strict=True) if is_bad == which] for which in (True, False))
    return f"{by_file(first)} (whose loss is not finite), in one step with {by_file(others)}"


def _short(values: Sequence[float]) -> list[float]:
    """The numbers as float32, with as few digits as tell them apart."""
    return [float(text) for text in np.asarray(values, dtype=np.float32).astype(str)]
