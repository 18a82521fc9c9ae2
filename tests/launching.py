"""Several processes of one run, started as a launcher starts them: a store in this process, and the environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any


class Launched:
    """The processes of one start; none is left behind."""

    def __init__(self, world: int, command: Sequence[object], folder: Path, *, attempt: int = 0, **more: str) -> None:
        import torch.distributed as dist

        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(minutes=1))
        common = {
            "WORLD_SIZE": world,
            "LOCAL_WORLD_SIZE": world,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": self.store.port,
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": attempt,
            "OMP_NUM_THREADS": 1,
            **more,
        }
        self.attempt = attempt
        self.logs = [folder / f"rank-{attempt}-{rank}.log" for rank in range(world)]
        self.processes: list[subprocess.Popen[bytes]] = []
        for rank, log in enumerate(self.logs):
            own = {**common, "RANK": rank, "LOCAL_RANK": rank}
            with log.open("wb") as output:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, *map(str, command)],
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env={**os.environ, **{name: str(value) for name, value in own.items()}},
                    )
                )

    def __enter__(self) -> Launched:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)

    def send(self, rank: int, number: int = signal.SIGKILL) -> float:
        """Send a signal to one of them; when that was."""
        self.processes[rank].send_signal(number)
        return time.monotonic()

    def watched(self) -> bool:
        """Whether the processes have met and watch one another; before that only their launcher knows who is lost."""
        return bool(self.store.check([f"tutelage/watchdog/{self.attempt}/beat/{n}" for n in range(len(self.logs))]))

    def wait(self, seconds: float = 90.0) -> list[int]:
        """The exit codes of all."""
        end = time.monotonic() + seconds
        return [process.wait(max(0.1, end - time.monotonic())) for process in self.processes]

    def said(self, rank: int) -> str:
        """What a process wrote to its screen."""
        return self.logs[rank].read_text("utf-8", errors="replace")


def train(world: int, recipe: Path, *options: str, attempt: int = 0, **more: str) -> Launched:
    """`tutelage train` as so many processes."""
    return Launched(world, ["-m", "tutelage", "train", recipe, *options], recipe.parent, attempt=attempt, **more)


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    """Until it holds, looked at ten times a second."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
