"""F1: killed without warning at random times, once or several times, and started again by the same command."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import jobs
import pytest
from harness import KILLED, Ended, Job, command_line, count, job, together, whole_lines
from outcomes import outcome

LONG_COUNTS = {"full": 200, "lora": 100}
"""Runs of two processes are killed in test_two_processes.py."""
SEVERAL = 4
"""Every how many trials a run is killed two to five times."""


@dataclass
class Seen:
    """What was found between the processes of a trial."""

    phases: Counter[str] = field(default_factory=Counter)
    redone: list[int] = field(default_factory=list)
    """Steps made a second time, of each process that went on."""


@pytest.mark.parametrize("variant", jobs.VARIANTS)
def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path, variant):
    r60, chance = job(variant), random.Random(f"F1 {variant}")
    assert r60.checkpoints
    plans = []
    for number in range(count({"full": 8, "lora": 4}[variant], LONG_COUNTS[variant])):
        kills = chance.randint(2, 5) if number % SEVERAL == SEVERAL - 1 else 1
        plans.append((tmp_path / str(number), [chance.random() for _ in range(kills)]))
    with outcome("F1", "kill -9 at random times, a quarter of the runs 2 to 5 times", variant) as found:
        seen = Seen()
        together([partial(found.check, partial(survive, r60, *plan, seen)) for plan in plans])
        phases = ", ".join(f"{many} {phase}" for phase, many in seen.phases.most_common())
        found.note = f"killed while: {phases}; at most {max(seen.redone)} steps made again"


def survive(r60: Job, folder: Path, moments: list[float], seen: Seen) -> None:
    """Kill a run at parts of the time that an unbroken one takes, go on, and compare."""
    expected, lines = 0, 0
    for moment in moments:
        trial = r60.begin(folder)
        time.sleep(moment * r60.seconds)
        trial.kill()
        end = trial.wait()
        assert end.code in (0, KILLED), end.said[-2000:]
        assert trial.leftovers() == []
        committed, before = expected, lines
        expected, lines = standing(folder / "run")
        note(seen, end, committed, before, lines)
        seen.phases[phase(folder / "run", lines, end.code)] += 1
        assert set(r60.true(folder)) >= ({expected} if expected else set()), "what was committed verifies"
    end = r60.done(folder)
    note(seen, end, expected, lines, jobs.STEPS)
    r60.same(folder)
    shutil.rmtree(folder)


def note(seen: Seen, end: Ended, committed: int, before: int, after: int) -> None:
    """A process that said that it goes on, or changed the journal, went on from the newest checkpoint."""
    if before and (end.resumed_after or after != before):
        assert end.resumed_after == committed, f"not from step {committed}, which was committed:\n{end.said[-2000:]}"
        seen.redone.append(max(0, before - end.resumed_after))


def standing(run: Path) -> tuple[int, int]:
    """The newest committed step, and the steps in the journal: at most an interval since the last save began."""
    names = [path.name for path in (run / "checkpoints").glob("*")]
    committed = max((int(name[5:]) for name in names if len(name) == 13), default=0)
    begun = max((int(name[6:14]) for name in names if name.endswith(".part")), default=committed)
    lines = whole_lines(run / "metrics.jsonl")
    assert lines - max(begun, committed) <= jobs.EVERY, f"{lines} steps, and the last save began at step {begun}"
    return committed, lines


def phase(run: Path, lines: int, code: int) -> str:
    """What a killed process was at."""
    if code == 0:
        return "done"
    if any((run / "checkpoints").glob(".*.part")):
        return "saving"
    return "starting" if not lines else "training" if lines < jobs.STEPS else "finishing"


def test_from_the_command_line(tmp_path):
    """A real process killed, and a real one that goes on and proves the model by a fresh one; with the same command."""
    r60 = job("lora")
    recipe, run = r60.write(tmp_path), tmp_path / "run"
    cache = r60.zygote.environment["TUTELAGE_CACHE"]
    with outcome("F1", "kill -9 of `tutelage train`, started by a shell's means", "lora") as found, found.trial():
        command = [sys.executable, "-m", "tutelage", "train", str(recipe), "--resume"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            until = time.monotonic() + 60
            while whole_lines(run / "metrics.jsonl") < 17 and time.monotonic() < until and process.poll() is None:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            said = process.stderr.read() if process.stderr else b""
        assert process.returncode == KILLED, said.decode()[-2000:]
        committed, lines = standing(run)
        end = command_line("train", recipe, "--resume", TUTELAGE_CACHE=cache)
        assert end.code == 0, end.said[-2000:]
        assert end.resumed_after == committed >= 12
        r60.same(tmp_path)
        found.note = f"killed after step {lines}, went on after step {committed}"
