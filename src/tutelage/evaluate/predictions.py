"""A model's predictions at the trained tokens of some texts, looked at a block of logits at a time.

A prediction has as many numbers as the vocabulary has tokens, so it is reduced where it is made: what computes losses
shows its logits on the way, and no second pass is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.batch import MicroBatch, lay_out
from tutelage.data.cut import cut
from tutelage.data.share import silent
from tutelage.models.adapters import base_of
from tutelage.models.forward import Forward
from tutelage.models.head import Head
from tutelage.types import Example

if TYPE_CHECKING:
    from tutelage.train.ranks import Ranks

Look = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
"""From logits (N, vocabulary), which it may overwrite, targets (N,) and places (N,): the nll (N,), and what else is to
be kept of each."""


@torch.no_grad()
def observe(
    forward: Forward,
    examples: Sequence[Example],
    look: Look,
    kept: Sequence[NDArray[Any]],
    *,
    token_budget: int,
    progress: Callable[[int], None],
    ranks: Ranks | None,
) -> None:
    """Fill `kept` with what `look` says at each trained token. No more logits are held than one block of them.

    Several processes share the work and all have the result. The layers of a divided model meet in each forward pass,
    so all processes make equally many.
    """
    forward.model.eval()
    rank, world = (0, 1) if ranks is None else (ranks.rank, ranks.world)
    counts = [example.supervised for example in examples]
    starts = np.concatenate([[0], np.cumsum(counts)])
    # A model with a head of its own gives all logits of a micro-batch at once: so one text makes one.
    alone = forward.head is None or (forward.divided and not forward.packed)
    forests = cut(examples, 1 if alone else token_budget, share=forward.share)
    for first in range(0, len(forests), world):
        if first + rank < len(forests):
            forest = forests[first + rank]
            batch = lay_out(examples, forest)
            places = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in sorted(forest.order)])
            for whole, each in zip(kept, _seen(forward, batch, places, look), strict=True):
                whole[places] = each[batch.owned]
        elif forward.divided:
            forward.nll(silent(examples[0]))
        if ranks is not None:
            ranks.pulse.beat()
        progress(sum(len(other.order) for other in forests[first : first + world]))
    if ranks is not None:
        for whole in kept:
            whole[...] = ranks.sum(torch.from_numpy(whole).to(ranks.device)).cpu().numpy()


def _seen(forward: Forward, batch: MicroBatch, places: NDArray[np.int64], look: Look) -> list[NDArray[Any]]:
    """What `look` says at each edge of a micro-batch; `places` are those of its trained tokens."""
    of_edges = np.zeros(len(batch.targets), dtype=np.int64)
    of_edges[batch.owned] = places
    where, seen = torch.from_numpy(of_edges), list[tuple[Tensor, ...]]()

    def block(logits: Tensor, targets: Tensor) -> Tensor:
        done = sum(len(one[0]) for one in seen)
        seen.append(look(logits, targets, where[done : done + len(targets)]))
        return seen[-1][0]

    with _watched(forward, torch.from_numpy(batch.targets).to(forward.device), block):
        forward.nll(batch)
    return [torch.cat(column).cpu().numpy() for column in zip(*seen, strict=True)]


@dataclass(frozen=True, slots=True)
class _Watched(Head):
    """A head that shows its logits, a block at a time."""

    block: Callable[[Tensor, Tensor], Tensor] | None = None

    def nll(self, hidden: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """As of any head, without a gradient."""
        assert self.block is not None
        products = self.products(hidden)
        sums = torch.promote_types(products, torch.float32)
        weight, rows = self.linear.weight.to(products).t(), max(16, self.rows // 4)
        each = hidden.new_zeros(len(targets), dtype=torch.float32)
        buffer = hidden.new_empty(min(rows, len(targets)), weight.shape[1], dtype=sums)
        other = {} if products == sums else {"out_dtype": sums}
        for start in range(0, len(targets), rows):
            target = targets[start : start + rows]
            logits = torch.mm(hidden[start : start + rows].to(products), weight, out=buffer[: len(target)], **other)
            if self.linear.bias is not None:
                logits += self.linear.bias
            logits = logits.float().mul_(self.scale)
            if self.softcap is not None:
                logits.div_(self.softcap).tanh_().mul_(self.softcap)
            each[start : start + rows] = self.block(logits, target)
        return torch.dot(each, weights.float()), each


@contextmanager
def _watched(forward: Forward, targets: Tensor, block: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Inside, `block` sees the logits and targets of the edges whose loss is computed, in their order."""
    head = forward.head
    if head is not None:
        forward.head = _Watched(head.linear, head.scale, head.softcap, block)
        try:
            yield
        finally:
            forward.head = head
        return
    done = 0

    def shown(module: Any, inputs: Any, output: Any) -> None:
        nonlocal done
        logits = output.logits[0].float().clone()
        if len(logits):
            block(logits, targets[done : done + len(logits)])
            done += len(logits)

    handle = base_of(forward.model).register_forward_hook(shown)
    try:
        yield
    finally:
        handle.remove()
