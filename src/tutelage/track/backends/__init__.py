"""The trackers, each in a file of its own that is imported in a follower's process and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Protocol

from tutelage.track.identity import Identity
from tutelage.track.points import Point


class Tracker(Protocol):
    """What takes a run's points. Any method may raise or hang: a follower is prepared for both."""

    durable: bool
    """Whether points that `send` took survive a follower that is killed the next moment."""

    @property
    def remote(self) -> str | None:
        """What the tracker calls the run, where that is not its id."""
        ...

    def held(self) -> Mapping[str, int]:
        """Up to which step it holds streams, or single names; asked once, after opening."""
        ...

    def send(self, points: Sequence[Point]) -> None:
        """Take points of rising steps."""
        ...

    def close(self, status: str | None) -> None:
        """Keep what was sent; `status` is how the run ended, None while it has not."""
        ...


def open_tracker(name: str, told: Identity, remote: str | None) -> Tracker:
    """The tracker, with the run begun or found again there."""
    tracker: Tracker = import_module(f"tutelage.track.backends.{name}").open_run(told, remote)
    return tracker
