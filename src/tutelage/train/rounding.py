"""float32 to bfloat16 by chance, so that the mean of many roundings is the number itself.

Between two neighbours the upper one is taken with the probability that the number has come that far: sixteen random
bits are added to the sixteen that bfloat16 does not have, and what is then left of them is cut off. A number that
bfloat16 holds is never changed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.seeds import derive

_KEPT = -(1 << 16)
"""The sign, the exponent and the seven bits of the fraction that bfloat16 has."""


def chance(device: torch.device, seed: int, *indices: int) -> torch.Generator:
    """The draws of one tensor at one step: a function of the run's seed and of these numbers alone."""
    return torch.Generator(device).manual_seed(derive(seed, "rounding", *indices))


def round_by_chance(values: Tensor, generator: torch.Generator) -> Tensor:
    """bfloat16 numbers whose expectation is `values`, which are float32, contiguous and finite."""
    count = values.numel()
    # Four draws of sixteen bits from each of 64: a quarter of the work of drawing them one by one.
    drawn = torch.empty((count + 3) // 4, dtype=torch.int64, device=values.device)
    drawn.random_(-(1 << 63), None, generator=generator)
    below = drawn.view(torch.int16)[:count].to(torch.int32).bitwise_and_(0xFFFF).view(values.shape)
    return below.add_(values.view(torch.int32)).bitwise_and_(_KEPT).view(torch.float32).to(torch.bfloat16)
