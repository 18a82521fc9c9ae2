"""What becomes of general text: its loss, and how far the model's predictions moved from those of the base model.

At step 0 the base's predictions are written down, since full fine-tuning leaves no base to ask later: at each place of
each text the likeliest tokens with their log-probabilities, and what is left of the probability as one lump. Against
the same cells the tuned model's prediction is held:

    KL(base || tuned)  >=  sum over cells of  p log(p / q) - p + q        nats per token

Putting tokens together into a cell can only hide a difference (the data-processing inequality), so the figure is a
lower bound; it is exact where both models divide the lump alike among its tokens. `- p + q` adds up to nothing and
keeps every cell's part from falling below nothing by rounding.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save
from torch import Tensor

from tutelage import files
from tutelage.evaluate.compare import Difference, Verdict, paired_ratio
from tutelage.evaluate.general import General
from tutelage.evaluate.predictions import observe
from tutelage.models.adapters import base_of
from tutelage.models.forward import Forward
from tutelage.onlooker import Onlooker
from tutelage.runs import Run

if TYPE_CHECKING:
    from tutelage.train.ranks import Ranks

FILE = "general.safetensors"
LIKELIEST = 64
"""Tokens that are cells of their own at each place."""
_LEAST = float(torch.finfo(torch.float32).tiny)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the base model predicts, at each trained token of the texts, one text after the other."""

    general: General
    nll: NDArray[np.float32]
    """(tokens,)"""
    ids: NDArray[np.int32]
    """(tokens, cells): the likeliest tokens."""
    logprobs: NDArray[np.float32]
    """(tokens, cells)"""
    rest: NDArray[np.float32]
    """(tokens,): the probability of all others together."""

    @property
    def mean_nll(self) -> float:
        """Nats per token."""
        return float(self.nll.mean(dtype=np.float64))

    @staticmethod
    def measure(
        forward: Forward,
        general: General,
        *,
        token_budget: int,
        progress: Callable[[int], None] = lambda texts: None,
        ranks: Ranks | None = None,
        likeliest: int = LIKELIEST,
    ) -> Reference:
        """Of the model as it is now, which is the base model."""
        vocabulary = base_of(forward.model).get_input_embeddings().weight.shape[0]
        tokens, cells = general.tokens, min(likeliest, vocabulary)
        kept = (
            np.zeros(tokens, np.float32),
            np.zeros((tokens, cells), np.int32),
            np.zeros((tokens, cells), np.float32),
            np.zeros(tokens, np.float32),
        )

        def look(logits: Tensor, targets: Tensor, places: Tensor) -> tuple[Tensor, ...]:
            total = torch.logsumexp(logits, 1, keepdim=True)
            nll = (total - logits.gather(1, targets[:, None])).squeeze(1)
            top, ids = logits.topk(cells, 1)
            return nll, ids.int(), top - total, _rest(logits, total, ids)

        observe(forward, general.examples, look, kept, token_budget=token_budget, progress=progress, ranks=ranks)
        return Reference(general, *kept)

    def save(self, folder: Run) -> None:
        """Write it into the run folder, whole or not at all."""
        if isinstance(folder, Onlooker):
            return
        arrays = {"nll": self.nll, "ids": self.ids, "logprobs": self.logprobs, "rest": self.rest}
        data, path = save(arrays, {"general": self.general.hash}), folder.folder / FILE
        with files.explained(path, needed=len(data)):
            files.patiently(lambda: files.write_whole(path, data), folder.wait_seconds)

    @staticmethod
    def load(folder: Run, general: General, ranks: Ranks | None = None) -> Reference | None:
        """What `save` wrote, read by rank 0 for all; None where there is none, or one of other texts."""

        names = ("nll", "ids", "logprobs", "rest")

        def read() -> str | None:
            try:
                with safe_open(folder.folder / FILE, "numpy") as file:
                    if (file.metadata() or {}).get("general") != general.hash:
                        return None
                    return base64.b64encode(save({name: file.get_tensor(name) for name in names})).decode()
            except (SafetensorError, OSError):
                return None

        text = read() if ranks is None else ranks.by_first(read)
        kept = None if text is None else load(base64.b64decode(text))
        return None if kept is None else Reference(general, *(kept[name] for name in names))


@dataclass(frozen=True, slots=True, eq=False)
class Drift:
    """Base and tuned on the same texts; sums in nats, by text."""

    general: General
    base_sums: NDArray[np.float64]
    sums: NDArray[np.float64]
    kl_sums: NDArray[np.float64]
    confidence: float

    @property
    def base_nll(self) -> float:
        """Nats per token of the base model."""
        return float(self.base_sums.sum() / self.general.counts.sum())

    @property
    def nll(self) -> float:
        """Nats per token of the model now."""
        return float(self.sums.sum() / self.general.counts.sum())

    @property
    def kl(self) -> float:
        """How far predictions moved from the base's, at least, in nats per token."""
        return float(self.kl_sums.sum() / self.general.counts.sum())

    @property
    def difference(self) -> Difference:
        """Of the losses, each text a draw of its own."""
        return self._difference(np.ones(len(self.sums), dtype=bool))

    @property
    def verdict(self) -> Verdict:
        """Whether the loss on general text rose, fell, or neither so that it can be told from noise."""
        return self.difference.verdict(lower_is_better=True)

    @property
    def sentence(self) -> str:
        """What it says, in words."""
        said = _sentence(self.difference, self.kl, self.general.tokens)
        groups = self._groups()
        worse = [group["name"] for group in groups if group["verdict"] == "worse"]
        if len(groups) > 1 and worse and len(worse) < len(groups):
            said += f" By itself, text of {', '.join(worse)} has become harder."
        return said

    def as_json(self) -> dict[str, Any]:
        """As `result.json` holds it."""
        everything = np.ones(len(self.sums), dtype=bool)
        groups = self._groups() if len(self.general.names) > 1 else None
        return {
            "set": list(self.general.names),
            "texts": len(self.sums),
            **self._figures(everything),
            "confidence": self.confidence,
            "sentence": self.sentence,
            **({"groups": groups} if groups else {}),
        }

    def _groups(self) -> list[dict[str, Any]]:
        chosen = [(name, self.general.groups == number) for number, name in enumerate(self.general.names)]
        return [{"name": name, "texts": int(mine.sum()), **self._figures(mine)} for name, mine in chosen if mine.any()]

    def _figures(self, chosen: NDArray[np.bool_]) -> dict[str, Any]:
        loss, tokens = self._difference(chosen), int(self.general.counts[chosen].sum())
        return {
            "tokens": tokens,
            "base_nll": loss.base,
            "tuned_nll": loss.tuned,
            "difference": loss.difference,
            "interval": list(loss.interval),
            "kl": float(self.kl_sums[chosen].sum() / tokens),
            "verdict": loss.verdict(lower_is_better=True),
        }

    def _difference(self, chosen: NDArray[np.bool_]) -> Difference:
        counts = self.general.counts.astype(float)
        return paired_ratio(self.base_sums[chosen], self.sums[chosen], counts[chosen], confidence=self.confidence)


def drift(
    forward: Forward,
    reference: Reference,
    *,
    token_budget: int,
    confidence: float = 0.95,
    progress: Callable[[int], None] = lambda texts: None,
    ranks: Ranks | None = None,
) -> Drift:
    """How the model does now on the texts of the reference, and how far its predictions moved from it."""
    general = reference.general
    kept = (np.zeros(general.tokens, np.float32), np.zeros(general.tokens, np.float32))
    ids, logprobs = torch.from_numpy(reference.ids).long(), torch.from_numpy(reference.logprobs).double()
    rest = torch.from_numpy(reference.rest).double()

    def look(logits: Tensor, targets: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        total = torch.logsumexp(logits, 1, keepdim=True)
        nll = (total - logits.gather(1, targets[:, None])).squeeze(1)
        cells, log_p, lump = (each[places].to(logits.device) for each in (ids, logprobs, rest))
        log_q = (logits.gather(1, cells) - total).double()
        q_lump = _rest(logits, total, cells).double().clamp(min=_LEAST)
        p_lump = lump.clamp(min=_LEAST)
        kl = (log_p.exp() * (log_p - log_q) - log_p.exp() + log_q.exp()).sum(1)
        return nll, (kl + p_lump * (p_lump / q_lump).log() - p_lump + q_lump).float()

    observe(forward, general.examples, look, kept, token_budget=token_budget, progress=progress, ranks=ranks)
    base, now, kl = (np.add.reduceat(each.astype(np.float64), general.starts[:-1]) for each in (reference.nll, *kept))
    return Drift(general, base, now, kl, confidence)


def _rest(logits: Tensor, total: Tensor, ids: Tensor) -> Tensor:
    """The probability (N,) of all tokens but `ids`; overwrites the logits."""
    return logits.sub_(total).exp_().scatter_(1, ids, 0.0).sum(1)


def _sentence(loss: Difference, kl: float, tokens: int) -> str:
    low, high = loss.interval
    numbers = (
        f"loss {loss.base:.3f} -> {loss.tuned:.3f} nats per token ({loss.difference:+.3f}, {loss.confidence:.0%} "
        f"interval {low:+.3f} to {high:+.3f}; {loss.n:,} texts, {tokens:,} tokens)"
    )
    moved = f"its predictions moved from the base model's by at least {kl:.3f} nats per token (KL)"
    verdict = loss.verdict(lower_is_better=True)
    if not loss.enough:
        return f"Too few general texts to tell a difference from noise: {numbers}; {moved}."
    if verdict == "no difference":
        return f"General text is as easy for the model as before, as far as can be told: {numbers}; {moved}."
    how = "harder" if verdict == "worse" else "easier"
    return f"General text has become {how} for the model: {numbers}; {moved}."
