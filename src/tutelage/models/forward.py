"""The model as the loop, the evaluation and the generator see it: trained edges in, losses out.

A model whose attention goes through the interface computes a whole micro-batch as one flat row. Whether it does so
exactly is not assumed: at the start two short random rows are computed alone by the model's own code and together
by ours, and the logits must agree. A model that cannot is run one example at a time, by its own code, which is
slower and equally exact; the run says so.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tutelage.data.batch import MicroBatch
from tutelage.models import attention
from tutelage.models.adapters import base_of
from tutelage.models.head import Head, find_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = 1e-4
"""Largest difference of logits, as a share of their spread, that counts as rounding."""


@dataclass(slots=True)
class Forward:
    """Computes losses of a model's trained edges."""

    model: nn.Module
    head: Head | None
    packed: bool
    """Whether whole micro-batches are computed as one flat row."""
    reason: str = ""
    """Why not, in words."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def nll(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """(sum over edges of weight * nll, nll of each edge), in nats; the sum carries the gradient."""
        targets = torch.from_numpy(batch.targets).to(self.device)
        weights = torch.from_numpy(batch.weights).to(self.device)
        if self.head is not None:
            edges = self._hidden(batch)[torch.from_numpy(batch.positions).to(self.device)]
            return self.head.nll(edges, targets, weights)
        each = -self._logprobs_by_model(batch).gather(1, targets[:, None]).squeeze(1)
        return torch.dot(each, weights), each.detach()

    def hidden(self, input_ids: Tensor, position_ids: Tensor, **options: Any) -> Tensor:
        """Hidden states (T, width) of one flat row, before the head; `options` reach the attention function."""
        decoder = base_of(self.model).get_decoder()
        output = decoder(
            input_ids=input_ids[None],
            position_ids=position_ids[None],
            attention_mask=None,
            use_cache=False,
            **options,
        )
        return output.last_hidden_state[0]

    def _hidden(self, batch: MicroBatch) -> Tensor:
        ids = torch.from_numpy(batch.input_ids).to(self.device)
        if self.packed:
            positions = torch.from_numpy(batch.position_ids).to(self.device)
            return self.hidden(ids, positions, segments=batch.lengths)
        decoder = base_of(self.model).get_decoder()
        rows = [decoder(input_ids=row[None], use_cache=False).last_hidden_state[0] for row in ids.split(batch.lengths)]
        return torch.cat(rows)

    def _logprobs_by_model(self, batch: MicroBatch) -> Tensor:
        """Log-probabilities (N, vocabulary) at the edges, by the model's own head, an example at a time."""
        ids = torch.from_numpy(batch.input_ids).to(self.device)
        positions = torch.from_numpy(batch.positions).to(self.device)
        parts, start = [], 0
        for row in ids.split(batch.lengths):
            here = positions[(positions >= start) & (positions < start + len(row))] - start
            logits = self.model(input_ids=row[None], use_cache=False, logits_to_keep=here).logits[0]
            parts.append(torch.log_softmax(logits.float(), dim=-1))
            start += len(row)
        return torch.cat(parts)


@torch.no_grad()
def prove(model: PreTrainedModel, *, max_length: int) -> Forward:
    """The fastest way to run the model that reproduces its own logits; call it before adapters are added.

    The model is left with the attention that the result needs.
    """
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(vocabulary, (n,), generator=generator).to(model.device) for n in (7, 12)]
    expected = torch.cat([model(input_ids=row[None], use_cache=False).logits[0].float() for row in rows])
    head = find_head(model)
    if head is not None and not _equal(head.logits(_decode_alone(model, rows)), expected):
        head = None
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if head is None:
        return Forward(model, None, False, "its output head is computed in a way of its own")
    if "position_ids" not in inspect.signature(model.get_decoder().forward).parameters:
        return Forward(model, head, False, "it does not take positions")
    if window is not None and window < max_length:
        return Forward(model, head, False, f"its attention has a sliding window of {window} tokens")
    original = model.config._attn_implementation
    forward = Forward(model, head, True)
    try:
        model.set_attn_implementation(attention.NAME)
        positions = torch.cat([torch.arange(len(row), device=model.device) for row in rows])
        hidden = forward.hidden(torch.cat(rows), positions, segments=tuple(map(len, rows)))
        if _equal(head.logits(hidden), expected):
            return forward
        reason = "rows computed together do not come out as they do alone"
    except (attention.UnsupportedAttention, ValueError, TypeError) as error:
        # transformers raises ValueError for models that do not support other attention functions.
        reason = str(error).splitlines()[0]
    model.set_attn_implementation(original)
    return Forward(model, head, False, reason)


def _decode_alone(model: PreTrainedModel, rows: list[Tensor]) -> Tensor:
    decoder = model.get_decoder()
    return torch.cat([decoder(input_ids=row[None], use_cache=False).last_hidden_state[0] for row in rows])


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    if ours.shape != theirs.shape:
        return False
    return bool((ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max().clamp(min=1.0))
