"""Weights & Biases; with WANDB_MODE=offline into the run folder, for `wandb sync`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import wandb

from tutelage.track.backends.wandb_files import held_offline
from tutelage.track.identity import Identity
from tutelage.track.points import Point

STREAMS = ("train", "heldout", "result")

_NOTHING_BUT_POINTS: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "host": "-",
    "save_code": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""No code, no environment, no machine: the run's numbers and its recipe are all that is sent."""


class WeightsAndBiases:
    """A run of a project. W&B writes and sends in a process of its own, so only the end makes sure."""

    durable = False

    def __init__(self, told: Identity) -> None:
        self.remote: str | None = told.id
        settings = {key: on for key, on in _NOTHING_BUT_POINTS.items() if key in wandb.Settings.model_fields}
        try:
            self._run: Any = wandb.init(
                project=told.project,
                id=told.id,
                name=told.name,
                dir=str(told.folder),
                resume="allow",
                config=told.config,
                settings=wandb.Settings(**settings),
            )
        except Exception:
            with suppress(Exception):  # W&B's own process would take the next try for a second run of this id.
                wandb.teardown(exit_code=1)
            raise
        for stream in STREAMS:
            self._run.define_metric(f"{stream}/step", hidden=True)
            self._run.define_metric(f"{stream}/*", step_metric=f"{stream}/step")
        self._folder = told.folder

    def held(self) -> Mapping[str, int]:
        """What the server has of the run; offline, what earlier followers left in the run folder."""
        if self._run.offline:
            return held_offline(self._folder / "wandb", str(self.remote))
        return {s: int(step) for s in STREAMS if (step := self._run.summary.get(f"{s}/step")) is not None}

    def send(self, points: Sequence[Point]) -> None:
        """Hand the points over; the axis of each stream is its own step, so their order does not matter."""
        for point in points:
            self._run.log({f"{point.stream}/step": point.step, **point.values})

    def close(self, status: str | None) -> None:
        """Wait until everything has arrived, or stands in the run folder."""
        if status is not None:
            self._run.summary.update({"status": status})
        self._run.finish(exit_code=0 if status in (None, "done") else 1)


def open_run(told: Identity, remote: str | None) -> WeightsAndBiases:
    """The run, begun or continued."""
    return WeightsAndBiases(told)
