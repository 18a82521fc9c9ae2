"""F24: what is kept, at every instant of a run that may end at any operation.

Sequences of saves, of losses that were measured or not, of steps that were sound or not, and of an end at the n-th
operation are made up by hypothesis. After each operation the folder is what a process that starts then would find.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path

import pytest
from harness import LONG
from hypothesis import given, settings
from hypothesis import strategies as st
from operations import Operation, watching
from outcomes import outcome
from savings import Small

from tutelage import files
from tutelage.checkpoints import Broken, Checkpoints, read, verify

RUN = "0123456789abcdef"
SAVES = st.lists(
    st.tuples(st.sampled_from([None, 1.0, 2.0, 3.0]), st.booleans(), st.none() | st.integers(0, 25)),
    min_size=1,
    max_size=8,
)
"""Of each save the held-out loss, whether the steps before it were sound, and the operation before which it ends."""


class Ended(BaseException):
    """The process is gone."""


class Process:
    """Saves that may end, and what must be there at every instant."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.checkpoints, self.keep = Checkpoints(folder), keep
        self.committed: dict[int, tuple[float | None, bool]] = {}
        """Of the steps whose commit returned, loss and soundness."""
        self.looked = 0

    def save(self, step: int, loss: float | None, healthy: bool, end: int | None) -> None:
        """As a run does it; the end may come before an operation."""
        count = 0

        def before(operation: Operation) -> None:
            nonlocal count
            self.look()
            if count == end:
                raise Ended
            count += 1

        with watching(self.checkpoints.folder, before):
            part = self.checkpoints.begin(step)
            (part / "model.safetensors").write_bytes(str(step).encode())
            self.checkpoints.commit(part, step=step, run=RUN, facts={"healthy": healthy, "heldout_nll": loss})
            self.committed[step] = (loss, healthy)
            self.checkpoints.retain(self.keep)
        self.look()

    def look(self) -> None:
        """The newest, those that must be kept, the best and the last sound one are there and verify."""
        self.looked += 1
        there = {}
        for one in self.checkpoints.all():
            try:
                verify(one)
            except Broken as broken:
                raise AssertionError(f"{one.folder.name} is there and is not whole: {broken}") from broken
            assert (one.folder / "model.safetensors").read_bytes() == str(one.step).encode()
            there[one.step] = one
        known = sorted(self.committed, reverse=True)
        measured = [step for step in known if self.committed[step][0] is not None]
        best = min(measured, key=lambda step: (self.committed[step][0], step), default=None)
        sound = next((step for step in known if self.committed[step][1]), None)
        for step, why in [
            *((s, "one of the newest") for s in known[: self.keep]),
            (best, "the best"),
            (sound, "the last sound one"),
        ]:
            assert step is None or step in there, f"step {step}, {why}, is gone; there are {sorted(there)}"

    def start_again(self) -> None:
        """What the next process does first."""
        self.checkpoints.sweep()
        self.checkpoints.newest(RUN, lambda path, why: pytest.fail(f"{path} was put aside: {why}"))
        self.committed |= {
            one.step: (one.heldout_nll, one.healthy) for one in self.checkpoints.all() if one.step not in self.committed
        }
        assert not [path for path in self.checkpoints.folder.glob(".*")]


def live(saves: list[tuple[float | None, bool, int | None]], keep: int) -> int:
    """Make the saves; how many instants were looked at."""
    folder = Path(tempfile.mkdtemp(prefix="retention-"))
    try:
        (folder / "checkpoints").mkdir()
        process = Process(folder / "checkpoints", keep)
        for number, (loss, healthy, end) in enumerate(saves, start=1):
            try:
                process.save(number * 5, loss, healthy, end)
            except Ended:
                process.start_again()
        return process.looked
    finally:
        shutil.rmtree(folder)


def test_what_must_be_kept_is_there_at_every_instant():
    with outcome("F24", "made-up saves that end at any operation; what is kept") as found:

        @settings(max_examples=1000 if LONG else 30, deadline=None, derandomize=True, database=None)
        @given(SAVES, st.integers(1, 3))
        def property(saves, keep):
            with found.trial():
                counted[0] += live(saves, keep)

        counted = [0]
        property()
        found.note = f"{counted[0]:,} instants looked at"


def test_ties_and_measurements_that_failed(tmp_path):
    """Of equal losses the earlier one is the best; one that was not measured is none."""
    checkpoints = Checkpoints(tmp_path)
    for step, loss in [(5, 2.0), (10, 1.0), (15, 1.0), (20, None), (25, None)]:
        part = checkpoints.begin(step)
        checkpoints.commit(part, step=step, run=RUN, facts={"healthy": step != 25, "heldout_nll": loss})
        checkpoints.retain(1)
    with outcome("F24", "equal losses, losses that were not measured, keep=1") as found, found.trial():
        assert [one.step for one in checkpoints.all()] == [25, 20, 10]


def test_one_that_cannot_be_read_does_not_take_the_place_of_the_newest_that_verifies(tmp_path, monkeypatch):
    """Of two newer ones the disk says that it cannot read them; tomorrow it may; the third must stay."""
    Small(tmp_path / "run", keep=9).go(20, 5)
    sha256 = files.sha256

    def unreadable(path: Path) -> str:
        if path.parent.name in ("step-00000015", "step-00000020"):
            raise OSError(errno.EIO, "the disk says no", str(path))
        return sha256(path)

    monkeypatch.setattr(files, "sha256", unreadable)
    with outcome("F24", "newer ones that cannot be read, and keep=1") as found, found.trial():
        saver = Small(tmp_path / "run", keep=1).saver
        newest = saver.newest()
        assert newest is not None
        assert newest.step == 10
        assert newest.folder.is_dir()
        assert [one.step for one in saver.checkpoints.all()] == [20, 10]


def test_a_damaged_one_does_not_count_as_the_best(tmp_path):
    """What has no manifest is neither kept for its loss nor removed."""
    checkpoints = Checkpoints(tmp_path)
    for step, loss in [(5, 1.0), (10, 2.0), (15, 3.0)]:
        part = checkpoints.begin(step)
        checkpoints.commit(part, step=step, run=RUN, facts={"healthy": True, "heldout_nll": loss})
    (tmp_path / "step-00000005" / "manifest.json").write_bytes(b"{")
    with outcome("F24", "the best one loses its manifest") as found, found.trial():
        checkpoints.retain(1)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "step-00000005",
            "step-00000010",
            "step-00000015",
        ]
        with pytest.raises(Broken):
            read(tmp_path / "step-00000005")
