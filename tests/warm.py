"""The client of the warm process (zygote.py): children that are started, signalled and waited for."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 120.0
"""Seconds after which a process counts as hung."""
KILLED = -int(signal.SIGKILL)
Hook = tuple[str, dict[str, Any]]
"""A function `module:name` that a child calls before it runs, and its arguments; they travel as JSON."""
HERE: tuple[Hook, ...] = (("patches:prove_here", {}),)
"""What every child of the harness calls: the model is proved by the same process."""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """As in a shell; negative for a signal."""
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        """Everything that it printed."""
        return self.out + self.err

    @property
    def resumed_after(self) -> int:
        """The step after which it went on; 0 where it began at the beginning."""
        found = re.search(r"resume +after step ([0-9,]+)", self.said)
        return int(found[1].replace(",", "")) if found else 0


@dataclass
class Trial:
    """A process under way, in a group of its own."""

    pid: int
    out: Path
    err: Path
    began: float = field(default_factory=time.monotonic)
    code: int | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, if it still runs."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self.out.read_text("utf-8", "replace") + self.err.read_text("utf-8", "replace")

    def wait(self, seconds: float = PATIENCE) -> Ended:
        """Until it ended; one that does not is killed, and the test fails."""
        if not self.ended.wait(seconds):
            self.kill()
            raise AssertionError(f"still running after {seconds} s:\n{self.err.read_text('utf-8')[-2000:]}")
        assert self.code is not None
        took = time.monotonic() - self.began
        return Ended(self.code, self.out.read_text("utf-8"), self.err.read_text("utf-8", "replace"), took)

    def leftovers(self) -> list[str]:
        """Processes of its group that outlived it."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text("utf-8").rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self.pid and fields[0] != "Z":
                found.append(path.parent.name)
        return found


class Zygote:
    """The warm process; see zygote.py."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = environment
        self._trials: dict[int, Trial] = {}
        self._started: dict[int, threading.Event] = {}
        self._pids: dict[int, int] = {}
        self._lock = threading.Lock()
        self._number = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._ready = threading.Event()
        self._reader.start()
        self._ready.wait(PATIENCE)
        assert self._process.poll() is None, "the warm process did not start"

    def start(
        self,
        *argv: object,
        before: Sequence[Hook] = HERE,
        call: Hook | None = None,
        cwd: Path | None = None,
        **environment: str,
    ) -> Trial:
        """A child that runs `tutelage ARGV`, or `call`, after what `before` names."""
        with self._lock:
            number = self._number = self._number + 1
        out, err = (self.folder / f"{number}.{name}" for name in ("out", "err"))
        request = {"id": number, "out": str(out), "err": str(err), "before": list(before), "environment": environment}
        request |= {"argv": [str(one) for one in argv]} if call is None else {"call": call}
        request |= {} if cwd is None else {"cwd": str(cwd)}
        trial = Trial(0, out, err)
        self._trials[number], self._started[number] = trial, threading.Event()
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        assert self._started[number].wait(PATIENCE), "no child was started"
        return trial

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._reader.join(10)
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "ready" in told:
                self._ready.set()
            elif "pid" in told:
                self._trials[told["id"]].pid = told["pid"]
                self._started[told["id"]].set()
            else:
                trial = self._trials.pop(told["id"])
                trial.code = os.waitstatus_to_exitcode(told["status"])
                trial.ended.set()
        self._process.wait()  # It ends where it cannot import, or when it is closed.
        self._ready.set()


@functools.cache
def place() -> Path:
    """A folder for what the runs of this session share; it goes with the session."""
    folder = Path(tempfile.mkdtemp(prefix="tutelage-warm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def zygote() -> Zygote:
    """The warm process of this session, with a cache of its own."""
    warm = Zygote(place() / "zygote", TUTELAGE_CACHE=str(place() / "cache"))
    atexit.register(warm.close)
    return warm
