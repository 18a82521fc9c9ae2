"""What an objective gives the loop: a sum and a count. The loop divides once, by the whole global batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from tutelage.data.batch import MicroBatch
from tutelage.models.forward import Forward


@dataclass(frozen=True, slots=True)
class Loss:
    """Of one micro-batch."""

    sum: Tensor
    """Sum of weight * loss; carries the gradient."""
    weight: float
    """Sum of the weights."""
    each: Tensor | None = None
    """The loss of each edge, without its weight; None where an objective has no such thing."""


Objective = Callable[[Forward, MicroBatch], Loss]
