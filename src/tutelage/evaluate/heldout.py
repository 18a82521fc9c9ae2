"""The loss on held-out rows: a sum over tokens, the same whatever the batching, kept per example for pairing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.data.batch import MicroBatch, lay_out
from tutelage.data.cut import cut
from tutelage.data.share import silent
from tutelage.evaluate.anatomy import Anatomy
from tutelage.models.forward import Forward
from tutelage.types import Example

if TYPE_CHECKING:
    from tutelage.train.ranks import Ranks


@dataclass(frozen=True, slots=True, eq=False)
class PieceLoss:
    """Of each piece of the examples, in the order of `Anatomy.pieces`, in nats."""

    sums: NDArray[np.float64]
    """Weighted."""
    plain: NDArray[np.float64]
    """Each token counted once, whatever its weight."""
    ends: NDArray[np.float64]
    """Of the last token alone: of the stop token, where the piece ends with one."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldoutLoss:
    """Per example: the weighted sum of nll, the sum of weights, and how many tokens are supervised."""

    sums: NDArray[np.float64]
    weights: NDArray[np.float64]
    tokens: int
    pieces: PieceLoss | None = None
    """The same in smaller parts; None where the measurement was not told of them."""

    @property
    def nll(self) -> float:
        """Nats per supervised token over all examples."""
        return float(self.sums.sum() / self.weights.sum())

    def as_json(self) -> dict[str, Any]:
        """Everything, for `restored`."""
        own = {"sums": self.sums.tolist(), "weights": self.weights.tolist(), "tokens": self.tokens}
        if self.pieces is None:
            return own
        names = ("sums", "plain", "ends")
        return {**own, "pieces": {name: getattr(self.pieces, name).tolist() for name in names}}

    @classmethod
    def restored(cls, kept: Mapping[str, Any]) -> HeldoutLoss:
        """What `as_json` kept."""
        pieces = kept.get("pieces")
        parts = None if pieces is None else PieceLoss(*(_floats(pieces[name]) for name in ("sums", "plain", "ends")))
        return cls(_floats(kept["sums"]), _floats(kept["weights"]), int(kept["tokens"]), parts)


def _floats(kept: Sequence[float | None]) -> NDArray[np.float64]:
    """What a file holds; null stands for what is no number."""
    return np.array(kept, dtype=np.float64)


@torch.no_grad()
def heldout_loss(
    forward: Forward,
    examples: Sequence[Example],
    *,
    token_budget: int,
    progress: Callable[[int], None] = lambda examples: None,
    ranks: Ranks | None = None,
    anatomy: Anatomy | None = None,
) -> HeldoutLoss:
    """The loss of each example. Memory does not grow with their number: a micro-batch is reduced at once.

    Several processes share the micro-batches, which are the same for any number of them, and so are the sums. With an
    `anatomy` of the examples, the losses of their pieces are kept as well.
    """
    forward.model.eval()
    sums = np.zeros(len(examples))
    pieces = None if anatomy is None else _Pieces(anatomy)
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
        nll = each.cpu().double().numpy()[batch.owned]
        np.add.at(sums, batch.owners, nll * batch.owner_weights)
        if pieces is not None:
            pieces.add(examples, batch, nll)
        progress(sum(len(other.order) for other in forests[first : first + world]))
    parts = [sums] if pieces is None else [sums, *pieces.parts]
    if ranks is not None:
        joined = ranks.sum(torch.from_numpy(np.concatenate(parts)).to(ranks.device)).cpu().numpy()
        parts = np.split(joined, np.cumsum([len(part) for part in parts])[:-1])
    weights = np.array([float(example.weights.sum(dtype=np.float64)) for example in examples])
    supervised = sum(example.supervised for example in examples)
    return HeldoutLoss(parts[0], weights, supervised, PieceLoss(*parts[1:]) if len(parts) > 1 else None)


class _Pieces:
    """Sums over the tokens of each piece."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.lasts = anatomy.column("last").astype(np.int64)
        owners = anatomy.column("example").astype(np.int64)
        self.first_piece = np.searchsorted(owners, np.arange(len(anatomy.rows) + 1))
        self.parts = [np.zeros(len(self.lasts)) for _ in range(3)]

    def add(self, examples: Sequence[Example], batch: MicroBatch, nll: NDArray[np.float64]) -> None:
        """The trained tokens of a micro-batch: first all of the first example, then of the next."""
        sums, plain, ends = self.parts
        places, piece = [], []
        for index in np.unique(batch.owners).tolist():
            at = np.flatnonzero(examples[index].weights)
            first, last = self.first_piece[index], self.first_piece[index + 1]
            places.append(at)
            piece.append(first + np.searchsorted(self.lasts[first:last], at, side="right"))
        if not piece:
            return
        owner, place = np.concatenate(piece), np.concatenate(places)
        np.add.at(sums, owner, nll * batch.owner_weights)
        np.add.at(plain, owner, nll)
        at_end = place + 1 == self.lasts[owner]
        ends[owner[at_end]] = nll[at_end]
