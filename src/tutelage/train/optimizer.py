"""AdamW over the trained parameters, fused, with weight decay on matrices only."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.optim import AdamW

from tutelage.recipe import TrainOptions


def build_optimizer(parameters: Mapping[str, nn.Parameter], options: TrainOptions) -> AdamW:
    """The optimizer; its learning rate is set before every step."""
    matrices = [p for p in parameters.values() if p.dim() >= 2]
    vectors = [p for p in parameters.values() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return AdamW([g for g in groups if g["params"]], lr=0.0, betas=options.betas, eps=options.eps, fused=True)
