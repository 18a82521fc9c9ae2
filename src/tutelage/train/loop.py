"""The training loop. READ FIRST.

A global batch is the unit of meaning: its gradient is

    sum over its trained tokens of weight * gradient of nll   /   sum of their weights

however it is cut into micro-batches. Losses arrive as sums and are divided once. The loop yields after every
optimizer step; whoever calls it logs, evaluates and saves between steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from tutelage.data.batch import MicroBatch
from tutelage.models.forward import Forward
from tutelage.objectives.base import Objective
from tutelage.seeds import derive
from tutelage.train.guard import Guard, check_gradients
from tutelage.types import Origin


@dataclass(frozen=True, slots=True)
class Group:
    """A global batch, cut into micro-batches."""

    step: int
    micro_batches: Sequence[MicroBatch]
    rows: Sequence[Origin]
    seed: int
    """Decides this step's dropout."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimizer step did."""

    step: int
    loss: float
    """Nats per trained token, weighted."""
    grad_norm: float
    learning_rate: float
    tokens: int
    supervised_tokens: int
    seconds: float
    skipped: bool


def steps(
    forward: Forward,
    objective: Objective,
    groups: Iterable[Group],
    optimizer: Optimizer,
    *,
    parameters: Mapping[str, nn.Parameter],
    rate: Callable[[int], float],
    max_grad_norm: float,
    guard: Guard,
) -> Iterator[Step]:
    """Run the groups, one optimizer step each.

    Raises:
        ModelError: model/no-gradient, after the first backward pass.
        DivergedError: train/diverged, after ten steps in a row that are not finite.
    """
    forward.model.train()
    for group in groups:
        started = time.perf_counter()
        total_weight = sum(float(batch.weights.sum(dtype="float64")) for batch in group.micro_batches)
        optimizer.zero_grad(set_to_none=True)
        summed = 0.0
        for index, batch in enumerate(group.micro_batches):
            torch.manual_seed(derive(group.seed, "dropout", group.step, index))
            loss = objective(forward, batch)
            (loss.sum / total_weight).backward()
            summed += loss.sum.item()
        if group.step == 1:
            check_gradients(parameters)
        mean = summed / total_weight
        norm = nn.utils.clip_grad_norm_(parameters.values(), max_grad_norm).item()
        sound = guard.step_is_sound(mean, norm, group.rows)
        learning_rate = rate(group.step)
        if sound:
            for options in optimizer.param_groups:
                options["lr"] = learning_rate
            optimizer.step()
        yield Step(
            step=group.step,
            loss=mean,
            grad_norm=norm,
            learning_rate=learning_rate,
            tokens=sum(batch.tokens for batch in group.micro_batches),
            supervised_tokens=sum(len(batch.targets) for batch in group.micro_batches),
            seconds=time.perf_counter() - started,
            skipped=not sound,
        )
        forward.model.train()
