"""F1 and F9 to F11: two processes, both killed; or one that is killed, hangs, or alone is asked to stop.

Each takes seconds of start-up, so they are made at full counts only; tests/runs/test_many_processes.py has one of each.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import KILLED, LONG, count
from injections import broken
from outcomes import Outcome, outcome

import launching
import tinyruns
from conftest import make_model
from launching import Launched

pytestmark = pytest.mark.skipif(not LONG, reason="of several processes one of each fault is in tests/runs")

STEPS, EVERY, KILLS = 60, 5, 4
"""Of a run, between two checkpoints, and how often one run is killed."""


class Pair:
    """A recipe for two processes, and what its unbroken run comes to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_model(folder / "model")
        tinyruns.write_rows(folder / "rows.jsonl", tinyruns.demonstrations(45))
        whole = self.recipe("unbroken")
        launched_at = time.monotonic()
        with launching.train(2, whole, "--resume") as launched:
            launching.wait_for(launched.watched, 120)
            began = time.monotonic()
            assert launched.wait(240) == [0, 0], launched.said(0)
            self.start, self.seconds = began - launched_at, time.monotonic() - began
        self.end = _end(whole)

    def recipe(self, name: str, *, guard: dict[str, Any] | None = None, **train: Any) -> Path:
        """A new run of the same."""
        values = tinyruns.recipe(
            self.folder / "model",
            self.folder / "rows.jsonl",
            self.folder / name,
            model={"adapter": {"kind": "lora", "rank": 4, "dropout": 0.1}},
            train={"global_batch_size": 8, "steps": STEPS, **train},
            checkpoint={"every": EVERY},
            guard=guard or {},
        )
        return tinyruns.write_recipe(self.folder / f"{name}.yaml", values)

    def broken_and_finished(self, found: Outcome, name: str, runs: int, kill: Callable[[Launched], None]) -> None:
        """So many runs, each broken off some times by `kill`, and then brought to the end of the unbroken one."""
        for run in range(runs):
            recipe = self.recipe(f"{name}-{run}")
            for attempt in range(KILLS):
                with found.trial(), launching.train(2, recipe, "--resume", attempt=attempt) as launched:
                    kill(launched)
            with found.trial():
                self.finished(recipe, KILLS)

    def finished(self, recipe: Path, attempt: int) -> None:
        """Go on to the end and compare with the unbroken run."""
        with launching.train(2, recipe, "--resume", attempt=attempt) as launched:
            codes = launched.wait(240)
            assert codes == [0, 0], launched.said(0) + launched.said(1)
        assert _end(recipe) == self.end


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
                assert _end(recipe) == pair.end


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


def test_only_one_of_two_is_asked_to_stop(pair: Pair) -> None:
    chance = random.Random("F11")
    with outcome("F11", "SIGTERM to one of two processes while they train", "ranks2") as found:
        for run in range(count(1, 30)):
            recipe = pair.recipe(f"asked-{run}")
            with found.trial():
                with launching.train(2, recipe, "--resume") as launched:
                    journal = recipe.with_suffix("") / "metrics.jsonl"
                    launching.wait_for(lambda journal=journal: journal.exists(), 120)
                    time.sleep(chance.random() / 4)
                    launched.send(chance.randrange(2), signal.SIGTERM)
                    codes = launched.wait(60)
                    assert codes in ([75, 75], [0, 0]), launched.said(0) + launched.said(1)
                pair.finished(recipe, 1)


@pytest.mark.parametrize("policy", ["skip", "rollback", "stop"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_only_one_of_two_computes_what_is_not_finite(pair: Pair, value: str, policy: str) -> None:
    """Whichever it is, both leave the same step out: otherwise their weights would go apart, and so would the ends."""
    at, ends = 7, []
    with outcome("F11", f"{value} in the loss of one of two processes: {policy}", "ranks2") as found:
        for rank in (0, 1):
            name = f"{value}-{policy}-{rank}"
            recipe = pair.recipe(name, steps=12, guard={"non_finite": policy})
            told = pair.folder / f"{name}.jsonl"
            breaks = (
                "injections:breaking",
                {"kind": "loss", "at": [at], "told": str(told), "factor": value, "once": True},
            )
            with found.trial(), launching.train(2, recipe, hooks={rank: [breaks]}) as launched:
                codes = launched.wait(120)
                assert at in broken(told)
                if policy == "stop":
                    assert codes == [6, 6], launched.said(0) + launched.said(1)
                    assert f"step {at}: loss" in launched.said(0)
                    continue
                assert codes == [0, 0], launched.said(0) + launched.said(1)
                lines = [
                    json.loads(line) for line in (recipe.with_suffix("") / "metrics.jsonl").read_text().splitlines()
                ]
                assert [line["step"] for line in lines if line["skipped"]] == [at]
                assert "rows.jsonl:" in launched.said(0)
                ends.append(
                    {name: what for name, what in _end(recipe).items() if name != "metrics"}
                )  # Other rows are named.
        assert policy == "stop" or ends[0] == ends[1]


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


def _end(recipe: Path) -> dict[str, str]:
    """Digests of what a run came to."""
    folder = recipe.with_suffix("")
    last = max((folder / "checkpoints").glob("step-????????"))
    found = [*last.glob("*.safetensors"), last / "state.json", *(folder / "model").glob("*.safetensors")]
    digests = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if k not in ("seconds", "peak_memory_bytes")} for line in lines]
    return {**digests, "metrics": json.dumps(kept), "evaluations": (folder / "evaluations.jsonl").read_text()}
