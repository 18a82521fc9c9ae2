"""What a tracker is told about a run before its first point: name, id, and the recipe without anything secret."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.config.document import read
from tutelage.recipe.track import TrackOptions
from tutelage.runs import Run
from tutelage.track.secrecy import shareable


@dataclass(frozen=True, slots=True)
class Identity:
    """A run as trackers know it. The id stays with the folder, so that catching up continues the same remote run."""

    id: str
    name: str
    project: str
    config: dict[str, Any]
    folder: Path
    """Where a tracker may keep files of its own."""


def identity(run: Run) -> Identity:
    """The run in the folder. Id and project are settled by the first who asks, and stay."""
    recipe, _ = read(run.folder / "recipe.yaml")
    name = run.folder.resolve().name
    settled = run.read_json("track/run.json")
    if settled is None:
        settled = {"id": _new_id(name), "project": (recipe.get("track") or {}).get("project", TrackOptions().project)}
        own = Run(run.folder / "track")
        own.create()
        own.write_json("run.json", settled)
    return Identity(settled["id"], name, settled["project"], shareable(recipe), run.folder.resolve() / "track")


def _new_id(name: str) -> str:
    """The folder's name, and eight digits that tell it from other folders of that name."""
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name).strip("-")
    return f"{plain[:40] or 'run'}-{secrets.token_hex(4)}"
