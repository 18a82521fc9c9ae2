"""trackio: its local database, or the Space or server that TRACKIO_SPACE_ID or TRACKIO_SERVER_URL names."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import trackio
from trackio.sqlite_storage import SQLiteStorage

from tutelage.track.identity import Identity
from tutelage.track.points import Point

DELIVERY_SECONDS = 60.0
"""For which trackio may take to write or send what it was given."""

LOST = "write-logs-to-sqlite"
"""What trackio says, once, where it dropped numbers instead of writing them."""


class Trackio:
    """A run of a project. trackio delivers from a thread, which is waited for: what `send` took has arrived."""

    durable = True

    def __init__(self, told: Identity) -> None:
        self.remote: str | None = told.id
        self._run: Any = trackio.init(
            project=told.project,
            name=told.id,
            resume="allow",
            config=told.config,
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def held(self) -> Mapping[str, int]:
        """What stands in the local database; of a server only the note knows."""
        held: dict[str, int] = {}
        for row in SQLiteStorage.get_logs(self._run.project, run=self._run.name, run_id=self._run.id):
            for key in row:
                held[key] = max(int(row["step"]), held.get(key, -1))
        return held

    def send(self, points: Sequence[Point]) -> None:
        """Give the points to the thread, and wait until it has delivered them.

        Raises:
            TimeoutError, OSError: they did not arrive.
        """
        for point in points:
            self._run.log(dict(point.values), step=point.step)
        until = time.monotonic() + DELIVERY_SECONDS
        while not self._delivered():
            if time.monotonic() > until:
                raise TimeoutError(f"trackio did not deliver within {DELIVERY_SECONDS:g} s")
            time.sleep(0.05)
        if LOST in self._run._warned_failures:
            raise OSError("trackio could not write into its local database")

    def close(self, status: str | None) -> None:
        """Wait for the thread, and stop it."""
        self._run.finish()

    def _delivered(self) -> bool:
        with self._run._queue_lock:
            return not self._run._queued_logs and self._run._sending_batch is None


def open_run(told: Identity, remote: str | None) -> Trackio:
    """The run, begun or continued."""
    return Trackio(told)
