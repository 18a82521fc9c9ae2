"""On a file system without locks, as Lustre mounted without `flock`, a marker stands in that may be left behind."""

from __future__ import annotations

import errno
import fcntl
import socket
import subprocess
import sys

import pytest

from tutelage.data.store.shelf import Shelf
from tutelage.errors import MachineError
from tutelage.history.record import Record
from tutelage.runs import LOCK, Run

pytestmark = pytest.mark.filterwarnings("ignore:flock not supported")


@pytest.fixture
def no_locks(monkeypatch):
    def flock(handle, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "run")
    run.create()
    run.write_json("run.json", {})
    return run


def _ended() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_one_process_at_a_time_and_nothing_stays(run, no_locks):
    for _ in range(2):
        with run.locked():
            run.claim()
            assert Record.at(run.folder).is_held()
            with pytest.raises(MachineError) as refused, Run(run.folder).locked():
                pass
            assert refused.value.code == "machine/run-in-use"
            assert f"left {run.folder / LOCK} behind" in refused.value.problems[0].fix
        assert not (run.folder / LOCK).exists()
        assert not Record.at(run.folder).is_held()


def test_a_process_that_was_killed_here_is_no_hindrance(run, no_locks):
    (run.folder / LOCK).write_text(f"{_ended()}\n{socket.gethostname()}\n")
    with run.locked():
        pass


def test_of_one_that_was_killed_elsewhere_somebody_must_tell(run, no_locks):
    (run.folder / LOCK).write_text(f"{_ended()}\nanother-host\n")
    with pytest.raises(MachineError) as refused, run.locked():
        pass
    assert f"left {run.folder / LOCK} behind, so remove it" in refused.value.problems[0].fix
    (run.folder / LOCK).unlink()
    with run.locked():
        pass


def test_where_there_are_locks_nothing_is_left_behind(run):
    (run.folder / LOCK).write_text(f"{_ended()}\nanother-host\n")
    with run.locked():
        with pytest.raises(MachineError) as refused, Run(run.folder).locked():
            pass
        assert "behind" not in refused.value.problems[0].fix


def test_a_store_says_what_it_waits_for(tmp_path, no_locks, monkeypatch):
    """The marker is removed by whoever reads that, and the wait is over."""
    shelf, said = Shelf(str(tmp_path / "tokens"), 1 << 30), []
    marker = tmp_path / "tokens" / "x.lock"
    marker.parent.mkdir()
    marker.write_text(f"{_ended()}\nanother-host\n")

    def wait(otherwise: str) -> None:
        said.append(otherwise)
        marker.unlink()

    with shelf._locked(tmp_path / "tokens" / "x", wait):
        pass
    assert len(said) == 1
    assert f"left {marker} behind, so remove it" in said[0]
