"""Supervised fine-tuning: the negative log-probability of the trained tokens."""

from __future__ import annotations

from tutelage.data.batch import MicroBatch
from tutelage.models.forward import Forward
from tutelage.objectives.base import Loss


def nll(forward: Forward, batch: MicroBatch) -> Loss:
    """Sum over the trained tokens of weight * -log p(token | what is before it), in nats."""
    total, each = forward.nll(batch)
    return Loss(total, float(batch.weights.sum(dtype="float64")), each)
