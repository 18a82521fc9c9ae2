"""What happens around a run: clocks, other runs, folders that move, links, memory, streams, the network."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from attempts import attempts
from harness import HERE, LONG, Trial, command_line, count, job, state, whole_lines
from outcomes import Outcome, outcome

from tutelage.checkpoints import Checkpoints, verify
from tutelage.data.plan import Permutation, global_batches
from tutelage.files import sha256

AFTER = 50
HOUR, DAY = 3600.0, 86400.0
CLOCKS = {
    "an hour ahead and back": [0, HOUR],
    "an hour behind": [-HOUR],
    "a day ahead and back": [0, DAY, -DAY],
    "back to 1970": [0, -1e12],
    "further back at each look": [-60.0 * n for n in range(1000)],
}


def until(reached: Any, trial: Trial, seconds: float = 60) -> None:
    """Wait while the process runs."""
    began = time.monotonic()
    while not reached():
        assert time.monotonic() - began < seconds, trial.err.read_text()
        assert not trial.ended.is_set(), f"it ended before: {trial.wait().said[-1500:]}"
        time.sleep(0.002)


def steps_of(folder: Path) -> int:
    return whole_lines(folder / "run" / "metrics.jsonl")


@pytest.mark.parametrize("clock", CLOCKS if LONG else ["back to 1970"])
def test_a_clock_that_jumps_changes_nothing(tmp_path, clock):
    r60 = job("lora")
    with outcome("F20", f"the clock: {clock}", "lora") as found:

        def trial(after: int) -> None:
            folder = tmp_path / str(after)
            if after:
                r60.broken_off(folder, after)
            r60.done(folder, [*HERE, ("injections:jumping", {"jumps": CLOCKS[clock]})])
            r60.same(folder)
            for line in (folder / "run" / "metrics.jsonl").read_text().splitlines():
                assert json.loads(line)["seconds"] >= 0

        attempts(found, trial, [0, 20, AFTER] if LONG else [AFTER])


def test_a_second_run_in_the_folder_is_refused_and_changes_nothing(tmp_path):
    r60 = job("lora")
    with outcome("F21", "a second process on the same folder", "lora") as found:

        def trial(seed: int) -> None:
            folder = tmp_path / str(seed)
            if not LONG:
                r60.broken_off(folder, AFTER)
            first = r60.begin(folder)
            until(lambda: (folder / "run" / ".holder.json").exists() and _holds(folder, first.pid), first)
            time.sleep(random.Random(seed).uniform(0, r60.seconds * (0.6 if LONG else 0.1)))
            began = time.monotonic()
            end = r60.zygote.start("train", folder / "recipe.yaml", "--resume", before=HERE).wait()
            took = time.monotonic() - began
            running = not first.ended.is_set()
            assert first.wait().code == 0, first.wait().said
            r60.same(folder)
            if running:
                assert end.code == 5, end.said
                assert "error[machine/run-in-use]" in end.err
                assert f"process {first.pid} on {socket.gethostname()} since 20" in end.err
                assert took < 2 + r60.seconds / 10

        attempts(found, trial, list(range(count(1, 20))))


def _holds(folder: Path, pid: int) -> bool:
    return json.loads((folder / "run" / ".holder.json").read_text())["pid"] == pid


def test_the_lock_of_a_process_that_was_killed_is_free_at_once(tmp_path):
    r60 = job("lora")
    with outcome("F21", "kill -9, and the same folder at once", "lora") as found, found.trial():
        r60.broken_off(tmp_path, AFTER)
        trial = r60.begin(tmp_path)
        until(lambda: steps_of(tmp_path) > AFTER, trial)
        trial.kill()
        assert trial.wait().code == -signal.SIGKILL
        assert (tmp_path / "run" / ".lock").exists()
        r60.done(tmp_path)
        r60.same(tmp_path)


@pytest.mark.parametrize("act", ["removed", "renamed", "replaced by a file"] if LONG else ["removed"])
def test_a_folder_that_goes_away_ends_the_run_in_order(tmp_path, act):
    r60 = job("lora")
    with outcome("F22", f"the run folder is {act} while it trains", "lora") as found:

        def trial(seed: int) -> None:
            folder = tmp_path / str(seed)
            step = random.Random(seed).randint(2, 50) if LONG else AFTER + 2
            if not LONG:
                r60.broken_off(folder, AFTER)
            process = r60.begin(folder, checkpoint={"wait": 0})
            until(lambda: steps_of(folder) >= step, process)
            os.rename(folder / "run", folder / "elsewhere")
            if act == "replaced by a file":
                (folder / "run").write_text("a file")
            if act == "removed":
                shutil.rmtree(folder / "elsewhere")
            end = process.wait()
            assert end.code == 5, end.said
            assert "error[machine/folder-gone]" in end.err
            assert "Traceback" not in end.err
            if (folder / "run").is_dir():  # What writes the model makes the folders that it is given.
                assert {path.name for path in (folder / "run").iterdir()} <= {".model.part", "model", "result.json"}
                shutil.rmtree(folder / "run")
            if act == "replaced by a file":
                (folder / "run").unlink()
            if act != "removed":
                for one in Checkpoints(folder / "elsewhere" / "checkpoints").all():
                    verify(one)
                os.rename(folder / "elsewhere", folder / "run")
            r60.done(folder)
            r60.same(folder)

        attempts(found, trial, list(range(count(1, 3))))


LINKS = {
    **dict.fromkeys(("metrics.jsonl", "evaluations.jsonl", "samples.jsonl", "report.html", "result.json"), "file"),
    **dict.fromkeys(("plan.json", "recipe.yaml", ".metrics.jsonl.part", ".result.json.part", ".holder.json"), "file"),
    **dict.fromkeys((".lock", "rows.jsonl", "run.json"), "file"),
    **dict.fromkeys(("checkpoints", "model", ".model.part", ".model.gone", "checkpoints/step-00000055"), "folder"),
}
"""Names that a run writes to, and what the link that was put there leads to."""


def test_nothing_is_written_through_a_link_out_of_the_folder(tmp_path):
    r60 = job("lora")
    with outcome("F22", "a link that leads out of the folder at a name that a run writes to", "lora") as found:

        def trial(name: str) -> None:
            folder, outside = tmp_path / name.replace("/", "-"), tmp_path / f"outside-{name.replace('/', '-')}"
            r60.broken_off(folder, AFTER)
            path, kept = folder / "run" / name, outside / "kept"
            outside.mkdir()
            if path.is_dir() and LINKS[name] == "folder":
                shutil.move(path, outside / "was")
                (outside / "was" / "kept").write_text("kept")
            else:
                kept.write_bytes(path.read_bytes() if path.exists() else b"kept")
                path.unlink(missing_ok=True)
            target = kept if LINKS[name] == "file" else outside / "was" if (outside / "was").exists() else outside
            path.parent.mkdir(exist_ok=True)
            path.symlink_to(target)
            before = _tree(outside)
            end = r60.begin(folder, checkpoint={"wait": 0}).wait()
            assert _tree(outside) == before, "written outside"
            assert end.code in (0, 2, 4, 5), end.said
            assert "Traceback" not in end.err, end.err

        attempts(found, trial, list(LINKS) if LONG else ["metrics.jsonl", ".model.part"])


def _tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


PLACES = {("12", 0): [11, 12, 13, 16], ("33", 0): [32, 33, 36], ("53", 0): [52, 53, 56]} if LONG else {("53", 0): [56]}
"""The step and the micro-batch at which memory runs out, and the steps after which such a run is killed."""


def test_a_run_that_ran_out_of_memory_and_was_killed_is_the_one_that_was_not_killed(tmp_path):
    """The same steps are made again in smaller pieces, whenever the process ended."""
    with outcome("F23", "memory runs out at chosen micro-batches, with kill -9 before, at and after", "lora") as found:
        for place, ends in PLACES.items():
            _out_of_memory(tmp_path / place[0], place, ends * count(1, 2), found)


def _out_of_memory(root: Path, place: tuple[str, int], ends: list[int], found: Outcome) -> None:
    r60 = job("lora")
    hook = ("injections:out_of_memory", {"at": dict([place])})
    if not LONG:
        r60.broken_off(root / "unbroken", AFTER)
    end = r60.done(root / "unbroken", [*HERE, hook])
    assert end.err.count("memory ran out in step") == 1
    expected = state(root / "unbroken" / "run")
    assert expected["rows of step 53"] == r60.reference["rows of step 53"]

    def trial(number: int) -> None:
        after, folder = ends[number], root / f"killed-{number}"
        if not LONG:
            r60.broken_off(folder, AFTER)
        process = r60.begin(folder, [*HERE, hook, ("patches:end_after", {"step": after})])
        assert process.wait().code == 9
        end = r60.done(folder, [*HERE, hook])
        assert end.resumed_after > 0
        assert state(folder / "run") == expected

    attempts(found, trial, list(range(len(ends))))


STREAMS = [("stdout", "closed"), ("stderr", "closed"), ("stdout", "deaf"), ("stderr", "deaf"), ("stderr", "/dev/full")]


def test_a_stream_that_is_gone_does_not_end_a_run(tmp_path):
    r60 = job("lora")
    with outcome("F25", "stdout and stderr closed, /dev/full, or a pipe that nobody reads", "lora") as found:

        def trial(stream: tuple[str, str]) -> None:
            folder = tmp_path / "-".join(stream).replace("/", "-")
            r60.broken_off(folder, AFTER)
            hook = ("injections:printing_to", {"stream": stream[0], "path": stream[1]})
            end = r60.begin(folder, [*HERE, hook]).wait()
            r60.same(folder)
            assert end.code == 0, end.said

        attempts(found, trial, [*STREAMS, ("stdout", "/dev/full")] if LONG else STREAMS[3:4])


def test_a_terminal_of_ascii_changes_nothing(tmp_path):
    r60 = job("lora")
    with outcome("F25", "LANG=C", "lora") as found, found.trial():
        r60.broken_off(tmp_path, AFTER)
        named = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        end = command_line("train", r60.write(tmp_path), "--resume", **named, TUTELAGE_CACHE=str(tmp_path / "cache"))
        assert end.code == 0, end.said
        r60.same(tmp_path)
        for path in (tmp_path / "run").glob("*.jsonl"):
            assert [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("change", ["without evaluation", "without network"])
def test_the_weights_depend_on_neither_evaluation_nor_network(tmp_path, change):
    r60 = job("lora")
    with outcome("F17", f"a run {change} has the same weights", "lora") as found, found.trial():
        if not LONG:
            r60.broken_off(tmp_path, AFTER)
        if change == "without evaluation":
            # What is measured is part of what a run is, so this one begins at the beginning.
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
            r60.done(tmp_path, evaluate={"points": 0, "samples": 0})
        else:
            assert sys.platform.startswith("linux")
            r60.done(tmp_path, [*HERE, ("injections:without_network", {})])
            r60.same(tmp_path)
        now = state(tmp_path / "run")
        named = [n for n in r60.reference if n.endswith(".safetensors") or n.startswith("rows of step")]
        assert len(named) == 63
        assert {name: now[name] for name in named} == {name: r60.reference[name] for name in named}


class Counted:
    """The order of an epoch, and how often it was asked."""

    def __init__(self, size: int, epoch: int) -> None:
        self.order, self.asked = Permutation(size, seed=7, epoch=epoch), 0

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> int:
        self.asked += 1
        return self.order[position]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_the_place_in_a_million_rows_is_found_at_once(share):
    size, batch = 1_000_000, 16
    with outcome("F27", f"resume at {share:.0%} of a million rows") as found:
        for epoch in range(3):
            with found.trial():
                orders = {number: Counted(size, number) for number in range(4)}
                after = epoch * (size // batch) + int(share * size / batch)
                began = time.monotonic()
                first = next(global_batches(orders.__getitem__, size=batch, epochs=4, after=after))
                found.note = f"{time.monotonic() - began:.4f} s"
                assert time.monotonic() - began < 1
                start = int(share * size / batch) * batch
                assert (first.step, first.epoch) == (after + 1, epoch)
                assert first.examples == tuple(orders[epoch].order[start + n] for n in range(batch))
                assert sum(order.asked for order in orders.values()) == batch
