"""A request to stop in each phase of a run: saved, exit 75 soon, and the run goes on as if nothing had been."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attempts import attempts
from harness import HERE, LONG, Job, Trial, count, job, read_lines
from injections import told_lines
from outcomes import outcome

from tutelage.checkpoints import Checkpoints, verify

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
PHASES = {
    "load": "loading the model",
    "tokenise": "reading the data",
    "train": "training",
    "evaluate": ": held-out loss",
    "save": "save",
    "export": "saving, and loading again in a fresh process",
}
"""And the stage of the screen that tells it."""
LENGTH = {"load": 0.02, "tokenise": 0.02, "train": 0.3, "evaluate": 0.005, "save": 0.008, "export": 0.2}
"""Of each, as a share of the run or thereabouts."""
AFTER, INTERRUPTED = 50, 130
"""The latter is what a command ends with where SIGINT comes when nobody listens for it any more."""


@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_each_phase_stops_the_run_in_order(tmp_path, phase):
    r60 = job("lora")
    assert r60.reference
    with outcome("F7", f"SIGTERM, SIGINT, SIGUSR1, SIGHUP while it is in: {phase}", "lora") as found:
        attempts(found, partial(_stops, r60, tmp_path, phase), list(range(count(2, 50))))


def _stops(r60: Job, root: Path, phase: str, seed: int) -> None:
    draw, folder = random.Random(f"{phase}/{seed}"), root / f"{phase}-{seed}"
    fresh = LONG and draw.random() < 0.7
    if not fresh:
        r60.broken_off(folder, AFTER)
    sections = {"data": {"store": str(folder / "store")}} if phase == "tokenise" else {}
    name = SIGNALS[seed % len(SIGNALS)]
    end, late = stopped(
        r60,
        folder,
        PHASES[phase],
        [name],
        delay=draw.uniform(0, LENGTH[phase] * r60.seconds * (1 if fresh else 0.3)),
        nth=draw.randint(1, {"evaluate": 5, "save": 12}.get(phase, 1)) if fresh else 1,
        **sections,
    )
    if (end.code in (0, INTERRUPTED) or end.code < 0) and over_before(folder):
        same(r60, folder)  # The delay was longer than the phase, and the signal met a process that was leaving.
        return
    assert end.code == 75, f"exit code {end.code}\n{end.said[-2000:]}"
    assert late < 2 + r60.seconds / 10, f"exit {late:.1f} s after the signal"
    assert f"stopped on request ({name})" in end.err
    made = [line["step"] for line in read_lines(folder / "run" / "metrics.jsonl")]
    saved = verified(folder)
    if phase in ("train", "evaluate", "save") and made:
        assert f"after step {made[-1]}, which is saved" in end.err
        assert max(saved) == made[-1]
    assert LONG or seed or not saved or max(saved) >= AFTER - 5
    if LONG or seed == 0:
        r60.done(folder, **sections)
        same(r60, folder)


def verified(folder: Path) -> list[int]:
    """The steps of the checkpoints, which all verify."""
    found = Checkpoints(folder / "run" / "checkpoints")
    assert len(found.paths()) == len(found.all())
    for one in found.all():
        verify(one)
    return [one.step for one in found.all()]


def same(r60: Job, folder: Path) -> None:
    """The end is that of the unbroken run, but for checkpoints of the steps that it was stopped after."""
    for step in verified(folder):
        if step not in r60.checkpoints:
            shutil.rmtree(folder / "run" / "checkpoints" / f"step-{step:08}")
    r60.same(folder, kept=False)


def stopped(
    r60: Job, folder: Path, phase: str, names: list[str], *, delay: float, nth: int = 1, **sections: Any
) -> Any:
    """How the process ended, and how long after the last signal."""
    folder.mkdir(exist_ok=True)
    told = folder / "signals.jsonl"
    numbers = [int(getattr(signal, name)) for name in names]
    hook = {"phase": phase, "numbers": numbers, "delay": delay, "told": str(told), "nth": nth, "apart": 0.005}
    trial = r60.begin(folder, [*HERE, ("injections:signalled", hook)], **sections)
    end = trial.wait()
    ended = time.time()
    sent = told_lines(told)
    assert len(sent) >= 1 or over_before(folder), f"{phase} was not reached\n{end.said[-1000:]}"
    assert trial.leftovers() == []
    return end, ended - sent[-1]["at"] if sent else 0.0


def over_before(folder: Path) -> bool:
    """Whether the run had its result before a signal was sent."""
    result, sent = folder / "run" / "result.json", told_lines(folder / "signals.jsonl")
    return result.is_file() and all(line["at"] >= result.stat().st_mtime - 0.01 for line in sent)


@pytest.mark.parametrize("phase", ["training", "save", *(["loading the model", "reading the data"] if LONG else [])])
def test_a_second_signal_ends_at_once_without_damage(tmp_path, phase):
    r60 = job("lora")
    with outcome("F7", f"two signals while it is in: {phase}", "lora") as found, found.trial():
        r60.broken_off(tmp_path, AFTER)
        end, late = stopped(r60, tmp_path, phase, ["SIGTERM", "SIGTERM"], delay=0.05)
        # The first may have been answered in order before the second came, which then meets a process that is leaving.
        assert end.code in (128 + signal.SIGTERM, -signal.SIGTERM, 75), end.said
        assert late < 1 + r60.seconds / 10
        verified(tmp_path)
        r60.done(tmp_path)
        same(r60, tmp_path)


def heard(pid: int, number: int) -> bool:
    """Whether the process listens to a signal."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def test_a_signal_while_the_command_line_is_imported(tmp_path):
    """In a real process: the handlers must be there before the seconds that the imports take."""
    r60 = job("lora")
    recipe = r60.write(tmp_path)
    with outcome("F7", "SIGTERM, SIGINT, SIGUSR1, SIGHUP while it is in: import") as found:
        heard_after: list[float] = []

        def trial(seed: int) -> None:
            number = getattr(signal, SIGNALS[seed % 4])
            began = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-m", "tutelage", "train", str(recipe), "--resume", f"output={tmp_path / str(seed)}"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            try:
                # SIGINT is listened to by Python itself; SIGTERM tells when ours are there.
                while not heard(process.pid, signal.SIGTERM):
                    assert process.poll() is None, "it ended"
                    assert time.monotonic() - began < 20, "no handler was installed"
                    time.sleep(0.002)
                heard_after.append(time.monotonic() - began)
                time.sleep(random.Random(seed).uniform(0, count(1, 3) * 0.5))
                sent = time.monotonic()
                process.send_signal(number)
                said = process.communicate(timeout=30)[1]
            finally:
                process.kill()
                process.communicate()
            assert process.returncode == 75, f"{process.returncode}: {said}"
            assert "Traceback" not in said
            assert "stopped on request" in said
            assert time.monotonic() - sent < 2 + r60.seconds / 10

        attempts(found, trial, list(range(count(2, 50))))
        found.note = f"handlers installed after {max(heard_after):.2f} s at most"
        assert min(heard_after) < 1 + r60.seconds / 10


def test_a_process_that_sleeps_goes_on_where_it_was(tmp_path):
    """As a laptop that was closed; nothing takes the pause for a hang."""
    r60 = job("lora")
    with outcome("F8", f"SIGSTOP for {count(2, 20)} s, then SIGCONT", "lora") as found:

        def trial(seed: int) -> None:
            folder = tmp_path / str(seed)
            r60.broken_off(folder, AFTER)
            process: Trial = r60.begin(folder)
            while not process.err.exists() or "resume  after step" not in process.err.read_text("utf-8", "replace"):
                assert not process.ended.is_set()
                time.sleep(0.005)
            time.sleep(random.Random(seed).uniform(0, 0.2))
            process.kill(signal.SIGSTOP)
            time.sleep(count(2, 20))
            process.kill(signal.SIGCONT)
            end = process.wait()
            assert end.code == 0, end.said
            r60.same(folder)

        attempts(found, trial, list(range(count(1, 10))))
