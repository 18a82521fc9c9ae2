"""F17: a tracker that raises, hangs or is killed beside a run that is the unbroken one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from attempts import attempts
from harness import HERE, LONG, count, job, whole_lines
from outcomes import outcome

from brokentracker import broken_tracker

AFTER = 52
WAYS = [f"{what} in {where}" for what in ("raises", "sleeps") for where in ("init", "log", "finish")]


@pytest.mark.parametrize("way", WAYS if LONG else ["raises in log"])
def test_a_tracker_that_breaks_changes_nothing(tmp_path, way):
    r60, reached = job("lora"), []
    with outcome("F17", f"a tracker that {way}", "lora") as found:

        def trial(number: int) -> None:
            folder = tmp_path / str(number)
            if not LONG:
                r60.broken_off(folder, AFTER)
            named = broken_tracker(folder.parent / f"{number}-tracker", way)
            end = r60.begin(folder, [*HERE, ("patches:with_variables", named)], track={"to": ["wandb"]}).wait()
            _ended(folder)
            reached.append(Path(f"{named['FAKE_SERVER']}.reached").exists())
            assert end.code == 0, end.said
            assert end.err.count("note    wandb ") <= 1
            r60.same(folder)

        attempts(found, trial, list(range(count(1, 5))))
        found.note = f"it came so far before the run had ended in {sum(reached)}"


def test_a_follower_that_is_killed_changes_nothing(tmp_path):
    r60 = job("lora")
    with outcome("F17", "kill -9 of the tracker's process", "lora") as found:

        def trial(number: int) -> None:
            folder = tmp_path / str(number)
            r60.broken_off(folder, AFTER)
            named = broken_tracker(folder.parent / f"{number}-tracker", "sleeps in log")
            process = r60.begin(folder, [*HERE, ("patches:with_variables", named)], track={"to": ["wandb"]})
            while not process.ended.is_set() and whole_lines(folder / "run" / "metrics.jsonl") < 54:
                time.sleep(0.002)
            _ended(folder)
            end = process.wait()
            assert end.code == 0, end.said
            assert end.err.count("note    wandb ") == 1, end.err
            r60.same(folder)

        attempts(found, trial, list(range(count(1, 5))))


def _ended(folder: Path) -> None:
    """Kill the followers of the run."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"tutelage.track" in words and os.fsencode((folder / "run").resolve()) in words:
                os.kill(int(entry.name), signal.SIGKILL)
