"""A thread in each process of a run that notices when another dies or hangs, names it, and ends this process.

Every second each process tells the launcher's store what it is doing, over a connection of its own, and reads what the
others told. Whoever finds one dead or hung writes a verdict; all read it, say it, and exit with code 8 at once: a
process that waits for a dead one in a collective cannot be brought back otherwise. Seconds are counted while this
process runs, so a machine that slept has missed nothing.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tutelage.errors import Problem, TutelageError, WorkerError
from tutelage.signals import SIGNALS, StopRequested
from tutelage.train.ranks import Ranks
from tutelage.train.verdict import SILENT_ELSEWHERE, Seen, disconnected, judge, launcher_gone, place, state_here

EVERY = 1.0
"""Seconds between two looks."""
WATCHED = 64
"""Of how many others each process keeps an eye."""
STACKS = 3.0
"""Seconds for all to write their stacks; whoever ends breaks the others' connections, and so what they would show."""
LAST_WORDS = 5.0
"""Seconds for what is still to be written before this process ends."""
UNWINDING = 20.0
"""Seconds for the main thread to come to its end by itself, when it knows of the verdict."""


@dataclass(slots=True)
class Watchdog:
    """Watches the others of one run; does nothing where there are none."""

    ranks: Ranks
    folder: Path
    """The run folder, for `stacks/rank-N.txt` when a process hangs."""
    last_words: Callable[[TutelageError], None] = lambda error: None
    """Called before this process is ended."""
    end: Callable[[int], Any] = os._exit
    _store: Any = None
    _seen: dict[int, Seen] = field(default_factory=dict)
    _left: str | None = None
    """Why this process left: an error's code, or nothing where all is well."""
    _leaving: threading.Event = field(default_factory=threading.Event)
    _verdict: TutelageError | None = None
    _judged: threading.Event = field(default_factory=threading.Event)
    _asked: bool = False
    """Whether the main thread waits for the verdict, and will end the process."""
    _calm: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _thread: threading.Thread | None = None
    _beats: int = 0

    def start(self) -> None:
        """Begin to watch; every process must, at the same point."""
        if self.ranks.alone:
            return
        rank, world = self.ranks.rank, self.ranks.world
        places = self.ranks.gather(place())
        following = [(rank + step) % world for step in range(world)]
        self._seen = {other: Seen(places[other]) for other in following[: WATCHED + 1]}
        port = int(os.environ["MASTER_PORT"])
        patience = timedelta(seconds=SILENT_ELSEWHERE)
        client = dist.TCPStore(os.environ["MASTER_ADDR"], port, is_master=False, timeout=patience)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = dist.PrefixStore(f"tutelage/watchdog/{attempt}", client)
        self._tell()
        self.ranks.gather(None)  # Now all have told something.
        with contextlib.suppress(AttributeError, ValueError, RuntimeError, OSError):
            # For a process that is kept so busy that none of its threads runs: the stacks go to its error stream.
            faulthandler.register(signal.SIGUSR2, all_threads=True)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; the others are told that this process is done, and that all is well."""
        self._leave("")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what a broken connection raises into an error that names the process at its other end.

        Raises:
            WorkerError: worker/lost, worker/hung.
        """
        if self.ranks.alone:
            yield
            return
        try:
            yield
        except BaseException as error:
            if isinstance(error, RuntimeError) and is_disconnection(error):
                raise self._who(error) from error
            # A launcher that lost one process tells the others to stop; that is not the reason.
            if isinstance(error, StopRequested) and self._judged.wait(2.5 * EVERY) and self._verdict is not None:
                raise self._who(RuntimeError(str(error))) from error
            self._leave(error.code if isinstance(error, TutelageError) else type(error).__name__)
            raise

    def _who(self, error: RuntimeError) -> TutelageError:
        """The verdict; it is waited for, since a connection breaks before anybody can know why."""
        self._asked = True
        self._calm.enter_context(SIGNALS.held())  # It ends here anyway.
        self._judged.wait(SILENT_ELSEWHERE + 2 * EVERY)
        found = self._verdict or WorkerError(disconnected(_first_line(error)))
        self._leave(found.code)
        return found

    def _leave(self, why: str) -> None:
        self._left = why
        self._leaving.set()
        if self._thread is not None:
            self._thread.join(3 * EVERY)
            with contextlib.suppress(RuntimeError):
                self._tell()

    def _tell(self) -> dict[str, Any]:
        self._beats += 1
        told = {**self.ranks.pulse.describe(), "beat": self._beats, "left": self._left}
        told["waiting"] = told["waiting"] or _in_a_collective()
        self._store.set(f"beat/{self.ranks.rank}", json.dumps(told))
        return told

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._leaving.wait(EVERY):
            now = time.monotonic()
            # After a machine slept there is one long look, which says nothing of the others.
            seconds, before = min(now - before, 2 * EVERY), now
            try:
                problem = self._look(seconds)
            except RuntimeError as error:
                agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
                problem = launcher_gone(_first_line(error), agent=agent)
            if problem is not None and not self._leaving.is_set():
                self._execute(TutelageError.of([problem]))

    def _look(self, seconds: float) -> Problem | None:
        """Tell, read what the others told, and find what is wrong with one of them."""
        self._tell()
        for seen, text in zip(
            self._seen.values(), self._store.multi_get([f"beat/{rank}" for rank in self._seen]), strict=True
        ):
            seen.look(json.loads(text), seconds)
        problem = judge(self._seen, self.ranks.rank, state_here)
        if problem is not None:  # The first verdict counts, so that all say the same.
            self._store.compare_set("verdict", "", json.dumps(asdict(problem)))
        return Problem(**json.loads(self._store.get("verdict"))) if self._store.check(["verdict"]) else None

    def _execute(self, error: TutelageError) -> None:
        """Say it and end; the main thread does so where it can, but need not come to an end."""
        self._verdict = error
        if error.code == "worker/hung":
            self._write_stacks(error)
            with contextlib.suppress(RuntimeError):
                self._await_stacks()
        self._judged.set()
        if self._asked and self._leaving.wait(UNWINDING):
            return
        speaker = threading.Thread(target=self.last_words, args=(error,), daemon=True)
        speaker.start()
        speaker.join(LAST_WORDS)
        with contextlib.suppress(OSError, ValueError):
            print(f"{error}\n  said by rank {self.ranks.rank}, which stops", file=sys.stderr, flush=True)
            sys.stdout.flush()
        self.end(error.exit_code)

    def _write_stacks(self, error: TutelageError) -> None:
        pulse, folder = self.ranks.pulse, self.folder / "stacks"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"rank-{self.ranks.rank}.txt").open("w", encoding="utf-8") as file:
                file.write(f"rank {self.ranks.rank}: {pulse.phase}, step {pulse.step}\n{error}\n\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)

    def _await_stacks(self) -> None:
        """Tell that the stacks of this process are written, and wait for those of the others that can."""
        self._store.set(f"stacks/{self.ranks.rank}", "")
        keys, end = [f"stacks/{rank}" for rank in self._seen], time.monotonic() + STACKS
        while not self._store.check(keys) and time.monotonic() < end:
            time.sleep(EVERY / 10)


@contextmanager
def watched(ranks: Ranks, folder: Path) -> Iterator[Watchdog]:
    """Inside, this process is watched by the others and watches them; they part at the end, where nobody failed."""
    watchdog = Watchdog(ranks, folder)
    with watchdog.explained():
        watchdog.start()
        yield watchdog
        ranks.meet()
    watchdog.stop()
    ranks.part()


def is_disconnection(error: RuntimeError) -> bool:
    """Whether a collective failed because the other side is gone."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()
    return any(words in text for words in ("gloo", "nccl", "connection closed", "connection reset", "broken pipe"))


def _in_a_collective() -> bool:
    """Whether the main thread is inside of `torch.distributed`: sharded layers meet where we do not see it."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    for _ in range(4):
        if frame is None:
            return False
        if f"torch{os.sep}distributed" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
