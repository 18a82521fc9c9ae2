"""Disks that are full, or may not be written: what was saved stays, the error has figures, and the run can go on."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attempts import attempts
from harness import HERE, LONG, Ended, Job, job, whole_lines
from injections import FILLER
from outcomes import outcome

from tutelage.checkpoints import Checkpoints, verify

MIB = 1 << 20
FREE = re.compile(r"[0-9][0-9.,]* ([kMG]?B|bytes) (are|is) free")
NEEDED = re.compile(
    r"[0-9][0-9.,]* ([kMG]?B|bytes) (are|is) needed|needs? [0-9][0-9.,]* ([kMG]?B|bytes)|write [0-9][0-9.,]*"
)

AFTER = 50
"""In the fast slice the disk is filled in a run that goes on after this step."""
POINTS = {
    "token store": ("store", 1),
    "run.json": ("run.json", 1),
    "recipe.yaml": ("recipe.yaml", 1),
    "data.json": ("data.json", 1),
    "base.json": ("base.json", 1),
    "metrics": ("metrics.jsonl", 3),
    "evaluations": ("evaluations.jsonl", 1),
    "weights of a checkpoint": ("model.safetensors", 1),
    "optimizer of a checkpoint": ("optimizer.safetensors", 2),
    "position of a checkpoint": ("state.json", 2),
    "manifest": ("manifest.json", 2),
    "export": ("model", 1),
    "result.json": ("result.json", 1),
    "report": ("report.html", 1),
}
FAST = (("token store", 0), ("optimizer of a checkpoint", 100_000), ("manifest", 0), ("export", 50_000))
TRIALS = [(point, leave) for point in POINTS for leave in (0, 5_000, 100_000)] if LONG else FAST
AT_THE_START = ("run.json", "recipe.yaml", "data.json", "base.json", "token store")


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes in memory."""
    folder.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def whole(run: Path) -> list[int]:
    """The steps of the checkpoints; whatever has a checkpoint's name is one."""
    found = Checkpoints(run / "checkpoints")
    assert len(found.paths()) == len(found.all())
    for one in found.all():
        verify(one)
    return [one.step for one in found.all()]


def refused(end: Ended, where: Path, *, code: str = "machine/disk-full") -> None:
    """Exit 5, naming the place and both figures, and no traceback."""
    assert end.code == 5, end.said
    assert f"error[{code}]" in end.err
    assert str(where) in end.err
    assert "Traceback" not in end.err
    if code == "machine/disk-full":
        assert FREE.search(end.err), f"it does not say what is free:\n{end.err}"
        if "/checkpoints" in end.err.partition("error[")[2] or ".json" in end.err.partition("error[")[2]:
            assert NEEDED.search(end.err), f"it does not say what is needed:\n{end.err}"


def test_a_disk_that_fills_up_costs_nothing_that_was_saved(tmp_path):
    r60 = job("lora")
    assert r60.reference
    with outcome("F6", "a tmpfs that fills up at points from the token store to the report", "lora") as found:
        attempts(found, partial(_fills_up, r60, tmp_path), TRIALS)


def _fills_up(r60: Job, root: Path, trial: tuple[str, int]) -> None:
    point, leave = trial
    name, nth = POINTS[point]
    with disk(root / f"{point}-{leave}".replace(" ", "-"), 64 * MIB) as mounted:
        folder, sections = mounted / "job", {"checkpoint": {"wait": 0}, "data": {"store": str(mounted / "store")}}
        fresh = LONG or point in AT_THE_START
        if not fresh:
            r60.broken_off(folder, AFTER)
        before = whole(folder / "run")
        hook = ("injections:filling", {"disk": str(mounted), "name": name, "nth": nth, "leave": leave})
        end = r60.begin(folder, [*HERE, hook], **sections).wait()
        assert (mounted / FILLER).exists(), f"the disk was not filled\n{end.said}"
        if end.code:
            refused(end, mounted)
        else:
            assert leave  # What was left was enough.
        after = whole(folder / "run")
        assert not before or max(after) >= max(before)
        r60.true(folder)
        (mounted / FILLER).unlink()
        r60.done(folder, **sections)
        r60.same(folder)


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "optimizer.safetensors", *(["manifest.json", "model"] if LONG else [])]
)
def test_a_run_that_waits_for_room_goes_on_when_there_is_some(tmp_path, name):
    r60 = job("lora")
    with (
        outcome("F6", f"full at {name}, with room 2 s later, checkpoint.wait=60", "lora") as found,
        found.trial(),
        disk(tmp_path / "disk", 64 * MIB) as mounted,
    ):
        folder = mounted / "job"
        r60.broken_off(folder, AFTER)
        full = {"disk": str(mounted), "name": name, "nth": 1, "freed_after": 2.0}
        end = r60.done(folder, [*HERE, ("injections:filling", full)], checkpoint={"wait": 60})
        assert not (mounted / FILLER).exists()
        assert "is full; waiting up to 60 s for room" in end.err
        r60.same(folder)


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "optimizer.safetensors", "manifest.json"] if LONG else ["manifest.json"]
)
def test_a_signal_ends_the_wait_for_room(tmp_path, name):
    r60 = job("lora")
    with (
        outcome("F6", f"SIGTERM while room is waited for at {name}", "lora") as found,
        found.trial(),
        disk(tmp_path / "disk", 64 * MIB) as mounted,
    ):
        folder = mounted / "job"
        r60.broken_off(folder, AFTER)
        hook = ("injections:filling", {"disk": str(mounted), "name": name, "nth": 1})
        trial = r60.begin(folder, [*HERE, hook], checkpoint={"wait": 600})
        _until(lambda: (mounted / FILLER).exists() and "waiting up to" in trial.err.read_text(), trial)
        began = time.monotonic()
        trial.kill(signal.SIGTERM)
        end = trial.wait(30)
        found.note = f"ended after {time.monotonic() - began:.1f} s"
        assert time.monotonic() - began < 4
        assert end.code in (5, 75), end.said
        (mounted / FILLER).unlink()
        r60.done(folder)
        r60.same(folder)


def _until(reached: Any, trial: Any, seconds: float = 60) -> None:
    began = time.monotonic()
    while not reached():
        assert time.monotonic() - began < seconds, trial.err.read_text()
        assert not trial.ended.is_set(), trial.err.read_text()
        time.sleep(0.01)


@pytest.mark.parametrize("most", [100_000, 500_000, 650_000] if LONG else [500_000])
def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path, most):
    """EFBIG, which a limit of the process gives."""
    r60 = job("lora")
    with outcome("F6", f"RLIMIT_FSIZE of {most:,} bytes", "lora") as found, found.trial():
        r60.broken_off(tmp_path, AFTER)
        before = whole(tmp_path / "run")
        hook = ("injections:smaller_files", {"most": most})
        end = r60.begin(tmp_path, [*HERE, hook], checkpoint={"wait": 0}).wait()
        refused(end, tmp_path)
        assert whole(tmp_path / "run") == before
        r60.done(tmp_path)
        r60.same(tmp_path)


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Nothing in the folder can be written, not even by root; a file system that is in use cannot be remounted."""
    made = subprocess.run(["chattr", "-R", "-f", "+i", folder], capture_output=True, text=True)
    try:
        if made.returncode and not LONG:
            pytest.skip(f"no folder can be made immutable here: {made.stderr.strip()}")
        yield
    finally:
        subprocess.run(["chattr", "-R", "-f", "-i", folder], check=False)


@pytest.mark.parametrize("step", [3, 12, 31, 44, 58] if LONG else [AFTER + 2])
def test_a_folder_that_can_no_longer_be_written_ends_the_run_in_order(tmp_path, step):
    r60 = job("lora")
    with outcome("F6", "the run folder made read-only while it trains", "lora") as found, found.trial():
        if not LONG:
            r60.broken_off(tmp_path, AFTER)
        trial = r60.begin(tmp_path, checkpoint={"wait": 0})
        _until(lambda: whole_lines(tmp_path / "run" / "metrics.jsonl") >= step, trial)
        with unwritable(tmp_path / "run"):
            end = trial.wait()
            refused(end, tmp_path, code="machine/read-only")
        r60.true(tmp_path)
        r60.done(tmp_path)
        r60.same(tmp_path)


@pytest.mark.parametrize(
    ("variant", "size", "keep"), [("full", 24, 2), *([("full", 40, 4), ("lora", 3, 3)] if LONG else [])]
)
def test_a_run_that_could_not_hold_its_checkpoints_is_refused_before_its_first_step(tmp_path, variant, size, keep):
    r60 = job(variant)
    with (
        outcome("F6", f"{size} MiB for a run that keeps {keep}", variant) as found,
        found.trial(),
        disk(tmp_path / "disk", size * MIB) as mounted,
    ):
        end = r60.begin(mounted / "job", checkpoint={"wait": 0, "keep": keep}).wait()
        refused(end, mounted)
        assert not (mounted / "job" / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_onto_a_full_device_does_not_end_a_run(tmp_path, stream):
    r60 = job("lora")
    with outcome("F6", f"{stream} is /dev/full", "lora") as found, found.trial():
        r60.broken_off(tmp_path, AFTER)
        trial = r60.begin(tmp_path, [*HERE, ("injections:printing_to", {"stream": stream, "path": "/dev/full"})])
        end = trial.wait()
        r60.same(tmp_path)
        assert end.code == 0, end.said
