"""The output head at the trained edges only, in blocks, with the gradient taken in the same pass.

A block's logits live in one buffer that is reused; in it they become probabilities and then the gradient. So no
tensor of shape (tokens, vocabulary) ever exists, and no logit is computed that is not trained.

    nll_i  =  logsumexp(h_i W') - (h_i W')[target_i]          d nll_i / d logits  =  softmax - onehot
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tutelage.models import kernels

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BLOCK_ELEMENTS = 1 << 25
"""Logits held at once: 128 MiB in float32."""

_held = threading.local()
"""The block of each thread, kept between calls: a fresh one would cost a page fault for every 4 KiB of it."""


@dataclass(frozen=True, slots=True)
class Head:
    """logits = cap(scale * (hidden @ weight.T + bias)), with cap(x) = softcap * tanh(x / softcap) where set."""

    linear: nn.Linear
    scale: float = 1.0
    softcap: float | None = None

    @property
    def rows(self) -> int:
        """Edges per block."""
        return max(16, min(512, BLOCK_ELEMENTS // self.linear.weight.shape[0]))

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits (N, vocabulary) of hidden states (N, width); for a handful of positions."""
        logits = self.linear(hidden).float() * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def nll(self, hidden: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(sum of weight * nll, nll of each edge), in nats; the sum carries the gradient.

        Shapes: hidden (N, width), targets (N,), weights (N,) -> (), (N,).
        """
        return _EdgeLoss.apply(hidden, self.linear.weight, self.linear.bias, targets, weights, self)

    def products(self, hidden: Tensor) -> torch.dtype:
        """What matrix products read: bfloat16 on a GPU that computes in it; sums and losses are float32 everywhere."""
        if hidden.is_cuda and torch.is_autocast_enabled("cuda"):
            return torch.get_autocast_dtype("cuda")
        both = torch.promote_types(hidden.dtype, self.linear.weight.dtype)
        # Other devices cannot add up products of bfloat16 in float32.
        return both if hidden.is_cuda else torch.promote_types(both, torch.float32)


def find_head(model: PreTrainedModel) -> Head | None:
    """The model's head in a form that can be computed in blocks, or None where it has no such form."""
    linear = model.get_output_embeddings()
    if type(linear) is not nn.Linear:
        return None
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0
    divisor = getattr(config, "logits_scaling", None) or 1.0
    return Head(linear, float(scale) / float(divisor), getattr(config, "final_logit_softcapping", None))


class _EdgeLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, weights: Tensor, head: Head
    ) -> tuple[Tensor, Tensor]:
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        need = need_hidden or need_weight or need_bias
        count, rows = len(targets), head.rows
        products = head.products(hidden)
        sums = torch.promote_types(products, torch.float32)
        hidden, weight = hidden.to(products), weight.to(products)
        each = hidden.new_empty(count, dtype=torch.float32)
        d_hidden = torch.empty_like(hidden, dtype=sums) if need_hidden else None
        d_weight = torch.zeros_like(weight, dtype=sums) if need_weight and count == 0 else None
        d_bias = torch.zeros_like(bias, dtype=sums) if need_bias and bias is not None else None
        block = _block(min(rows, max(count, 1)), weight.shape[0], sums, hidden.device)
        for start in range(0, count, rows):
            part = slice(start, min(start + rows, count))
            h, target = hidden[part], targets[part]
            raw = _product(h, weight.t(), block[: len(target)])
            if bias is not None:
                raw += bias
            logits = raw.float()
            if head.scale != 1.0:
                logits *= head.scale
            slope = None
            if head.softcap is not None:
                logits.div_(head.softcap).tanh_()
                slope = 1 - logits.square() if need else None
                logits *= head.softcap
            gradient = _nll_in_place(logits, target, weights[part], each[part], need)
            if not need:
                continue
            if slope is not None:
                gradient *= slope
            if head.scale != 1.0:
                gradient *= head.scale
            if d_bias is not None:
                d_bias += gradient.sum(0)
            gradient = gradient.to(products)
            if d_hidden is not None:
                _product(gradient, weight, d_hidden[part])
            if need_weight:
                d_weight = _add_product(gradient.t(), h, d_weight, sums)
        ctx.save_for_backward(*[t for t in (d_hidden, d_weight, d_bias) if t is not None])
        ctx.needed = (d_hidden is not None, d_weight is not None, d_bias is not None)
        ctx.mark_non_differentiable(each)
        return torch.dot(each, weights.float()), each

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_sum: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        saved = list(ctx.saved_tensors)
        # The buffers are ours and are used once, so the largest of them need not be copied.
        gradients = [saved.pop(0).mul_(d_sum) if needed else None for needed in ctx.needed]
        return (*gradients, None, None, None)


def _block(rows: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A matrix (rows, vocabulary) whose contents are of no interest; the next call of this thread reuses it."""
    held = getattr(_held, "block", None)
    if held is None or held.dtype != dtype or held.device != device or held.numel() < rows * vocabulary:
        held = _held.block = None  # So that there are never two.
        with torch.inference_mode(False):  # A block made for an evaluation must be fit for training.
            held = _held.block = torch.empty(rows * vocabulary, dtype=dtype, device=device)
    return held[: rows * vocabulary].view(rows, vocabulary)


def _product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """The product a @ b, added up in the format of `out`."""
    if a.dtype == out.dtype:
        return torch.mm(a, b, out=out)
    return torch.mm(a, b, out_dtype=out.dtype, out=out)


def _add_product(a: Tensor, b: Tensor, onto: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Add a @ b in place; a new matrix where there is none yet, so that none is filled with zeros first."""
    if onto is None:
        return _product(a, b, a.new_empty(a.shape[0], b.shape[1], dtype=dtype))
    if a.dtype == dtype:
        return onto.addmm_(a, b)
    return torch.addmm(onto, a, b, out_dtype=dtype, out=onto)


def _nll_in_place(logits: Tensor, target: Tensor, weights: Tensor, each: Tensor, need: bool) -> Tensor:
    """Fill `each` with the losses; turn the logits into d(sum of weight * nll) / d(logits)."""
    if kernels.takes(logits, weights):
        kernels.nll_in_place(logits, target, weights, each, need)
        return logits
    at_target = logits.gather(1, target[:, None]).squeeze(1)
    highest = logits.amax(1, keepdim=True)
    logits.sub_(highest).exp_()
    total = logits.sum(1)
    torch.sub(total.log() + highest.squeeze(1), at_target, out=each)
    if need:
        logits.mul_((weights / total)[:, None])
        logits.scatter_add_(1, target[:, None], -weights[:, None])
    return logits
