"""Who asks a task's rows: this process alone, or several on this machine, each with the model for itself.

    rows ── dealt by the hash of their names ──> worker 1, 2, …, N ── lines, portion by portion ──> this process

What is written about a row depends on the row, the model and the sampling, and so not on who asks it. Lines are handed
on as they come; a worker that dies takes with it the portion at hand, and no other line.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol

from tutelage.errors import Problem, RecipeError, TutelageError, WorkerError
from tutelage.evaluation.subject import Saved, Subject
from tutelage.generate.sampling import Sampling
from tutelage.screen import Advance
from tutelage.tasks import Task
from tutelage.tasks.errand import Row
from tutelage.tasks.marking import Line, marked

FIRST, LARGEST = 64, 1024
"""Rows of the first portion, and of any."""
QUICK = 30.0
"""Seconds: after a portion that took fewer, the next one is twice as large."""
SPAWN = multiprocessing.get_context("spawn")
"""How workers are started: with nothing of this process but what they are told."""
PATIENCE = 10.0
"""Seconds for which a worker that was told to end is waited for."""

Portion = tuple[list[Line], list[Problem]]
"""Lines, and why some rows have none."""


class Asking(Protocol):
    """Whoever asks."""

    def ask(self, task: Task, rows: Sequence[Row], sampling: Sampling, advance: Advance) -> Iterator[Portion]:
        """The lines of all rows, some at a time."""
        ...

    def described(self) -> dict[str, Any]:
        """What to print of the model, once it has answered."""
        ...

    def close(self) -> None:
        """Let go of whatever was started."""
        ...


def asking(subject: Subject, processes: int) -> Asking:
    """One process alone, or so many of them.

    Raises:
        RecipeError: recipe/conflict, for several processes that ask a server.
    """
    if processes == 1:
        return Alone(subject)
    if not isinstance(subject, Saved):
        what, fix = "an endpoint is asked by one process", "leave --processes out; --in-flight says how much at once"
        raise RecipeError(Problem("recipe/conflict", what, found=f"{processes} processes", fix=fix))
    return Crew(subject, processes)


def portions(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows, more at a time as long as that is quick; the caller asks each portion before it takes the next."""
    size, place = FIRST, 0
    while place < len(rows):
        began = time.perf_counter()
        yield rows[place : place + size]
        place += size
        size = min(size * 2, LARGEST) if time.perf_counter() - began < QUICK else size


@dataclass
class Alone:
    """The process that it is called in."""

    subject: Subject

    def ask(self, task: Task, rows: Sequence[Row], sampling: Sampling, advance: Advance) -> Iterator[Portion]:
        """The lines of all rows, some at a time."""
        for portion in portions(rows):
            yield marked(self.subject, task, portion, sampling, lambda done: advance(done))

    def described(self) -> dict[str, Any]:
        """What to print of the model."""
        return self.subject.described()

    def close(self) -> None:
        """Nothing."""


class Crew:
    """Several processes, started when there is something to ask."""

    def __init__(self, subject: Saved, count: int) -> None:
        self.subject, self.count = subject, count
        self._workers: list[tuple[SpawnProcess, Connection]] = []
        self._described: dict[str, Any] = {}
        self._idle = True

    def ask(self, task: Task, rows: Sequence[Row], sampling: Sampling, advance: Advance) -> Iterator[Portion]:
        """The lines of all rows, some at a time, as the workers bring them.

        Raises:
            WorkerError: worker/lost, where one died. TutelageError: what a worker could not do.
        """
        self._start()
        self._idle = False
        waiting = {}
        for number, ((_, channel), share) in enumerate(zip(self._workers, dealt(rows, self.count), strict=True)):
            self._tell(number, (task, share, sampling))
            waiting[channel] = number
        while waiting:
            for ready in wait(list(waiting)):
                assert isinstance(ready, Connection)
                kind, value = self._heard(waiting[ready])
                if kind == "done":
                    advance(value)
                elif kind == "lines":
                    yield value
                elif kind == "failed":
                    raise TutelageError.of(value)
                else:
                    self._described = value or self._described
                    del waiting[ready]
        self._idle = True

    def described(self) -> dict[str, Any]:
        """What the workers say of the model."""
        return self._described

    def close(self) -> None:
        """End the workers, those that are still at work too."""
        wait_for = PATIENCE if self._idle else 0
        for _, channel in self._workers:
            with contextlib.suppress(OSError):
                channel.send(None)
            channel.close()
        for process, _ in self._workers:
            process.join(wait_for)
            if process.exitcode is None:
                process.terminate()
                process.join(PATIENCE)
            if process.exitcode is None:
                process.kill()
                process.join()
        self._workers = []

    def _start(self) -> None:
        if self._workers:
            return
        for _ in range(self.count):
            here, there = SPAWN.Pipe()
            # What this process knows of the model it has loaded is not sent along.
            process = SPAWN.Process(target=_work, args=(there, replace(self.subject), self.count))
            process.start()
            there.close()
            self._workers.append((process, here))

    def _tell(self, number: int, order: Any) -> None:
        try:
            self._workers[number][1].send(order)
        except OSError:
            raise self._lost(number) from None

    def _heard(self, number: int) -> tuple[str, Any]:
        try:
            kind, value = self._workers[number][1].recv()
        except (EOFError, OSError):
            raise self._lost(number) from None
        return kind, value

    def _lost(self, number: int) -> WorkerError:
        process = self._workers[number][0]
        process.join(PATIENCE)
        code = process.exitcode
        ended = "its end of the channel was closed" if code is None else f"it ended with exit code {code}"
        if code is not None and code < 0:
            ended = f"it was ended by {signal.Signals(-code).name}"
        what = f"process {number + 1} of {self.count} of the evaluation died"
        why = "a process that takes more memory than there is, is killed by the system" if code == -9 else ""
        fix = "repeat the command: what is answered is kept; fewer --processes take less memory"
        return WorkerError(Problem("worker/lost", what, f"process {process.pid}", ended, why, fix))


def dealt(rows: Sequence[Row], count: int) -> list[list[Row]]:
    """The rows in so many shares of the same size, by the hash of their names; each in the order that they came in."""
    order = sorted(range(len(rows)), key=lambda place: hashlib.sha256(rows[place].name.encode()).digest())
    return [[rows[place] for place in sorted(order[number::count])] for number in range(count)]


def _work(channel: Connection, subject: Saved, count: int) -> None:
    """What a worker does: load the model, and ask what it is told, until it is told to end."""
    try:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // count))
        while (order := channel.recv()) is not None:
            task, rows, sampling = order
            for portion in portions(rows):
                made = marked(subject, task, portion, sampling, lambda done: channel.send(("done", done)))
                channel.send(("lines", made))
            channel.send(("described", subject.described() if rows else {}))
    except TutelageError as error:
        channel.send(("failed", error.problems))
    except (KeyboardInterrupt, EOFError, BrokenPipeError):
        pass  # Whoever started it has ended, or is ending.
