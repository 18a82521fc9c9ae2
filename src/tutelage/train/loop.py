"""The training loop. READ FIRST.

A global batch is the unit of meaning: its gradient is

    sum over its trained tokens of weight * gradient of nll   /   sum of their weights

however it is cut into micro-batches. Losses arrive as sums and are divided once. The loop yields after every
optimizer step; whoever calls it logs, evaluates and saves between steps.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.data.batch import MicroBatch
from tutelage.models.forward import Forward
from tutelage.objectives.base import Objective
from tutelage.seeds import derive
from tutelage.train.guard import Guard, check_gradients
from tutelage.train.losses import Losses, blamed, gathered, of_edges
from tutelage.train.memory import give_back_memory, is_out_of_memory
from tutelage.train.optimizer import FusedAdamW
from tutelage.train.ranks import ALONE, Ranks
from tutelage.types import Origin


@dataclass(frozen=True, slots=True)
class Group:
    """A global batch, cut into micro-batches: those of this process."""

    step: int
    micro_batches: Sequence[MicroBatch]
    """None where the step is passed over."""
    rows: Sequence[Origin]
    seed: int
    """Decides this step's dropout."""
    cut: Callable[[int], Sequence[MicroBatch]] | None = None
    """The same examples in micro-batches of at most so many tokens, for when memory runs out."""
    weight: float | None = None
    """Of the whole global batch; None where all of it is here."""
    examples: Sequence[int] = ()
    """Places of the rows' examples in the token store."""
    epoch: int = 1
    """Counted from 1."""

    @property
    def total_weight(self) -> float:
        """What the gradient is divided by."""
        here = (float(batch.weights.sum(dtype="float64")) for batch in self.micro_batches)
        return sum(here) if self.weight is None else self.weight


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
    """Nothing was changed: the step was not sound, or was passed over."""
    rows: str
    """Digest of the rows in their order."""
    token_budget: int | None = None
    """Tokens computed at once since memory ran out; None while it has not."""
    losses: Losses | None = None
    """Of each example, before the update."""
    unsound: str = ""
    """The rows by file and line, where the step was not sound."""

    @staticmethod
    def passed_over(group: Group) -> Step:
        """A step whose rows are left out."""
        nothing = (group.step, math.nan, math.nan, 0.0, 0, 0, 0, 0.0)
        return Step(*nothing, skipped=True, rows=digest(group.rows), losses=Losses(group.epoch))


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
    budget: int | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[Step]:
    """Run the groups, one optimizer step each. Where memory runs out, the step is made again in smaller pieces.

    `budget` is the number of tokens computed at once where memory ran out before.

    Raises:
        ModelError: model/no-gradient, after the first backward pass.
        DivergedError: train/diverged, after too many steps that are not sound.
        RollBack: a step is not sound, and the run shall go back.
        MemoryError, RuntimeError: memory ran out, and a single example does not fit.
    """
    forward.model.train()
    for group in groups:
        total_weight = group.total_weight
        if not total_weight:  # It is passed over, or nothing in its rows is trained.
            yield Step.passed_over(group)
            continue
        started = time.perf_counter()
        ranks.pulse.begin(group.step)
        work = _Work(forward, objective, group, total_weight, optimizer, ranks)
        batches, budget = work.made(budget)
        if group.step == 1:
            check_gradients(parameters, ranks)
        learning_rate = rate(group.step)
        # Nothing is asked of the device before its step is under way: the optimizer itself leaves out unsound ones.
        facts = torch.stack([*ranks.each(work.losses), optimizer.norm().float()])
        sound = facts.isfinite().all() & (facts[:-1].sum() <= guard.ceiling * total_weight)
        optimizer.step(learning_rate, norm=facts[-1], clip=max_grad_norm, sound=sound)
        told = torch.cat([facts, sound.float()[None], *work.each]).cpu()
        *sums, norm, made = told[: len(facts) + 1].tolist()
        mean = sum(sums) / total_weight
        counts, each = gathered(batches, told[len(facts) + 1 :].numpy(), len(group.rows), ranks)
        rows = "" if made else blamed(group.rows, each)
        guard.judge(group.step, mean, norm, rows, made=bool(made))
        yield Step(
            step=group.step,
            loss=mean,
            grad_norm=norm,
            learning_rate=learning_rate,
            **counts,
            seconds=time.perf_counter() - started,
            skipped=not made,
            rows=digest(group.rows),
            token_budget=budget,
            losses=Losses(group.epoch, group.examples, *each),
            unsound=rows,
        )
        forward.model.train()


def digest(rows: Sequence[Origin]) -> str:
    """Of the rows in their order, by which two runs are compared step by step."""
    named = "\n".join(f"{Path(row.file).name}:{row.line}" for row in rows)  # Wherever the files lie.
    return hashlib.blake2b(named.encode(), digest_size=8).hexdigest()


@dataclass(slots=True)
class _Work:
    """What this process computes of one global batch."""

    forward: Forward
    objective: Objective
    group: Group
    total_weight: float
    optimizer: FusedAdamW
    ranks: Ranks
    losses: list[Tensor] = field(default_factory=list)
    """Of the micro-batches."""
    each: list[Tensor] = field(default_factory=list)
    """Of the edges of each micro-batch."""

    def made(self, budget: int | None) -> tuple[Sequence[MicroBatch], int | None]:
        """Gather the gradient of the whole global batch; what fitted into memory everywhere, and its token budget."""
        group = self.group
        batches = group.micro_batches if budget is None or group.cut is None else group.cut(budget)
        while failed := self.ranks.largest(self.failed_with(batches)):
            assert group.cut is not None
            budget = failed // 2 if budget is None else min(budget, failed) // 2
            batches = group.cut(budget)
        self.optimizer.gather()
        return batches, budget

    def failed_with(self, batches: Sequence[MicroBatch]) -> int:
        """Gather their gradient; 0, or the size of one that memory is too small for."""
        group, ranks = self.group, self.ranks
        self.optimizer.zero_grad()
        if self.forward.draw is not None:
            self.forward.draw.seed = derive(group.seed, "dropout", group.step)
        self.losses, self.each = [], []
        try:
            for index, batch in enumerate(batches):
                # For draws that are not ours; no two micro-batches of a step have the same.
                torch.manual_seed(derive(group.seed, "functions", group.step, index * ranks.world + ranks.rank))
                loss = self.objective(self.forward, batch)
                (loss.sum / self.total_weight).backward()
                self.losses.append(loss.sum.detach().float())
                self.each.append(of_edges(loss, batch))
                ranks.pulse.beat()
            return 0
        except (MemoryError, RuntimeError) as error:
            failed = batches[len(self.losses)]
            alone = len(set(failed.owners.tolist())) <= 1
            if alone or group.cut is None or not is_out_of_memory(error):
                raise
        # Outside of the handler, which holds on to everything that the failed pass had made.
        self.optimizer.zero_grad()
        give_back_memory()
        return failed.computed_tokens
