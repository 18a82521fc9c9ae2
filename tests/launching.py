"""Several processes of one run, started as a launcher starts them: a store in this process, and the environment.

They are forked from the warm process (warm.py), which has imported everything.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from warm import HERE, Hook, Trial, zygote


class Launched:
    """The processes of one start; none is left behind."""

    def __init__(
        self,
        world: int,
        argv: Sequence[object],
        *,
        attempt: int = 0,
        hooks: Mapping[int, Sequence[Hook]] | None = None,
        **more: str,
    ) -> None:
        """Start them; `hooks` are called first, by rank."""
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
        self.processes: list[Trial] = []
        for rank in range(world):
            own = {**common, "RANK": rank, "LOCAL_RANK": rank}
            environment = {name: str(value) for name, value in own.items()}
            self.processes.append(zygote().start(*argv, before=[*HERE, *(hooks or {}).get(rank, ())], **environment))

    def __enter__(self) -> Launched:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.kill()
            process.wait(10)

    def send(self, rank: int, number: int = signal.SIGKILL) -> float:
        """Send a signal to one of them; when that was."""
        self.processes[rank].kill(number)
        return time.monotonic()

    def watched(self) -> bool:
        """Whether the processes have met and watch one another; before that only their launcher knows who is lost."""
        return bool(
            self.store.check([f"tutelage/watchdog/{self.attempt}/beat/{n}" for n in range(len(self.processes))])
        )

    def wait(self, seconds: float = 90.0) -> list[int]:
        """The exit codes of all."""
        end = time.monotonic() + seconds
        return [self.wait_for(rank, max(0.1, end - time.monotonic())) for rank in range(len(self.processes))]

    def wait_for(self, rank: int, seconds: float) -> int:
        """The exit code of one."""
        return self.processes[rank].wait(seconds).code

    def said(self, rank: int) -> str:
        """What a process wrote to its screen."""
        return self.processes[rank].said


def train(world: int, recipe: Path, *options: str, **more: Any) -> Launched:
    """`tutelage train` as so many processes."""
    return Launched(world, ["train", recipe, *options], **more)


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    """Until it holds, looked at ten times a second."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
