"""What a run will need: memory, time and disk, from a few seconds of measuring before any weight is read.

    peak      = the process as it is + weights + gradients + optimizer state + what the largest micro-batch holds
    a step    = seconds a token * tokens + seconds of the optimizer
    the run   = steps + held-out losses + answers

The two seconds and what a micro-batch holds are measured on a small copy of the model (`probe.py`), the rest is
counted. Answers are a rough figure: nobody knows before how long a model writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tutelage.data.batch import MicroBatch
from tutelage.generate.engine import IN_FLIGHT, generate
from tutelage.models.adapters import trainable
from tutelage.models.checkpointing import Kind
from tutelage.models.precision import Precision
from tutelage.train.optimizer import FusedAdamW
from tutelage.train.probe import Cost, Probe, Sizes, empty_step
from tutelage.train.work import Work

RECORDS = 32 << 20
"""Bytes of disk for the tokenizer and the records of a run, which are small beside weights."""
GLANCE = 512
"""Tokens on which the speed of a pass without gradients is measured."""
HOLES = 0.5
"""Heap that is free and too scattered to be used, as a share of what all layers keep without checkpointing: measured
with glibc's allocator on a model of 30 layers, with budgets of 512 to 4096 tokens."""
DECODED = 4
"""Tokens that the probe writes after each prompt."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the peak, by what holds them."""

    process: int
    """Before the model; nothing on a GPU."""
    weights: int
    gradients: int
    optimizer: int
    activations: int
    """Of the largest micro-batch, with everything that comes and goes."""
    allocator: int
    """Holes between blocks that are in use, which the process keeps; nothing on a GPU."""
    answers: int
    """Keys, values and all else while prompts are answered, when there are no gradients."""

    @property
    def peak(self) -> int:
        """The most at once."""
        state = self.gradients + self.optimizer + self.activations + self.allocator
        return self.process + self.weights + max(state, self.answers)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one way to run it."""

    token_budget: int
    checkpointing: Kind
    steps: int
    memory: Memory
    step_tokens: float
    """Computed in a step, in the mean."""
    step_seconds: float
    seconds: float
    """From the first step to the answer, with everything measured before and after."""
    disk_bytes: int

    @property
    def peak_memory_bytes(self) -> int:
        """The most that is in use at once."""
        return self.memory.peak

    def as_json(self) -> dict[str, Any]:
        """As `plan.json` holds it."""
        return {
            "peak_memory_bytes": self.memory.peak,
            "memory": asdict(self.memory),
            "step_seconds": self.step_seconds,
            "seconds": self.seconds,
            "disk_bytes": self.disk_bytes,
        }


class Estimator:
    """Estimates of one run with different token budgets and checkpointing; what they have in common is measured once.

    `optimizer` makes the run's optimizer for given parameters.
    """

    def __init__(
        self,
        probe: Probe,
        work: Work,
        *,
        process: int,
        optimizer: Callable[[dict[str, torch.nn.Parameter]], FusedAdamW],
    ) -> None:
        self.probe, self.work, self.precision, self.process = probe, work, probe.precision, process
        self._optimizer = optimizer
        # What the layers keep where nothing is computed again: asked first, since a probe never goes back to it.
        glance = work.largest(GLANCE)
        self._kept = probe.kept(glance) / glance.computed_tokens
        self._common: tuple[float, float, Cost] | None = None

    def weights(self) -> int:
        """Bytes of the weights alone, which no choice makes smaller."""
        return held(self.probe.sizes, self.precision)["weights"]

    def estimate(self, token_budget: int, checkpointing: Kind) -> Estimate:
        """Of a run with this budget and checkpointing; takes about as long as two small steps."""
        probe, work = self.probe, self.work
        probe.checkpoint(checkpointing)
        batches = work.first_step(token_budget, share=probe.forward.share)
        largest = work.largest(token_budget)
        cost = probe.train(largest)
        each_token, activations = cost.seconds / largest.computed_tokens, cost.bytes
        typical = max(batches, key=lambda batch: batch.computed_tokens)
        if 2 * _longest(typical) < _longest(largest):  # Its attention is cheaper.
            each_token = probe.train(typical).seconds / typical.computed_tokens
        looking, seeing = self._heldout(token_budget, largest.computed_tokens)
        updating, answering, answers = self._measured_once()
        shared = sum(batch.computed_tokens for batch in batches) / sum(batch.tokens for batch in batches)
        step_tokens = shared * work.tokens_per_step
        step_seconds = each_token * step_tokens + updating
        return Estimate(
            token_budget,
            checkpointing,
            work.steps,
            Memory(
                process=self.process,
                **held(probe.sizes, self.precision),
                activations=max(activations, seeing),
                allocator=self._holes(largest.computed_tokens),
                answers=answers.bytes,
            ),
            step_tokens,
            step_seconds,
            step_seconds * work.steps + looking + answering,
            saved_bytes(probe.sizes, merged=work.merged) + work.checkpoints * self._checkpoint() + RECORDS,
        )

    def _checkpoint(self) -> int:
        """Bytes of one."""
        parts = held(self.probe.sizes, self.precision)
        return parts["optimizer"] + self.probe.sizes.trained * _bytes(self.precision.weights)

    def _holes(self, tokens: int) -> int:
        if self.probe.forward.device.type == "cuda":
            return 0
        return int(HOLES * self._kept * tokens)

    def _heldout(self, token_budget: int, trained_tokens: int) -> tuple[float, int]:
        """(seconds of all measurements of losses, bytes where they may be more than training's)."""
        small = self.work.largest_heldout(min(GLANCE, token_budget)) or self.work.largest(min(GLANCE, token_budget))
        largest = self.work.largest_heldout(token_budget) or small
        cost = self.probe.call(lambda forward: forward.nll(small))
        tokens = int(self.work.heldout.lengths.sum()) * self.work.measurements + self.work.looked_at
        seconds = cost.seconds / small.computed_tokens * tokens
        # Without gradients a pass holds less than with them, so only a larger one can hold more.
        larger = largest.computed_tokens > trained_tokens
        return seconds, self.probe.call(lambda forward: forward.nll(largest)).bytes if larger else 0

    def _measured_once(self) -> tuple[float, float, Cost]:
        """(seconds of an optimizer step, seconds of all answers, cost of a round of answers)."""
        if self._common is None:
            self._common = (self._updating(), *self._answering())
        return self._common

    def _updating(self) -> float:
        parameters = trainable(self.probe.forward.model)
        optimizer = self._optimizer(parameters)
        with self.probe.with_gradients():
            empty_step(optimizer)
            started = time.perf_counter()
            empty_step(optimizer)
            _wait(self.probe.forward.device)
            seconds = time.perf_counter() - started
        return seconds * self.probe.sizes.trained / sum(p.numel() for p in parameters.values())

    def _answering(self) -> tuple[float, Cost]:
        work, sizes = self.work, self.probe.sizes
        if not work.prompts:
            return 0.0, Cost(0.0, 0)
        rows = min(IN_FLIGHT, len(work.prompts))
        prompts = [[1 + (i + j) % 7 for j in range(8)] for i in range(rows)]
        cost = self.probe.call(lambda f: generate(f, prompts, stop_ids=(), max_new_tokens=DECODED))
        each = cost.seconds / DECODED
        rounds = -(-len(work.prompts) // rows)
        longest = sorted(work.prompts, reverse=True)[:rows]
        # A token of a prompt is cheaper than one that is written; as in training, few are left out.
        written = work.max_new_tokens + min(work.max_new_tokens, work.answer_tokens)
        cached = rows * (longest[0] + work.max_new_tokens) * sizes.cached * _bytes(self.precision.weights)
        passing = int(sum(longest) * sizes.passing * 4)
        return rounds * each * written, Cost(each, cached + max(passing, cost.bytes))


def held(sizes: Sizes, precision: Precision) -> dict[str, int]:
    """Bytes of weights, gradients and optimizer state."""
    full = sizes.frozen == 0
    each = _bytes(precision.weights)
    masters = 4 if full and precision.weights != "float32" and precision.master == "float32" else 0
    return {
        "weights": sizes.frozen * each + sizes.trained * (each if full else 4),
        "gradients": sizes.trained * 4,
        "optimizer": sizes.trained * (2 * _bytes(precision.optimizer) + masters),
    }


def saved_bytes(sizes: Sizes, *, merged: bool) -> int:
    """What is written at the end, in float32."""
    return 4 * (sizes.trained + (sizes.frozen if merged else 0))


def _longest(batch: MicroBatch) -> int:
    return int(batch.position_ids.max()) + 1


def _bytes(format: str) -> int:
    return 4 if format == "float32" else 2


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
