"""Runs as processes of their own, some at once: begun, watched by their journals, and stopped so that they save."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tutelage.errors import Problem, StoppedError
from tutelage.history.record import Record
from tutelage.screen import Advance, Screen
from tutelage.signals import SIGNALS
from tutelage.sweep.grid import quoted
from tutelage.sweep.trial import Trial

STOPPED = StoppedError.exit_code
LOOK = 0.2
"""Seconds between two looks at the processes."""
_TAIL = 1 << 14
"""Bytes from the end of a log in which its error is looked for."""
_ERROR = re.compile(r"^error\[[\w/-]+\]: ", re.MULTILINE)


class Job(Protocol):
    """A run that is under way."""

    def poll(self) -> int | None:
        """Its exit code; None while it works."""
        ...

    def stop(self) -> None:
        """Ask it to save and end."""
        ...

    def said(self) -> str:
        """Its error, in one piece."""
        ...


Start = Callable[[Trial, int], Job]
"""Begin a run, or go on with it, up to a step."""


class Process:
    """`tutelage train` in a process and a session of its own, so that Ctrl-C reaches it once, and from here."""

    def __init__(self, recipe: Path, trial: Trial, step: int, log: Path, *, threads: int | None) -> None:
        until = ["--until", str(step)] if step < trial.steps else []
        output = f"output={quoted(trial.folder)}"
        given = [str(recipe), *trial.overrides, output, "--resume", *until, "--json"]
        environment = dict(os.environ)
        if threads is not None:
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tutelage", "train", *given],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )

    def poll(self) -> int | None:
        """Its exit code."""
        return self._process.poll()

    def stop(self) -> None:
        """A signal, once: a second one would end it where it stands."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def said(self) -> str:
        """The last error in its log, or else the last line."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - _TAIL))
            text = file.read().decode("utf-8", errors="replace")
        places = [match.start() for match in _ERROR.finditer(text)]
        if places:
            return text[places[-1] :].strip()
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""


def run_all(trials: Sequence[tuple[Trial, int]], start: Start, *, at_once: int, screen: Screen, name: str) -> None:
    """Bring each run to its step; what fails is noted in the trial and stops no other.

    Raises:
        StoppedError: run/stopped, after the runs that were under way have saved and ended.
    """
    running: list[tuple[Trial, int, Job]] = []
    try:
        with SIGNALS.held(), screen.stage(name, sum(step for _, step in trials)) as advance:
            _work(trials, start, running, at_once=at_once, screen=screen, shown=_Shown(trials, advance))
    except BaseException:
        for _, _, job in running:
            job.stop()
        raise
    if SIGNALS.requested is not None:
        raise stopped(SIGNALS.requested)


def stopped(signal: str) -> StoppedError:
    """What ends a sweep that was asked to stop."""
    what = f"the sweep was stopped on request ({signal})"
    return StoppedError(Problem("run/stopped", what, fix="the same command goes on from there"))


def _work(
    trials: Sequence[tuple[Trial, int]],
    start: Start,
    running: list[tuple[Trial, int, Job]],
    *,
    at_once: int,
    screen: Screen,
    shown: _Shown,
) -> None:
    """Until none is left; `running` are those that are under way."""
    waiting = [(trial, step) for trial, step in trials if not trial.reached(step)]
    asked, told = False, set[str]()
    while waiting or running:
        if SIGNALS.requested is not None and not asked:
            asked, waiting = True, []
            screen.say(f"stop    {SIGNALS.requested}: {len(running)} under way, which saves what it has and ends")
            for _, _, job in running:
                job.stop()
        for trial, step in list(waiting):
            if len(running) == at_once:
                break
            if Record(trial.folder).is_held():
                # Of a sweep that was killed: its process goes on by itself.
                if trial.name not in told:
                    screen.say(f"wait    another process works in {trial.folder}; it is waited for")
                    told.add(trial.name)
                continue
            waiting.remove((trial, step))
            if not trial.reached(step):
                running.append((trial, step, start(trial, step)))
        running[:] = [one for one in running if not _ended(*one)]
        shown.update([trial for trial, _, _ in running])
        if running or waiting:
            time.sleep(LOOK)


class _Shown:
    """Steps made by all runs, for the bar."""

    def __init__(self, trials: Sequence[tuple[Trial, int]], advance: Advance) -> None:
        self._trials, self._advance, self._made = trials, advance, 0

    def update(self, running: Sequence[Trial]) -> None:
        """Look at the journals."""
        made = sum(step if trial.failed else min(step, trial.made()) for trial, step in self._trials)
        if made > self._made:
            self._advance(made - self._made, note=", ".join(trial.name for trial in running))
            self._made = made


def _ended(trial: Trial, step: int, job: Job) -> bool:
    """Whether a run is no longer under way; what went wrong is kept with it."""
    code = job.poll()
    if code is None:
        return False
    if SIGNALS.requested is None and not trial.reached(step):
        trial.code = code
        trial.error = job.said() or f"its process ended with exit code {code}"
        if code < 0:
            trial.error = f"its process was killed ({signal.Signals(-code).name})"
        elif code in (0, STOPPED):
            trial.error = f"its process ended (exit code {code}) and left no held-out loss of step {step}"
    return True
