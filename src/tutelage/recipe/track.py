"""Who else is told how a run goes."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import DocInfo
from pydantic import AfterValidator, Field

from tutelage.recipe.base import Section

TrackerName = Literal["tensorboard", "mlflow", "wandb", "trackio"]


def _once(names: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a tracker is named once")
    return names


class TrackOptions(Section):
    """Trackers: each is told by a process of its own, which can neither slow nor end the run."""

    to: Annotated[
        tuple[TrackerName, ...], Field(strict=False), DocInfo("each at most once"), AfterValidator(_once)
    ] = ()
    """Who is told: `tensorboard`, `mlflow`, `wandb`, `trackio`. Addresses and keys are taken from their own environment
    variables and logins, never from a recipe."""
    project: str = Field(default="tutelage", min_length=1)
    """What the run is filed under: the project of W&B and trackio, the experiment of MLflow."""
