"""The model as the loop, the evaluation and the generator see it: trained edges in, losses out.

A model whose attention goes through the interface computes a whole micro-batch as one flat row. Whether it does so
exactly is not assumed: at the start a few short random rows are computed by the model's own code and by ours, together
and with their common prefixes computed once, and the logits must agree. A model that cannot is run one example at a
time, by its own code, which is slower and equally exact; the run says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tutelage.data.batch import MicroBatch
from tutelage.data.forest import Segment, trees_of_one
from tutelage.models import attention, kernels
from tutelage.models.adapters import base_of
from tutelage.models.dropout import Draw
from tutelage.models.fused import fuse
from tutelage.models.head import Head, find_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = 1e-4
"""Largest difference of logits, as a share of their spread, that counts as rounding."""
TOLERANCE_TWO_BYTES = 0.03
"""Largest difference, root mean square as a share of the logits', that counts as rounding in bfloat16 and float16."""
WINDOW_TRIED = 512
"""A model with a sliding window up to this wide, in tokens, is tried on a row longer than it."""


@dataclass(slots=True)
class Forward:
    """Computes losses of a model's trained edges."""

    model: nn.Module
    head: Head | None
    packed: bool
    """Whether whole micro-batches are computed as one flat row."""
    reason: str = ""
    """Why not, or why prefixes are not shared, in words."""
    share: bool = False
    """Whether a prefix that examples have in common can be computed once."""
    backends: tuple[attention.Backend, ...] = attention.UNCHECKED
    """What computes attention in a flat row, best first."""
    notes: tuple[str, ...] = ()
    """Attention backends that are there and not used, and why, in words."""
    draw: Draw | None = None
    """What dropout is drawn from, where the model has any."""
    fused: tuple[str, ...] = ()
    """Kinds of layers that run on compiled kernels."""
    divided: bool = False
    """Whether each process holds a part of the weights, so that all must run it equally often."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def become(self, other: Forward) -> None:
        """Run the other's model from now on."""
        for field in fields(Forward):
            setattr(self, field.name, getattr(other, field.name))

    def remarks(self) -> list[str]:
        """What makes it slower than it could be, in words."""
        said = list(self.notes)
        if not self.packed:
            said.append(f"one example at a time, which is slower: {self.reason}")
        elif not self.share:
            said.append(f"common prefixes are not shared, which is slower: {self.reason}")
        if self.device.type == "cpu" and kernels.library() is None:
            said.append("the compiled kernels are not there (no C compiler at installation), which is slower")
        return said

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
        if self.draw is not None and self.model.training:
            self.draw.begin(batch, self.device)
        ids = torch.from_numpy(batch.input_ids).to(self.device)
        if self.packed:
            positions = torch.from_numpy(batch.position_ids).to(self.device)
            return self.hidden(ids, positions, segments=attention.Layout(batch.segments, self.backends))
        decoder = base_of(self.model).get_decoder()
        rows = self._each(batch, ids)
        return torch.cat([decoder(input_ids=row[None], use_cache=False).last_hidden_state[0] for _, row in rows])

    def _each(self, batch: MicroBatch, ids: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Where each example starts, and its ids, for a model that computes each alone."""
        for segment in batch.segments:
            assert segment.end == segment.exit, "bug: a shared prefix for such a model"
            if self.draw is not None and self.model.training:
                self.draw.only(segment.start, segment.end)
            yield segment.start, ids[segment.start : segment.end]

    def _logprobs_by_model(self, batch: MicroBatch) -> Tensor:
        """Log-probabilities (N, vocabulary) at the edges, by the model's own head, an example at a time."""
        ids = torch.from_numpy(batch.input_ids).to(self.device)
        positions = torch.from_numpy(batch.positions).to(self.device)
        if self.draw is not None and self.model.training:
            self.draw.begin(batch, self.device)
        parts = []
        for start, row in self._each(batch, ids):
            here = positions[(positions >= start) & (positions < start + len(row))] - start
            logits = self.model(input_ids=row[None], use_cache=False, logits_to_keep=here).logits[0]
            parts.append(torch.log_softmax(logits.float(), dim=-1))
        return torch.cat(parts)


@torch.no_grad()
def prove(model: PreTrainedModel, *, max_length: int) -> Forward:
    """The fastest way to run the model that reproduces its own logits; call it before adapters are added.

    The model is left with the attention that the result needs.
    """
    rows = _random_rows(model, _ROWS, _LENGTH)
    for row in range(2, _ROWS):
        rows[row, : 5 if row == 2 else 8] = rows[row - 1, : 5 if row == 2 else 8]
    expected = model(input_ids=rows, use_cache=False).logits
    windows = tuple(window for window in _windows(model) if window < max_length)
    tried = max((window for window in windows if window <= WINDOW_TRIED), default=None)
    long_row = rows[:1] if tried is None else _random_rows(model, 1, min(tried + 8, max_length))
    long_expected = None if tried is None else _decode(model, long_row)[0]
    fused = fuse(model)
    head = find_head(model)
    if head is not None and not _equal(head.logits(_decode(model, rows)), expected, model.dtype):
        head = None
    if head is None:
        return Forward(model, None, False, "its output head is computed in a way of its own", fused=fused)
    if "position_ids" not in inspect.signature(model.get_decoder().forward).parameters:
        return Forward(model, head, False, "it does not take positions", fused=fused)
    if _rope_depends_on_the_row(model, max_length):
        return Forward(model, head, False, "its rotary positions depend on the longest row beside it", fused=fused)
    original = model.config._attn_implementation
    choice = attention.choose(_attention_shape(model, windows), device=model.device, dtype=model.dtype)
    forward = Forward(model, head, True, share=True, backends=choice.backends, notes=choice.notes, fused=fused)
    try:
        model.set_attn_implementation(attention.NAME)
        apart = [(row, 0, length) for row, length in enumerate((12, 7, 9, 4))]
        places = trees_of_one(length for _, _, length in apart)
        if not _equal(head.logits(_flat(forward, rows, apart, places)), _taken(expected, apart), model.dtype):
            reason = "rows computed together do not come out as they do alone"
        elif long_expected is not None and not _equal(_alone(forward, long_row), long_expected, model.dtype):
            reason = "rows longer than its attention's sliding window do not come out as they do by its own code"
        else:
            if not _equal(head.logits(_flat(forward, rows, *_SHARED)), _taken(expected, _SHARED[0]), model.dtype):
                forward.share = False
                forward.reason = "rows whose common prefix is computed once do not come out as they do alone"
            return forward
    except (attention.UnsupportedAttention, ValueError, TypeError) as error:
        # transformers raises ValueError for models that do not support other attention functions.
        reason = str(error).splitlines()[0]
    model.set_attn_implementation(original)
    return Forward(model, head, False, reason, fused=fused)


_ROWS, _LENGTH = 4, 12
_SHARED = (
    # Tokens of a row, from and to: one row by itself, then three that share five tokens, of which two share eight.
    [(0, 0, 12), (1, 0, 5), (1, 5, 12), (2, 5, 8), (2, 8, 12), (3, 8, 12)],
    [Segment(*ends) for ends in ((0, 12, 12), (12, 17, 35), (17, 24, 24), (24, 27, 35), (27, 31, 31), (31, 35, 35))],
)


def _random_rows(model: PreTrainedModel, rows: int, length: int) -> Tensor:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(rows)
    return torch.randint(vocabulary, (rows, length), generator=generator).to(model.device)


def _decode(model: PreTrainedModel, rows: Tensor) -> Tensor:
    """Hidden states of rows of one length, by the model's own code."""
    hidden: Tensor = model.get_decoder()(input_ids=rows, use_cache=False).last_hidden_state
    return hidden


def _flat(forward: Forward, rows: Tensor, parts: list[tuple[int, int, int]], places: Sequence[Segment]) -> Tensor:
    """Hidden states of parts of rows, (row, from, to), by our code."""
    positions = torch.cat([torch.arange(start, end, device=rows.device) for _, start, end in parts])
    return forward.hidden(_taken(rows, parts), positions, segments=attention.Layout(places, forward.backends))


def _alone(forward: Forward, row: Tensor) -> Tensor:
    return _flat(forward, row, [(0, 0, row.shape[1])], trees_of_one([row.shape[1]]))


def _taken(rows: Tensor, parts: list[tuple[int, int, int]]) -> Tensor:
    return torch.cat([rows[row, start:end] for row, start, end in parts])


def _rope_depends_on_the_row(model: PreTrainedModel, max_length: int) -> bool:
    """Whether a row's rotary frequencies would change with the length of the flat row that it is part of."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type"))
    trained = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    limit = trained or getattr(config, "max_position_embeddings", max_length)
    return kind in ("longrope", "dynamic") and max_length > limit


def _windows(model: PreTrainedModel) -> list[int]:
    """The sliding windows that the model names, in tokens, narrow ones first."""
    places = (model.config.get_text_config(), *model.modules())
    found = {getattr(place, "sliding_window", None) for place in places}
    return sorted(window for window in found if isinstance(window, int) and window > 0)


def _attention_shape(model: PreTrainedModel, windows: tuple[int, ...]) -> attention.Shape:
    config = model.config.get_text_config()
    softcap = getattr(config, "attn_logit_softcapping", None)
    heads = getattr(config, "num_attention_heads", None)
    if not isinstance(heads, int) or heads < 1:  # It differs by layer, or the model has none: any shape is as good.
        return attention.Shape(4, 2, 64, windows, softcap)
    kv_heads = getattr(config, "num_key_value_heads", None)
    kv_heads = kv_heads if isinstance(kv_heads, int) and kv_heads > 0 and heads % kv_heads == 0 else heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return attention.Shape(heads, kv_heads, dim, windows, softcap)


def _equal(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> bool:
    """Whether they differ by rounding alone in a model of this data type."""
    ours, theirs = ours.float(), theirs.float()
    if ours.shape != theirs.shape:
        return False
    if dtype in (torch.bfloat16, torch.float16):
        return bool((ours - theirs).norm() <= TOLERANCE_TWO_BYTES * theirs.norm())
    return bool((ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max().clamp(min=1.0))
