"""A run reduced to what saves it: a few steps noted in the journals, and a checkpoint of small tensors after some.

Training takes no part, so thousands of states can be looked at; every call is the one that training makes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.checkpoints import Checkpoints
from tutelage.models.precision import FLOAT32
from tutelage.recipe import TrainOptions
from tutelage.runs import Run
from tutelage.train.optimizer import build_optimizer
from tutelage.train.saver import Saver
from tutelage.train.state import Position, restore

RUN = "0123456789abcdef"


class Small:
    """A run of a few numbers in a folder."""

    def __init__(self, folder: Path, *, keep: int = 1) -> None:
        self.run = Run(folder)
        self.run.create()
        self.parameters = {"weight": nn.Parameter(torch.zeros(8, 4)), "bias": nn.Parameter(torch.zeros(4))}
        self.optimizer = build_optimizer(self.parameters, TrainOptions(), FLOAT32)
        self.saver = Saver(
            self.run.checkpoints,
            RUN,
            self.parameters,
            self.optimizer,
            keep=keep,
            wait_seconds=0,
            say=lambda line: None,
            before_commit=self.run.sync_journals,
        )

    def stand_at(self, step: int) -> None:
        """Have the values that belong to a step."""
        with torch.no_grad():
            for parameter in self.parameters.values():
                parameter.fill_(float(step))

    def go(self, steps: int, every: int, committed: Callable[[int], None] = lambda step: None, begin: int = 0) -> None:
        """Note steps and save every few; `committed` is told when a save is done, with all that follows it."""
        for step in range(begin + 1, steps + 1):
            self.run.append("metrics.jsonl", [{"step": step}])
            if step % every == 0:
                self.stand_at(step)
                self.saver.save(Position(step), {"healthy": True, "heldout_nll": None})
                self.saver.finish()
                committed(step)


def found(folder: Path) -> tuple[int, list[tuple[str, str]]]:
    """The step from which a run in the folder would go on, its values proved, and what was put aside and why.

    0 where no checkpoint verifies.
    """
    aside: list[tuple[str, str]] = []
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.sweep()
    newest = checkpoints.newest(RUN, lambda path, why: aside.append((path.name, why)))
    if newest is None:
        return 0, aside
    small: Any = Small(folder)
    position = restore(newest, small.parameters, small.optimizer)
    assert position.step == newest.step
    for name, parameter in small.parameters.items():
        assert bool((parameter == float(newest.step)).all()), f"{newest.folder} verifies, and {name} is not step's"
    return newest.step, aside
