"""F1, F9 and F10: two processes, both killed; or one that is killed, or hangs.

Each takes seconds of start-up, so they are made at full counts only; tests/runs/test_many_processes.py has one of each.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import KILLED, LONG, count
from outcomes import outcome
from pair import KILLS, Pair, end_of

import launching
from launching import Launched

pytestmark = pytest.mark.skipif(not LONG, reason="of several processes one of each fault is in tests/runs")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair"))


def test_both_are_killed(pair: Pair) -> None:
    """At random times of a start, so that some of them end while they have not yet met."""
    chance, together = random.Random("F1"), []
    with outcome("F1", f"kill -9 of both of two processes at random times, {KILLS} times a run", "ranks2") as found:

        def kill(launched: Launched) -> None:
            time.sleep(chance.random() * (pair.start + pair.seconds / 2))
            together.append(launched.watched())
            first = chance.randrange(2)
            launched.send(first)
            launched.send(1 - first)
            codes = launched.wait(30)
            # Between the two kills the second may have seen that the first is gone.
            assert codes[first] in (0, KILLED)
            assert codes[1 - first] in (0, KILLED, 8), launched.said(1 - first)

        pair.broken_and_finished(found, "both", count(1, 15), kill)
        found.note = f"{sum(together)} while they trained together; the last trial of a run compares its end"


def test_one_of_two_is_killed(pair: Pair) -> None:
    chance, named = random.Random("F9"), []
    with outcome("F9", f"kill -9 of one of two processes at random times, {KILLS} times a run", "ranks2") as found:

        def kill(launched: Launched) -> None:
            launching.wait_for(launched.watched, 120)
            time.sleep(chance.random() * pair.seconds / 2)
            rank = chance.randrange(2)
            killed = launched.send(rank)
            code = launched.wait_for(1 - rank, 30)
            named.append(time.monotonic() - killed)
            said = launched.said(1 - rank)
            # It may have been over already.
            assert code == 0 or (code == 8 and f"rank {rank} is lost" in said), said
            assert named[-1] <= 10

        pair.broken_and_finished(found, "killed", count(1, 20), kill)
        found.note = f"the other ended after {max(named):.1f} s at most; the last trial of a run compares its end"


def test_a_launcher_that_restarts_goes_on(pair: Pair) -> None:
    """Killed at any time, also before the processes have met: the launcher starts them again by itself."""
    chance = random.Random("restarts")
    command = [*("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "8")]
    with outcome("F9", "the same under torchrun --max-restarts, 3 times a run", "ranks2") as found:
        for run in range(count(1, 8)):
            recipe = pair.recipe(f"restarted-{run}")
            with found.trial(), (pair.folder / f"restarted-{run}.log").open("wb") as log:
                launcher = subprocess.Popen(
                    [sys.executable, *command, "-m", "tutelage", "train", str(recipe), "--resume"],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
                try:
                    _kill_some(launcher, chance, pair.seconds + 10)
                    assert launcher.wait(240) == 0, Path(log.name).read_text()[-4000:]
                finally:
                    launcher.kill()
                assert end_of(recipe) == pair.end


def _kill_some(launcher: subprocess.Popen[bytes], chance: random.Random, seconds: float) -> None:
    """Three times one of the two processes that the launcher has started since the last time."""
    before: set[int] = set()

    def fresh() -> list[int]:
        return [pid for pid in _workers(launcher.pid) if pid not in before]

    for _ in range(3):
        launching.wait_for(lambda: launcher.poll() is not None or len(fresh()) == 2, 90)
        time.sleep(chance.random() * seconds)
        with contextlib.suppress(IndexError, ProcessLookupError):
            os.kill(fresh()[chance.randrange(2)], signal.SIGKILL)
        before.update(_workers(launcher.pid))


def test_one_of_two_hangs(pair: Pair) -> None:
    chance, named = random.Random("F10"), []
    with outcome("F10", "one of two processes is stopped by a signal", "ranks2") as found:
        for run in range(count(1, 20)):
            recipe = pair.recipe(f"hung-{run}", steps=100_000)
            with found.trial(), launching.train(2, recipe) as launched:
                launching.wait_for(lambda recipe=recipe: (recipe.with_suffix("") / "metrics.jsonl").exists(), 120)
                time.sleep(chance.random())
                rank = chance.randrange(2)
                stopped = launched.send(rank, signal.SIGSTOP)
                assert launched.wait_for(1 - rank, 60) == 8, launched.said(1 - rank)
                named.append(time.monotonic() - stopped)
                assert f"rank {rank} hangs" in launched.said(1 - rank)
                assert (recipe.with_suffix("") / "stacks" / f"rank-{1 - rank}.txt").stat().st_size > 0
        found.note = f"named after {min(named):.0f} to {max(named):.0f} s, stacks written"


def _workers(launcher: int) -> list[int]:
    """The processes that a launcher has started, in the order of their ranks."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == launcher and b"tutelage" in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
    return sorted(found)
