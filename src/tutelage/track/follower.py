"""The follower: reads what the run writes down and hands it to one tracker, until the run has ended and all is sent."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice

from filelock import FileLock

from tutelage.runs import Run
from tutelage.track.backends import Tracker, open_tracker
from tutelage.track.identity import identity
from tutelage.track.note import Note
from tutelage.track.points import Point, Stream, outcome, streams
from tutelage.track.secrecy import text_without_secrets

LOOK_SECONDS = 0.5
"""Between two looks at the run folder."""

AT_ONCE = 500
"""Points handed over in one go."""

TRIES = 4
"""Attempts before a follower gives up that never got through."""

OUTAGE_SECONDS = 600.0
"""For which a follower that got through before goes on trying after the run has ended."""

Stamp = tuple[int, int]


def stamp(run: Run) -> Stamp | None:
    """What tells one `result.json` from the next; None while there is none."""
    try:
        found = (run.folder / "result.json").stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@dataclass(slots=True)
class Follower:
    """One tracker of one run."""

    run: Run
    name: str
    lives: Callable[[], bool] = lambda: False
    """Whether the trainer does."""
    patience: float = 0.0
    """Seconds without anything new after which a follower ends that has no trainer, or has it no more."""
    earlier: Stamp | None = None
    """The `result.json` that lay there when the trainer began: not the end of this run."""
    note: Note = field(default_factory=Note)
    _given: dict[str, int] = field(default_factory=dict)
    _held: Mapping[str, int] = field(default_factory=dict)
    _tracker: Tracker | None = None
    _news: float = field(default_factory=time.monotonic)
    _handed: int = 0
    """Points, since this follower began."""

    def follow(self, wait: float = -1) -> bool:
        """Send until the run has ended and all is sent; whether it was. One tracker has one follower at a time.

        Raises:
            filelock.Timeout: another follower was still there after `wait` seconds.
        """
        (self.run.folder / "track").mkdir(exist_ok=True)
        sources = streams(self.run)
        failures, since, before = 0, 0.0, 0
        with FileLock(self.run.folder / "track" / f"{self.name}.lock", timeout=wait), self._noted():
            while True:
                try:
                    self._attempt(sources)
                    return True
                except Exception as error:
                    if failures == 0 or self._handed > before:
                        failures, since, before = 0, time.monotonic(), self._handed
                    failures += 1
                    self._abandon(error)
                    if self._gives_up(failures, time.monotonic() - since):
                        return False
                    time.sleep(min(60.0, 2.0 ** (failures - 1)))

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Inside, the note says who follows."""
        self.note = Note.read(self.run, self.name)
        self.note.follower = os.getpid()
        self._write()
        try:
            yield
        finally:
            self.note.follower = None
            with suppress(Exception):
                self._write()

    def _gives_up(self, failures: int, seconds: float) -> bool:
        if self._handed == 0 or self.patience == 0:
            return failures >= TRIES
        return seconds > OUTAGE_SECONDS and (self._finished() or not self.lives())

    def _attempt(self, sources: Sequence[Stream]) -> None:
        self._given = dict(self.note.sent)
        for stream in sources:
            stream.rewind()
        if not self._ended():
            self._open()
        while True:
            ended = self._ended()  # Asked first: what is read afterwards is then all there will be.
            for stream in sources:
                self._pass_on(stream)
            if ended:
                return self._close()
            time.sleep(LOOK_SECONDS)

    def _pass_on(self, stream: Stream) -> None:
        fresh = self._fresh(stream)
        while points := list(islice(fresh, AT_ONCE)):
            self._send(points)

    def _fresh(self, stream: Stream) -> Iterator[Point]:
        """The points whose step is beyond every one before."""
        last = self._given.get(stream.name, -1)
        for point in stream.new():
            if point.step > last:
                last = point.step
                yield point

    def _send(self, points: Sequence[Point]) -> None:
        tracker = self._open()
        new = [rest for point in points if (rest := point.beyond(self._held)).values]
        if new:
            tracker.send(new)
        self._handed += len(points)
        self._news = time.monotonic()
        self._given[points[-1].stream] = points[-1].step
        if tracker.durable:
            self.note.sent = dict(self._given)
            self.note.error = None
            self._write()

    def _close(self) -> None:
        result = self.run.read_json("result.json") or {}
        status = result.get("status") if self._finished() else None
        point = outcome(result)
        if point is not None and point.step > self._given.get("result", -1):
            self._send([point])
        if status != self.note.status:
            self._open()
        if self._tracker is not None:
            self._tracker.close(status)
            self._tracker = None
        self.note.sent, self.note.status, self.note.error = dict(self._given), status, None
        self._write()

    def _open(self) -> Tracker:
        if self._tracker is None:
            self._tracker = open_tracker(self.name, identity(self.run), self.note.remote)
            self._held = self._tracker.held()
            self.note.remote, self.note.status = self._tracker.remote, None
            self._write()
        return self._tracker

    def _abandon(self, error: Exception) -> None:
        """Let go of a tracker that failed. What it has not confirmed is asked for when it is opened again."""
        said = "".join(traceback.format_exception(error))
        print(text_without_secrets(said), file=sys.stderr, flush=True)
        self.note.error = text_without_secrets(f"{type(error).__name__}: {error}".partition("\n")[0])[:300]
        tracker, self._tracker = self._tracker, None
        with suppress(Exception):
            self._write()
        if tracker is not None:
            with suppress(Exception):
                tracker.close(None)

    def _write(self) -> None:
        self.note.write(self.run, self.name)

    def _finished(self) -> bool:
        """Whether `result.json` says that this run has ended."""
        found = stamp(self.run)
        if found is None or (found == self.earlier and self.lives()):
            return False
        return (self.run.read_json("result.json") or {}).get("status") not in (None, "running")

    def _ended(self) -> bool:
        return self._finished() or (not self.lives() and time.monotonic() - self._news >= self.patience)
