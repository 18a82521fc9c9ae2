"""Keeps a run from learning nothing, or nonsense, in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from tutelage.errors import DivergedError, ModelError, Problem
from tutelage.types import Origin

LIMIT = 10
"""Steps in a row that may be skipped."""


@dataclass(slots=True)
class Guard:
    """Counts skipped steps; stops the run after too many in a row."""

    skipped: int = 0
    in_a_row: int = 0
    rows: list[Origin] = field(default_factory=list)

    def step_is_sound(self, loss: float, grad_norm: float, rows: Sequence[Origin]) -> bool:
        """Whether the update may be made; one that is not finite is counted and must be skipped.

        Raises:
            DivergedError: train/diverged, at the tenth in a row, with the rows of the last one.
        """
        if torch.isfinite(torch.tensor([loss, grad_norm])).all():
            self.in_a_row = 0
            return True
        self.skipped += 1
        self.in_a_row += 1
        self.rows = list(rows)
        if self.in_a_row >= LIMIT:
            places = ", ".join(str(origin) for origin in self.rows[:16])
            raise DivergedError(
                Problem(
                    "train/diverged",
                    f"{self.in_a_row} steps in a row had a loss or gradient that is not finite; the run stopped",
                    where=places,
                    found=f"loss {loss}, gradient norm {grad_norm}",
                    why="the rows of the last of these steps are named; none of the ten changed the weights",
                    fix="look at the rows with `tutelage preview`, or lower train.learning_rate",
                )
            )
        return False


def check_gradients(parameters: Mapping[str, nn.Parameter]) -> None:
    """Every trained tensor received a gradient with something in it; called after the first backward pass.

    LoRA's first matrices are the exception: their gradient is zero while the second ones are.

    Raises:
        ModelError: model/no-gradient, naming the tensors.
    """
    silent = [
        name
        for name, parameter in parameters.items()
        if parameter.grad is None or (not parameter.grad.any() and "lora_A" not in name)
    ]
    if silent:
        raise ModelError(
            Problem(
                "model/no-gradient",
                f"{len(silent):,} of {len(parameters):,} trained tensors receive no gradient",
                where=", ".join(silent[:5]),
                why="training would leave them as they are",
                fix="please report this with the model's name; nothing was trained",
            )
        )
