"""What is kept of the forward pass for the backward pass: all, the results of the large products, or layers' inputs.

| kind | kept of each layer | computed again |
|---|---|---|
| none | everything | nothing |
| selective | its input, results of large products and of attention | norms, activations, positions |
| full | its input | the whole layer |

Each gives the same gradient (Chen et al. 2016, arXiv 1604.06174).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.utils.checkpoint
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from tutelage.models.adapters import base_of
from tutelage.models.lora import keep_results

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kind = Literal["none", "selective", "full"]
SMALL = 128
"""Products over fewer columns than this are cheaper to make again than to keep: those of adapters."""


def supports(model: PreTrainedModel) -> bool:
    """Whether the model's layers can be computed again."""
    return bool(getattr(model, "supports_gradient_checkpointing", False))


def checkpoint(model: nn.Module, kind: Kind, *, draws: bool = False) -> None:
    """Keep that much from now on; adapters must be in place. A model that cannot keeps everything.

    `draws`: whether the model draws random numbers of its own, which must fall out again as they did.
    """
    inner = base_of(model)
    if kind == "none" or not supports(inner):
        return
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": draws}
    if kind == "selective":
        keep_results(model)
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _policy)
    # Not by the model's own method, which also makes embeddings ask for gradients: with adapters nothing below the
    # first of them needs one.
    inner._set_gradient_checkpointing(True, functools.partial(torch.utils.checkpoint.checkpoint, **options))


def _policy(_: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    aten = torch.ops.aten
    products = {aten.mm.default: 0, aten.addmm.default: 1, aten.bmm.default: 0}
    if operation in products:
        inner = arguments[products[operation]].shape[-1]
        return CheckpointPolicy.MUST_SAVE if inner >= SMALL else CheckpointPolicy.PREFER_RECOMPUTE
    if any(name in operation.name() for name in ("scaled_dot_product", "flash_att", "flex_attention", "varlen_attn")):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
