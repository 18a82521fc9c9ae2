"""The trainer's side: followers are started, looked at, and left. No tracker's code is loaded here."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tutelage.recipe.track import TrackOptions
from tutelage.runs import Run
from tutelage.track.follower import stamp
from tutelage.track.identity import identity
from tutelage.track.note import Note
from tutelage.track.processes import in_words, spawn

_LEFT: list[subprocess.Popen[bytes]] = []
"""Followers that were still sending when they were left. Nobody waits for them; init does when this process ends."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Followers:
    """The followers of one run. Nothing here raises, and nothing waits but `finish`."""

    run: Run
    say: Say
    processes: dict[str, subprocess.Popen[bytes]]
    """Those that live, as far as is known."""

    def check(self) -> None:
        """Say once of each follower that ended before the run; a few microseconds."""
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                self._has_ended(name)
                self._warn(name, "no longer follows")

    def finish(self, seconds: float = 5.0) -> None:
        """Give the followers so long to send the rest, now that `result.json` is written; then leave them to it."""
        until = time.monotonic() + seconds
        while self.processes and time.monotonic() < until:
            for name, process in list(self.processes.items()):
                if process.poll() is not None:
                    self._has_ended(name)
                    if process.returncode != 0:
                        self._warn(name, "has not been told everything")
            time.sleep(0.02)
        for name, process in self.processes.items():
            _LEFT.append(process)
            self._warn(name, "has not been told everything yet, and is still being told")
        self.processes = {}

    def _has_ended(self, name: str) -> None:
        del self.processes[name]
        Note.sweep(self.run, name)

    def _warn(self, name: str, what: str) -> None:
        why = _why(self.run, name)
        self.say(f"note    {name} {what}{why}; this changes nothing in the run. Later: {in_words(self.run, [name])}")


def start(folder: str | Path, options: TrackOptions, say: Say = lambda text: None) -> Followers:
    """One follower for each tracker of the options; returns at once.

    The folder must hold the run's `recipe.yaml`. A follower that cannot be started is said, and the run goes on.
    """
    run = Run(folder)
    followers = Followers(run, say, {})
    lay = stamp(run)
    earlier = () if lay is None else ("--earlier", f"{lay[0]}:{lay[1]}")
    for name in options.to:
        try:
            identity(run)
            followers.processes[name] = spawn(run, name, "--trainer", str(os.getpid()), *earlier, detached=True)
        except Exception as error:
            say(f"note    {name} cannot be told of this run ({error}). Later: {in_words(run, [name])}")
    return followers


def _why(run: Run, name: str) -> str:
    try:
        error = Note.read(run, name).error
    except Exception:
        return ""
    return f" ({error})" if error else ""
