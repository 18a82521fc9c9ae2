"""A follower's process: its command line, and where what it prints goes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from tutelage.runs import Run

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that decide how many threads a library starts."""


def spawn(run: Run, name: str, *more: str, detached: bool) -> subprocess.Popen[bytes]:
    """Start a follower; what it prints goes to `track/NAME.log`.

    `-P` keeps the current folder out of what it can import. Detached, it is in a session of its own, so that a key or
    a signal that ends the trainer's group does not end it.
    """
    folder = run.folder.resolve() / "track"
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "tutelage.track", str(run.folder.resolve()), "--to", name, *more],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **dict.fromkeys(THREADS, "1")},
            start_new_session=detached,
        )


def in_words(run: Run, names: Sequence[str]) -> str:
    """The command that sends what has not arrived."""
    return f"tutelage track {run.folder} {' '.join(f'--to {name}' for name in names)}"
