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
from torch import Tensor, nn

from tutelage.data.batch import MicroBatch
from tutelage.models.forward import Forward
from tutelage.objectives.base import Objective
from tutelage.seeds import derive
from tutelage.train.guard import Guard, check_gradients
from tutelage.train.memory import give_back_memory, is_out_of_memory
from tutelage.train.optimizer import FusedAdamW
from tutelage.types import Origin


@dataclass(frozen=True, slots=True)
class Group:
    """A global batch, cut into micro-batches."""

    step: int
    micro_batches: Sequence[MicroBatch]
    rows: Sequence[Origin]
    seed: int
    """Decides this step's dropout."""
    cut: Callable[[int], Sequence[MicroBatch]] | None = None
    """The same examples in micro-batches of at most so many tokens, for when memory runs out."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimizer step did."""

    step: int
    loss: float
    """Nats per trained token, weighted."""
    grad_norm: float
    learning_rate: float
    tokens: int
    """Of the examples."""
    computed_tokens: int
    """With each shared prefix counted once."""
    supervised_tokens: int
    seconds: float
    skipped: bool
    token_budget: int | None = None
    """Tokens computed at once since memory ran out; None while it has not."""


def steps(
    forward: Forward,
    objective: Objective,
    groups: Iterable[Group],
    optimizer: FusedAdamW,
    *,
    parameters: Mapping[str, nn.Parameter],
    rate: Callable[[int], float],
    max_grad_norm: float,
    guard: Guard,
) -> Iterator[Step]:
    """Run the groups, one optimizer step each. Where memory runs out, the step is made again in smaller pieces.

    Raises:
        ModelError: model/no-gradient, after the first backward pass.
        DivergedError: train/diverged, after ten steps in a row that are not finite.
        MemoryError, RuntimeError: memory ran out, and a single example does not fit.
    """
    forward.model.train()
    budget = None
    for group in groups:
        started = time.perf_counter()
        batches = group.micro_batches if budget is None or group.cut is None else group.cut(budget)
        total_weight = sum(float(batch.weights.sum(dtype="float64")) for batch in batches)
        while isinstance(losses := _gradients(forward, objective, group, batches, total_weight, optimizer), int):
            assert group.cut is not None
            budget = losses // 2 if budget is None else min(budget, losses) // 2
            batches = group.cut(budget)
        if group.step == 1:
            check_gradients(parameters)
        learning_rate = rate(group.step)
        # Nothing is asked of the device before its step is under way: the optimizer itself leaves out unsound ones.
        facts = torch.stack([*losses, optimizer.norm().float()])
        optimizer.step(learning_rate, norm=facts[-1], clip=max_grad_norm, sound=facts.isfinite().all())
        *sums, norm = facts.tolist()
        mean = sum(sums) / total_weight
        sound = guard.step_is_sound(mean, norm, group.rows)
        yield Step(
            step=group.step,
            loss=mean,
            grad_norm=norm,
            learning_rate=learning_rate,
            tokens=sum(batch.tokens for batch in batches),
            computed_tokens=sum(batch.computed_tokens for batch in batches),
            supervised_tokens=sum(batch.supervised_tokens for batch in batches),
            seconds=time.perf_counter() - started,
            skipped=not sound,
            token_budget=budget,
        )
        forward.model.train()


def _gradients(
    forward: Forward,
    objective: Objective,
    group: Group,
    batches: Sequence[MicroBatch],
    total_weight: float,
    optimizer: FusedAdamW,
) -> list[Tensor] | int:
    """Gather the gradient of the global batch; the losses of its micro-batches, or the size of one too large."""
    optimizer.zero_grad()
    if forward.draw is not None:
        forward.draw.seed = derive(group.seed, "dropout", group.step)
    losses: list[Tensor] = []
    try:
        for index, batch in enumerate(batches):
            torch.manual_seed(derive(group.seed, "functions", group.step, index))  # For draws that are not ours.
            loss = objective(forward, batch)
            (loss.sum / total_weight).backward()
            losses.append(loss.sum.detach().float())
        return losses
    except (MemoryError, RuntimeError) as error:
        failed = batches[len(losses)]
        alone = len(set(failed.owners.tolist())) <= 1
        if alone or group.cut is None or not is_out_of_memory(error):
            raise
    # Outside of the handler, which holds on to everything that the failed pass had made.
    optimizer.zero_grad()
    give_back_memory()
    return failed.computed_tokens
