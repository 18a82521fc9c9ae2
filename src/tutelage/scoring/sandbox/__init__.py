"""Code that a model wrote, run where it can do no harm; and whether it passes its tests, which it cannot reach.

    this process ── order ──> jail.py: namespaces, file system, limits, filter
                                 process 1 ─┬─ worker.py   the program
                                            └─ checker.py  its tests ── verdict ──> this process

There is no network, no file of the machine but the interpreter's own, read-only, 64 MiB of memory to write files in,
and an end after some seconds; when process 1 ends, the kernel ends all the others. The program lives in another
process than its tests, so ending early or changing the tests proves nothing. Where a layer is missing, nothing runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tutelage.errors import MachineError, Problem

How = Literal["passed", "failed", "time", "output"]
_JAIL = Path(__file__).with_name("jail.py")
_NOBODY = 65534
_START = 30.0
"""Seconds for the sandbox to stand; a busy machine takes its time, and it is not the program's."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use."""

    seconds: float = 10.0
    """From its start to the verdict, by the clock."""
    cpu: int = 5
    """Seconds of computing, for the program and for its tests each."""
    memory: int = 512 << 20
    """Bytes of address space, for the program and for its tests each."""
    threads: int = 32
    file: int = 16 << 20
    """Bytes of one file."""
    work: int = 64 << 20
    """Bytes of all files."""
    files: int = 64
    """Open files."""
    output: int = 64 << 10
    """Bytes that it may print; more of them end it."""

    def as_given(self) -> dict[str, int]:
        """As the jail is told."""
        return {
            "RLIMIT_CPU": self.cpu,
            "RLIMIT_AS": self.memory,
            "RLIMIT_NPROC": self.threads,
            "RLIMIT_FSIZE": self.file,
            "RLIMIT_NOFILE": self.files,
            "RLIMIT_CORE": 0,
            "work": self.work,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a program."""

    how: How
    why: str
    """What went wrong, in words; empty when it passed."""
    output: str
    """What it printed."""
    seconds: float
    """From its start to the verdict, without the building of the sandbox."""

    @property
    def passed(self) -> bool:
        """Whether its tests ran to their end without an error."""
        return self.how == "passed"


def run(program: str, tests: str, limits: Limits | None = None) -> Outcome:
    """Run a program and, in another process, tests that call what it defines.

    Raises:
        MachineError: machine/no-sandbox, naming the layer that this system does not give. Nothing was run.
    """
    limits = limits or Limits()
    if not sys.platform.startswith("linux"):
        raise no_sandbox("linux", f"this is {platform.system()}")
    heard, tell = os.pipe()
    hear, said = os.pipe()
    command = [sys.executable, "-I", "-S", str(_JAIL), str(tell), str(hear)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={},
        cwd="/",
        pass_fds=(tell, hear),
        start_new_session=True,
    )
    os.close(tell)
    os.close(hear)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        order = {"program": _whole(program), "tests": _whole(tests), "limits": limits.as_given()}
        watch = _Watch(process, heard, said, limits)
        return watch.outcome(json.dumps(order).encode() + b"\n")
    finally:
        _end(process)
        os.close(heard)
        os.close(said)


def no_sandbox(layer: str, why: str) -> MachineError:
    """The error that names the missing layer."""
    return MachineError(
        Problem(
            "machine/no-sandbox",
            f"code that a model wrote is not run: this system lacks the layer `{layer}`",
            found=why,
            why="every layer of the sandbox must hold, or the code could reach this machine's files and network",
            fix="score it on a Linux machine that lets users make namespaces, or leave this task out",
        )
    )


@dataclass(slots=True)
class _Watch:
    """What is heard from the jail, and what it prints."""

    process: subprocess.Popen[bytes]
    heard: int
    said: int
    limits: Limits
    printed: bytearray = field(default_factory=bytearray)
    told: bytearray = field(default_factory=bytearray)

    def outcome(self, order: bytes) -> Outcome:
        """Give the order, and listen until there is a verdict, the time is up, or too much was printed."""
        _send(self.process, order)
        begun, until = 0.0, time.monotonic() + _START
        while (message := self._next(until)) is not None:
            if "missing" in message:
                raise no_sandbox(str(message["missing"]), str(message["why"]))
            if "ready" in message:
                os.write(self.said, b"+" if _set_ids(self.process.pid) else b"-")
            elif "begins" in message:
                begun = time.monotonic()
                until = begun + self.limits.seconds
            elif "passed" in message:
                how: How = "passed" if message["passed"] is True else "failed"
                return self._outcome(how, str(message.get("why", "")), begun)
        if not begun:
            raise no_sandbox("its processes", self._text() or "they could not be started")
        if len(self.printed) > self.limits.output:
            return self._outcome("output", f"it printed more than {self.limits.output:,} bytes", begun)
        if time.monotonic() >= until:
            return self._outcome("time", f"it took more than {self.limits.seconds:g} seconds", begun)
        return self._outcome("failed", "it ended without a verdict", begun)

    def _next(self, until: float) -> dict[str, Any] | None:
        """The next message; None at the end of the time, of the output allowed, or of the jail."""
        assert self.process.stdout is not None
        streams = {self.heard: self.told, self.process.stdout.fileno(): self.printed}
        while b"\n" not in self.told:
            ready = select.select(list(streams), [], [], max(until - time.monotonic(), 0))[0]
            if not ready:
                return None
            for stream in ready:
                block = os.read(stream, 65536)
                streams[stream].extend(block)
                if not block:
                    del streams[stream]
            if self.heard not in streams or len(self.printed) > self.limits.output:
                return None
        text, _, rest = bytes(self.told).partition(b"\n")
        self.told[:] = rest
        message: dict[str, Any] = json.loads(text)
        return message

    def _outcome(self, how: How, why: str, begun: float) -> Outcome:
        return Outcome(how, why, self._text(), time.monotonic() - begun)

    def _text(self) -> str:
        return bytes(self.printed[: self.limits.output]).decode("utf-8", "replace")


def _whole(text: str) -> str:
    """Text that can be sent: a lone half of a character, which no program can hold either, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _send(process: subprocess.Popen[bytes], order: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(order)
        process.stdin.close()


def _set_ids(pid: int) -> bool:
    """Give the jail's user namespace its one user, who is nobody outside where this process may say so."""
    mine = (os.geteuid(), os.getegid())
    pairs = [(_NOBODY, _NOBODY), mine] if mine[0] == 0 else [mine]
    folder = Path(f"/proc/{pid}")
    for user, group in pairs:
        try:
            if mine[0] != 0:
                (folder / "setgroups").write_text("deny")
            (folder / "uid_map").write_text(f"{_NOBODY} {user} 1")
            (folder / "gid_map").write_text(f"{_NOBODY} {group} 1")
        except OSError:
            continue
        return True
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the jail and, by it, everything inside; nothing is left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
