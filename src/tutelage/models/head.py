"""The output head at the trained edges only, in blocks, with the gradient taken in the same pass.

A block's logits live in one buffer that is reused; in it they become probabilities and then the gradient. So no
tensor of shape (tokens, vocabulary) ever exists, and no logit is computed that is not trained.

    nll_i  =  logsumexp(h_i W') - (h_i W')[target_i]          d nll_i / d logits  =  softmax - onehot
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BLOCK_ELEMENTS = 1 << 25
"""Logits held at once: 128 MiB in float32."""


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
        each = hidden.new_empty(count, dtype=torch.float32)
        d_hidden = torch.empty_like(hidden) if need_hidden else None
        d_weight = torch.zeros_like(weight) if need_weight else None
        d_bias = torch.zeros_like(bias) if need_bias and bias is not None else None
        buffer = hidden.new_empty(min(rows, max(count, 1)), weight.shape[0])
        for start in range(0, count, rows):
            part = slice(start, min(start + rows, count))
            h, target = hidden[part], targets[part]
            raw = buffer[: len(target)]
            torch.mm(h, weight.t(), out=raw)
            if bias is not None:
                raw += bias
            logits = raw if raw.dtype == torch.float32 else raw.float()
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
            gradient = gradient.to(h.dtype)
            if d_hidden is not None:
                torch.mm(gradient, weight, out=d_hidden[part])
            if d_weight is not None:
                d_weight.addmm_(gradient.t(), h)
            if d_bias is not None:
                d_bias += gradient.sum(0)
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


def _nll_in_place(logits: Tensor, target: Tensor, weights: Tensor, each: Tensor, need: bool) -> Tensor:
    """Fill `each` with the losses; turn the logits into d(sum of weight * nll) / d(logits)."""
    at_target = logits.gather(1, target[:, None]).squeeze(1)
    highest = logits.amax(1, keepdim=True)
    logits.sub_(highest).exp_()
    total = logits.sum(1)
    torch.sub(total.log() + highest.squeeze(1), at_target, out=each)
    if need:
        logits.mul_((weights / total)[:, None])
        logits.scatter_add_(1, target[:, None], -weights[:, None])
    return logits
