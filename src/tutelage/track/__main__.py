"""The process of a follower: `python -m tutelage.track RUN --to NAME`, with a trainer or without."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import Timeout

from tutelage.runs import Run

QUIET_SECONDS = 30.0
"""Without anything new, after which a follower whose trainer is gone ends."""

ALONE_SECONDS = 3600.0
"""For which a follower may outlive its trainer, whatever its tracker does."""

BUSY_SECONDS = 10.0
"""For which catching up waits for another follower of the same tracker."""

ALL_SENT, NOT_ALL_SENT, BUSY = 0, 1, 3
"""How the process ends."""


def main() -> int:
    """Follow, and say by the exit code whether all was sent."""
    parser = argparse.ArgumentParser(prog="python -m tutelage.track")
    parser.add_argument("run", type=Path)
    parser.add_argument("--to", required=True)
    parser.add_argument("--trainer", type=int, help="the process that trains, which is this one's parent")
    parser.add_argument("--earlier", help="what tells the result.json of an earlier end, as INODE:NANOSECONDS")
    parser.add_argument("--follow", action="store_true", help="stay until the run has ended")
    given = parser.parse_args()
    _keep_out_of_the_way()

    from tutelage.track.follower import Follower

    lives = _parent_is(given.trainer) if given.trainer else lambda: bool(given.follow)
    inode, _, nanoseconds = (given.earlier or "").partition(":")
    follower = Follower(
        Run(given.run),
        given.to,
        lives=lives,
        patience=QUIET_SECONDS if given.trainer else 0.0,
        earlier=(int(inode), int(nanoseconds)) if inode else None,
    )
    if given.trainer:
        threading.Thread(target=_end_some_time, args=(lives,), daemon=True).start()
    try:
        return ALL_SENT if follower.follow(-1 if given.trainer else BUSY_SECONDS) else NOT_ALL_SENT
    except Timeout:
        return BUSY
    except KeyboardInterrupt:
        return NOT_ALL_SENT


def _parent_is(trainer: int) -> Callable[[], bool]:
    """A process whose parent dies is given another one, so a number that is used again deceives nobody."""
    return lambda: os.getppid() == trainer


def _keep_out_of_the_way() -> None:
    """The lowest priority: where the scheduler groups processes by session, of the group as well."""
    with suppress(OSError):
        os.nice(19)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("19", encoding="ascii")


def _end_some_time(lives: Callable[[], bool]) -> None:
    """End this process, were it hanging, when its trainer has been gone for long."""
    while lives():
        time.sleep(1)
    time.sleep(ALONE_SECONDS)
    os._exit(NOT_ALL_SENT)


if __name__ == "__main__":
    sys.exit(main())
