"""Files that are whole or not there, and what a full disk or a read-only folder is called."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from tutelage import files
from tutelage.errors import MachineError


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_is_written_whole_and_nothing_stays_beside(tmp_path):
    files.write_whole(tmp_path / "a", b"one")
    files.write_whole(tmp_path / "a", b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"two")]


@pytest.mark.parametrize("operation", ["os.fsync", "os.replace"])
def test_where_writing_fails_the_old_file_stays(tmp_path, monkeypatch, operation):
    files.write_whole(tmp_path / "a", b"one")
    monkeypatch.setattr(operation, full)
    with pytest.raises(OSError, match="No space"):
        files.write_whole(tmp_path / "a", b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"one")]


def test_a_killed_process_part_does_not_stand_in_the_way(tmp_path):
    (tmp_path / ".a.part").write_bytes(b"half")
    files.write_whole(tmp_path / "a", b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_link_in_the_parts_place_is_not_written_through(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    inside = tmp_path / "run"
    inside.mkdir()
    (inside / ".a.part").symlink_to(outside)
    files.write_whole(inside / "a", b"one")
    assert (outside.read_bytes(), (inside / "a").read_bytes()) == (b"mine", b"one")


def test_appending_adds(tmp_path):
    files.append(tmp_path / "a", b"one\n")
    files.append(tmp_path / "a", b"two\n")
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\n"


def test_appending_does_not_follow_a_link(tmp_path):
    (tmp_path / "outside").write_bytes(b"mine")
    (tmp_path / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError):  # noqa: PT011, each system names it otherwise
        files.append(tmp_path / "a", b"one")
    assert (tmp_path / "outside").read_bytes() == b"mine"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="file size limits are not known here")
def test_where_appending_stops_halfway_the_file_is_as_before(tmp_path):
    """A file size limit cuts a write short and fails the next, as a disk does that fills up."""
    import resource
    import signal

    files.append(tmp_path / "a", b"x" * 900)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            files.append(tmp_path / "a", b"y" * 500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert files.is_full(caught.value)
    assert (tmp_path / "a").read_bytes() == b"x" * 900


@pytest.mark.parametrize("number", files.FULL)
def test_what_a_full_disk_says(number):
    assert files.is_full(OSError(number, os.strerror(number)))


def test_what_a_library_says_of_a_full_disk():
    assert files.is_full(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert not files.is_full(RuntimeError("something else"))
    assert not files.is_full(PermissionError(errno.EACCES, "Permission denied"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "machine/disk-full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "machine/disk-full"),
        (PermissionError(errno.EACCES, "Permission denied"), "machine/read-only"),
        (OSError(errno.EROFS, "Read-only file system"), "machine/read-only"),
    ],
)
def test_the_system_put_into_words(error, code):
    with pytest.raises(MachineError) as caught, files.explained(Path("runs/a")):
        raise error
    problem = caught.value.problems[0]
    assert (problem.code, problem.where) == (code, str(Path("runs/a")))
    free = r"; [\d,.]+ MB are free" if code == "machine/disk-full" else ""
    assert re.fullmatch(re.escape(error.strerror) + free, problem.found)
    assert "choose another output folder" in problem.fix
    assert caught.value.exit_code == 5


def test_only_what_lies_inside_is_explained(tmp_path):
    outside = PermissionError(errno.EACCES, "Permission denied", "/somewhere/else")
    with pytest.raises(PermissionError), files.explained(tmp_path, only_inside=True):
        raise outside
    inside = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "a"))
    with pytest.raises(MachineError), files.explained(tmp_path, only_inside=True):
        raise inside


def test_a_file_in_a_folders_place_is_said_so(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(MachineError) as caught, files.explained(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b").mkdir()
    assert caught.value.problems[0].found == "a file stands where a folder is needed"


def test_a_full_disk_is_waited_for_and_told_of_once(monkeypatch):
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.001)
    tries, told = [], []

    def write() -> str:
        tries.append(1)
        if len(tries) < 4:
            full()
        return "written"

    assert files.patiently(write, 60, lambda: told.append(1)) == "written"
    assert (len(tries), len(told)) == (4, 1)


def test_without_time_a_full_disk_is_not_waited_for():
    told = []
    with pytest.raises(OSError, match="No space"):
        files.patiently(full, 0, lambda: told.append(1))
    assert told == []


def test_when_the_time_is_over_the_last_error_is_raised(monkeypatch):
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.01)
    tries = []
    with pytest.raises(OSError, match="No space"):
        files.patiently(lambda: (tries.append(1), full()), 0.05)
    assert 2 <= len(tries) <= 7


def test_another_error_is_raised_at_once():
    tries = []

    def write() -> None:
        tries.append(1)
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError):
        files.patiently(write, 60)
    assert len(tries) == 1


def test_json_is_strict():
    values = {"a": float("nan"), "b": [1.5, float("-inf")], "c": (True, None), 4: "é"}
    assert files.strict(values) == {"a": None, "b": [1.5, None], "c": [True, None], "4": "é"}
    assert files.as_json({"a": float("inf")}) == '{\n  "a": null\n}\n'
