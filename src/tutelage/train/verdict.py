"""What is said of a process that died or hangs: from what it told, when, and whether it is still there.

dead      its process is gone; or, on another machine, it has told nothing for 8 seconds
failed    it told that it stopped with an error, and this process has not been told in another way
hung      it tells that it makes no progress and waits for nobody, longer than its phase's limit; or it is there and
          tells nothing, as when it was stopped
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.errors import Problem

SILENT_ELSEWHERE = 8.0
"""Seconds after which a process on another machine that tells nothing counts as dead, while it trains."""
SILENT_BUSY = 300.0
"""Seconds that a process may tell nothing in other phases, where one long call can keep its threads from running."""
SAYING = 4.0
"""Seconds that two looks and the writing of stacks take; so much before its limit a process is judged."""
STILL_STOPPED = 30.0
"""Seconds within which a process on this machine that a signal stopped is named as hung."""
FAREWELL = 5.0
"""Seconds after which the failure of another process ends this one."""
STOPPED = ("run/stopped", "StopRequested")
"""What a process leaves with that was asked to."""
RESTART = (
    "run the same command again with --resume; `torchrun --max-restarts 3` does it by itself when a process is lost"
)


@dataclass(slots=True)
class Seen:
    """What is known of a process."""

    place: dict[str, Any]
    """Its machine and its number there, told at the first meeting."""
    told: dict[str, Any] = field(default_factory=dict)
    silent: float = 0.0
    """Seconds since it told something."""
    still: float = 0.0
    """Seconds since it made progress."""

    def look(self, told: dict[str, Any], seconds: float) -> None:
        """It told this, so many seconds after the look before."""
        self.silent = 0.0 if told.get("beat") != self.told.get("beat") else self.silent + seconds
        self.still = 0.0 if told.get("done") != self.told.get("done") else self.still + seconds
        self.told = told

    @property
    def limit(self) -> float:
        """Seconds after which it is judged, so that all is said within the limit that it told."""
        return float(self.told["limit"]) - SAYING

    @property
    def gone_well(self) -> bool:
        """Whether it left and said that all is well."""
        return self.told["left"] == ""


def place() -> dict[str, Any]:
    """Where this process is, so that others on the same machine can see whether it is still there."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        machine = socket.gethostname()
    return {"host": socket.gethostname(), "machine": machine, "pid": os.getpid(), "born": _born(os.getpid())[1]}


def judge(seen: Mapping[int, Seen], own: int, state: Callable[[Mapping[str, Any]], str]) -> Problem | None:
    """What is wrong with one of the processes; this one, `own`, is among them.

    `state` says of a place on this machine `running`, `stopped` or `gone`.
    """
    others = {rank: one for rank, one in seen.items() if rank != own and not one.gone_well}
    here = {rank: one.place["machine"] == seen[own].place["machine"] for rank, one in others.items()}
    for rank, one in others.items():
        if one.told["left"] is not None and one.silent > FAREWELL:
            if one.told["left"] in STOPPED:
                return Problem("run/stopped", f"rank {rank} was asked to stop", _where(rank, one), fix=RESTART)
            return _lost(rank, one, f"it stopped with {one.told['left']}")
        if one.told["left"] is None and here[rank] and state(one.place) == "gone":
            return _lost(rank, one, "its process is gone: it was killed, or it crashed")
        patience = SILENT_ELSEWHERE if one.told["phase"] == "training" else SILENT_BUSY
        if one.told["left"] is None and not here[rank] and one.silent > patience:
            return _lost(
                rank, one, f"it has told nothing for {one.silent:.0f} seconds: it, its machine or the way to it is gone"
            )
    for rank, one in others.items():
        limit = one.limit
        stopped = here[rank] and state(one.place) == "stopped"
        # What is stopped does nothing, whichever phase it is in.
        if one.silent > (STILL_STOPPED - SAYING if stopped else min(limit, SILENT_BUSY)):
            return _hung(rank, one, "it was stopped by a signal" if stopped else "it is there and tells nothing")
        if one.still > limit and not one.told["waiting"]:
            return _hung(rank, one, f"no progress for {one.still:.0f} seconds, and it waits for nobody")
    if others and all(one.still > one.limit for one in (*others.values(), seen[own])):
        return _hung(own, seen[own], "all processes that are watched wait for each other")
    return None


def state_here(where: Mapping[str, Any]) -> str:
    """Of a process on this machine: `running`, `stopped` or `gone`."""
    letter, born = _born(where["pid"])
    if letter is None:
        try:
            os.kill(where["pid"], 0)
        except ProcessLookupError:
            return "gone"
        except OSError:
            pass  # It is there, and belongs to somebody else.
        return "running"
    if letter in "ZX" or born != where["born"]:
        return "gone"
    return "stopped" if letter in "Tt" else "running"


def launcher_gone(said: str, *, agent: bool) -> Problem:
    """The store that all of them talk to does not answer."""
    who = "the launcher (torchrun)" if agent else "rank 0, which held the processes together,"
    return Problem("worker/lost", f"{who} is gone", where=who.rstrip(","), found=said, fix=RESTART)


def disconnected(said: str) -> Problem:
    """A connection broke, and nobody was found missing."""
    return Problem("worker/lost", "another process of the run broke its connection", found=said, fix=RESTART)


def _born(pid: int) -> tuple[str | None, str | None]:
    """The letter of a process's state, and when it began, as Linux tells them."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None, None
    return fields[0], fields[19]


def _lost(rank: int, one: Seen, found: str) -> Problem:
    return Problem("worker/lost", f"rank {rank} is lost", _where(rank, one), found, fix=RESTART)


def _hung(rank: int, one: Seen, found: str) -> Problem:
    why = "the stacks of the processes that could still write them are in the run folder, stacks/rank-N.txt"
    return Problem("worker/hung", f"rank {rank} hangs", _where(rank, one), found, why, RESTART)


def _where(rank: int, one: Seen) -> str:
    at = f"{one.told['phase']}, step {one.told['step']}"
    return f"rank {rank}, process {one.place['pid']} on {one.place['host']}, last seen at: {at}"
