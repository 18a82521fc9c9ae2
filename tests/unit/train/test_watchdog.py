"""Who is named when a process of a run dies, fails, hangs or is stopped, and who is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import launching
from tutelage.train import verdict
from tutelage.train.pulse import LIMITS, SLOWEST_FIRST_STEP, Pulse
from tutelage.train.verdict import Seen, judge, place, state_here

DRIVER = Path(__file__).with_name("rank_driver.py")


def _seen(machine: str = "here", **told: Any) -> Seen:
    known = {"phase": "training", "step": 7, "done": 1, "waiting": False, "limit": 30.0, "left": None, "beat": 1}
    return Seen({"machine": machine, "host": "h", "pid": 11, "born": "1"}, {**known, **told})


def _judged(other: Seen, own: Seen | None = None, state: str = "running") -> tuple[str, str] | None:
    found = judge({0: own or _seen(waiting=True), 1: other}, 0, lambda place: state)
    return None if found is None else (found.code, found.found or found.what)


def _after(seconds: float, other: Seen, *, silent: bool) -> Seen:
    for _ in range(int(seconds)):
        other.look(dict(other.told) if silent else {**other.told, "beat": other.told["beat"] + 1}, 1.0)
    return other


def test_a_process_that_is_gone_is_named_at_once() -> None:
    assert _judged(_seen()) is None
    found = judge({0: _seen(), 1: _seen()}, 0, lambda place: "gone")
    assert found is not None
    assert found.code == "worker/lost"
    assert "rank 1" in found.what
    assert "process 11 on h" in found.where
    assert "training, step 7" in found.where
    assert "--resume" in found.fix


def test_one_that_left_well_is_not_missed() -> None:
    assert _judged(_after(500, _seen(left=""), silent=True), state="gone") is None


def test_one_that_failed_is_given_time_to_say_so_itself() -> None:
    assert _judged(_after(5, _seen(left="machine/disk-full"), silent=True), state="gone") is None
    failed = _judged(_after(6, _seen(left="machine/disk-full"), silent=True), state="gone")
    assert failed == ("worker/lost", "it stopped with machine/disk-full")
    stopped = _judged(_after(6, _seen(left="StopRequested"), silent=True), state="gone")
    assert stopped == ("run/stopped", "rank 1 was asked to stop")


def test_another_machine_is_dead_after_eight_seconds_of_silence_while_it_trains() -> None:
    assert _judged(_after(8, _seen("there"), silent=True)) is None
    lost = _judged(_after(9, _seen("there"), silent=True))
    assert lost is not None
    assert lost[0] == "worker/lost"
    assert "9 seconds" in lost[1]
    loading = _seen("there", phase="loading", limit=7200.0)
    assert _judged(_after(300, loading, silent=True)) is None
    assert _judged(_after(301, loading, silent=True)) is not None


def test_a_stopped_process_hangs_and_a_busy_one_does_not() -> None:
    assert _judged(_after(26, _seen(), silent=True), state="stopped") is None
    assert _judged(_after(27, _seen(), silent=True), state="stopped") == ("worker/hung", "it was stopped by a signal")
    assert _judged(_after(300, _seen(phase="loading", limit=7200.0), silent=True)) is None
    loading = _seen(phase="loading", limit=7200.0)
    assert _judged(_after(27, loading, silent=True), own=loading, state="stopped") is not None


def test_no_progress_is_a_hang_unless_it_waits_for_another() -> None:
    assert _judged(_after(26, _seen(), silent=False)) is None
    hung = _judged(_after(27, _seen(), silent=False))
    assert hung is not None
    assert hung[0] == "worker/hung"
    assert "waits for nobody" in hung[1]
    assert _judged(_after(31, _seen(waiting=True), silent=False)) is None
    deadlock = _judged(_after(31, _seen(waiting=True), silent=False), own=_after(31, _seen(waiting=True), silent=False))
    assert deadlock is not None
    assert "wait for each other" in deadlock[1]


def test_a_sleeping_machine_has_missed_nothing() -> None:
    other = _seen()
    for _ in range(60):
        other.look({**other.told, "beat": other.told["beat"] + 1, "done": other.told["done"] + 1}, 2.0)
    assert (other.silent, other.still) == (0.0, 0.0)


def test_the_limit_follows_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("tutelage.train.pulse.time.monotonic", lambda: now)
    pulse = Pulse()
    assert pulse.limit() == LIMITS["starting"]
    for step, seconds in enumerate([0.0, 0.5, 0.5, 90.0], start=1):
        now += seconds
        pulse.begin(step)
    assert pulse.limit() == 30.0
    with pulse.during("saving"):
        now += 1000.0
        assert pulse.limit() == LIMITS["saving"]
    for step in range(5, 9):
        pulse.begin(step)
        now += 4.0
    assert pulse.limit() == 80.0  # the time for saving is no step's
    fresh = Pulse()
    fresh.begin(1)
    assert fresh.limit() == SLOWEST_FIRST_STEP
    done = fresh.done
    with fresh.meeting():
        assert fresh.waiting
    assert not fresh.waiting
    assert fresh.done == done + 1


def test_whether_a_process_is_there() -> None:
    assert state_here(place()) == "running"
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        where: Mapping[str, Any] = {**place(), "pid": child.pid, "born": verdict._born(child.pid)[1]}
        os.kill(child.pid, 19)
        launching.wait_for(lambda: state_here(where) == "stopped", 5)
        child.kill()
        launching.wait_for(lambda: state_here(where) == "gone", 5)  # a zombie, until it is waited for
    finally:
        child.kill()
        child.wait(5)
    assert state_here(where) == "gone"


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("dies", 8, "error[worker/lost]: rank 1 is lost"),
        ("fails", 8, "it stopped with machine/disk-full"),
        ("hangs", 8, "error[worker/hung]: rank 1 hangs"),
        ("nothing", 0, '{"done": 0}'),
    ],
)
def test_the_other_process_says_it_and_stops(tmp_path: Path, fault: str, code: int, words: str) -> None:
    began = time.monotonic()
    with launching.Launched(2, [DRIVER, "watch", fault], STACKS=str(tmp_path)) as launched:
        codes = launched.wait(90)
        said = launched.said(0)
    assert codes[0] == code, said
    assert words in said
    assert codes[1] == {"dies": -9, "fails": 5, "hangs": 8, "nothing": 0}[fault]
    assert time.monotonic() - began < 60
    if fault == "hangs":
        stacks = [(tmp_path / "stacks" / f"rank-{rank}.txt").read_text() for rank in range(2)]
        assert "all_reduce" in stacks[0]
        assert "rank_driver.py" in stacks[1]
        assert "in watch" in stacks[1]
