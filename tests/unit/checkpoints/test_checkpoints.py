"""Checkpoints are found by looking, used when they verify, put aside when they do not, and kept by rule."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

import tinyruns
from tutelage import files
from tutelage.checkpoints import REASON, Checkpoints, manifest, read, verify

RUN = "0123456789abcdef"


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints")


def commit(checkpoints, step, *, run=RUN, content=b"weights", **facts):
    part = checkpoints.begin(step)
    (part / "model.safetensors").write_bytes(content + str(step).encode())
    return checkpoints.commit(part, step=step, run=run, facts=facts)


def names(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def never(folder, reason):
    raise AssertionError(f"{folder} was put aside: {reason}")


def test_one_is_there_only_after_its_commit(checkpoints):
    assert checkpoints.paths() == checkpoints.all() == []
    assert checkpoints.newest(RUN, never) is None
    part = checkpoints.begin(5)
    (part / "model.safetensors").write_bytes(b"x")
    assert (checkpoints.all(), checkpoints.newest(RUN, never)) == ([], None)
    made = checkpoints.commit(part, step=5, run=RUN, facts={"healthy": True})
    assert names(checkpoints) == ["step-00000005"]
    assert checkpoints.newest(RUN, never) == read(made.folder) == made
    verify(made)


def test_the_newest_is_the_one_of_the_latest_step_whatever_was_written_last(checkpoints):
    for step in (20, 100_000_000, 3):
        commit(checkpoints, step)
    os.utime(checkpoints.folder / "step-00000003", (4e9, 4e9))
    assert [one.step for one in checkpoints.all()] == [100_000_000, 20, 3]
    assert checkpoints.newest(RUN, never).step == 100_000_000


def test_a_broken_one_is_put_aside_with_its_reason_and_the_one_before_is_used(checkpoints):
    for step in (5, 10, 15):
        commit(checkpoints, step)
    (checkpoints.folder / "step-00000015" / "model.safetensors").write_bytes(b"wrong")
    (checkpoints.folder / "step-00000010" / "manifest.json").unlink()
    content = tinyruns.tree(checkpoints.folder)
    told = []
    found = checkpoints.newest(RUN, lambda folder, reason: told.append((folder.name, reason)))
    assert found.step == 5
    assert [reason for _, reason in told] == [
        "model.safetensors has 5 bytes; 9 were written",
        "manifest.json is missing, so the save was not finished",
    ]
    assert [name.partition(".broken-")[0] for name, _ in told] == ["step-00000015", "step-00000010"]
    for name, reason in told:
        aside = checkpoints.folder / name
        assert (aside / REASON).read_text() == reason + "\n"
        (aside / REASON).unlink()
    # Nothing was lost: the same files with the same content, under another name.
    after = {
        name.partition("/")[0].partition(".broken")[0] + "/" + name.partition("/")[2]: data
        for name, data in tinyruns.tree(checkpoints.folder).items()
    }
    assert after == content
    assert checkpoints.newest(RUN, never).step == 5


def test_all_broken_is_none(checkpoints):
    for step in (1, 2):
        commit(checkpoints, step)
        (checkpoints.folder / f"step-{step:08}" / "model.safetensors").write_bytes(b"")
    told = []
    assert checkpoints.newest(RUN, lambda *what: told.append(what)) is None
    assert len(told) == 2


def test_one_of_another_run_is_put_aside(checkpoints):
    commit(checkpoints, 4)
    commit(checkpoints, 8, run="other")
    told = []
    assert checkpoints.newest(RUN, lambda folder, reason: told.append(reason)).step == 4
    assert told == [f"it is of the run other, and this is {RUN}"]


def test_one_under_another_steps_name_is_put_aside(checkpoints):
    commit(checkpoints, 4)
    shutil.copytree(checkpoints.folder / "step-00000004", checkpoints.folder / "step-00000009")
    told = []
    assert checkpoints.newest(RUN, lambda folder, reason: told.append(reason)).step == 4
    assert told == ["its manifest is of step 4"]
    assert [one.step for one in checkpoints.all()] == [4]


def test_one_of_a_later_format_is_not_used(checkpoints, monkeypatch):
    commit(checkpoints, 4)
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "FORMAT", 99)
        commit(checkpoints, 8)
    told = []
    assert checkpoints.newest(RUN, lambda folder, reason: told.append(reason)).step == 4
    assert told == ["manifest.json has format 99, and this version reads 1"]


ODD = [
    "step-7",
    "step-0000000x",
    "step-00000007.old",
    "step-00000007 ",
    "Step-00000007",
    "step--0000007",
    "step-٠٠٠٠٠٠٠٧",
]


@pytest.mark.parametrize("name", ODD)
def test_what_has_no_checkpoints_name_is_left_alone(checkpoints, name):
    made = commit(checkpoints, 3)
    odd = checkpoints.folder / name
    shutil.copytree(made.folder, odd)
    (checkpoints.folder / "notes.txt").write_text("mine")
    (checkpoints.folder / "step-00000009").write_text("a file")
    assert checkpoints.newest(RUN, never) == made
    checkpoints.sweep()
    checkpoints.retain(1)
    checkpoints.remove_after(0)
    assert names(checkpoints) == sorted([name, "notes.txt", "step-00000009"])


def test_a_link_is_never_followed(checkpoints, tmp_path):
    made = commit(Checkpoints(tmp_path / "other"), 9)
    commit(checkpoints, 3)
    (checkpoints.folder / "step-00000009").symlink_to(made.folder)
    assert checkpoints.newest(RUN, never).step == 3
    checkpoints.remove_after(0)
    assert made.folder.is_dir()
    (tmp_path / "link").symlink_to(tmp_path / "other")
    with pytest.raises(NotADirectoryError):
        Checkpoints(tmp_path / "link").begin(1)


def test_the_newest_the_best_and_the_last_healthy_one_stay(checkpoints):
    facts = {
        1: {"healthy": True, "heldout_nll": 2.0},
        2: {"healthy": True, "heldout_nll": 1.0},
        3: {"healthy": True, "heldout_nll": 1.5},
        4: {"healthy": True},
        5: {"healthy": False},
        6: {"healthy": False},
        7: {"healthy": False},
    }
    for step, known in facts.items():
        commit(checkpoints, step, **known)
    checkpoints.retain(2)
    assert [one.step for one in checkpoints.all()] == [7, 6, 4, 2]
    checkpoints.retain(1)
    assert [one.step for one in checkpoints.all()] == [7, 4, 2]
    checkpoints.retain(0)
    assert [one.step for one in checkpoints.all()] == [7, 4, 2]
    assert names(checkpoints) == ["step-00000002", "step-00000004", "step-00000007"]


def test_of_equally_good_ones_the_first_stays(checkpoints):
    for step in (1, 2, 3):
        commit(checkpoints, step, heldout_nll=1.0)
    checkpoints.retain(1)
    assert [one.step for one in checkpoints.all()] == [3, 1]


def test_a_folder_that_was_put_aside_is_not_counted_and_not_removed(checkpoints):
    for step in (1, 2, 3):
        commit(checkpoints, step)
    (checkpoints.folder / "step-00000003" / "model.safetensors").write_bytes(b"")
    aside = []
    checkpoints.newest(RUN, lambda folder, reason: aside.append(folder))
    commit(checkpoints, 3)
    checkpoints.retain(1)
    checkpoints.sweep()
    checkpoints.remove_after(0)
    assert [path.name for path in checkpoints.folder.iterdir()] == [aside[0].name]


def test_leftovers_of_a_killed_process_are_swept(checkpoints):
    commit(checkpoints, 3)
    left = checkpoints.begin(4)
    (left / "model.safetensors").write_bytes(b"half")
    gone = checkpoints.folder / ".step-00000002-0123abcd.gone"
    gone.mkdir()
    (checkpoints.folder / ".step-00000002-mine.part").mkdir()
    checkpoints.sweep()
    assert names(checkpoints) == [".step-00000002-mine.part", "step-00000003"]


def test_what_comes_after_a_step_is_removed(checkpoints):
    for step in (3, 5, 8):
        commit(checkpoints, step)
    checkpoints.remove_after(5)
    assert [one.step for one in checkpoints.all()] == [5, 3]


def test_the_same_step_again_replaces_the_older_one(checkpoints):
    commit(checkpoints, 3, content=b"old")
    made = commit(checkpoints, 3, content=b"new")
    assert checkpoints.newest(RUN, never) == made
    assert (made.folder / "model.safetensors").read_bytes() == b"new3"
    assert names(checkpoints) == ["step-00000003"]


def test_the_files_reach_the_disk_before_the_name_does(checkpoints, monkeypatch):
    """The order of operations in which no loss of power leaves a name without its content."""
    order = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def name_of(handle):
        return os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))

    monkeypatch.setattr(os, "fsync", lambda handle: (order.append(f"sync {name_of(handle)}"), fsync(handle))[1])
    monkeypatch.setattr(os, "rename", lambda a, b: (order.append("rename"), rename(a, b))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(f"name {b.name}"), replace(a, b))[1])
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("the names of open files are not known here")
    part = checkpoints.begin(1)
    (part / "a").write_bytes(b"a")
    (part / "b").write_bytes(b"b")
    checkpoints.commit(part, step=1, run=RUN, facts={})
    folder = f"sync {part.name}"
    written = ["sync .manifest.json.part", "name manifest.json", folder]
    assert order == ["sync a", "sync b", folder, *written, "rename", "sync checkpoints"]


def test_a_removal_cut_short_leaves_nothing_that_looks_like_a_checkpoint(checkpoints, monkeypatch):
    for step in (1, 2):
        commit(checkpoints, step)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    checkpoints.retain(1)
    monkeypatch.undo()
    assert [one.step for one in checkpoints.all()] == [2]
    assert len(names(checkpoints)) == 2
    checkpoints.sweep()
    assert names(checkpoints) == ["step-00000002"]


def test_one_that_made_room_comes_back_when_its_successor_never_came(checkpoints, monkeypatch):
    commit(checkpoints, 3)

    def die(source, target):
        if str(source).endswith(".part"):
            raise KeyboardInterrupt
        rename(source, target)

    rename = os.rename
    monkeypatch.setattr("os.rename", die)
    with pytest.raises(KeyboardInterrupt):
        commit(checkpoints, 3)
    monkeypatch.undo()
    assert checkpoints.all() == []
    checkpoints.sweep()
    assert names(checkpoints) == ["step-00000003"]
    commit(checkpoints, 3)
    assert names(checkpoints) == ["step-00000003"]


def test_what_cannot_be_read_now_is_left_where_it_is(checkpoints, monkeypatch):
    for step in (1, 2):
        commit(checkpoints, step)
    digest, told = files.sha256, []

    def fail(path):
        if "00000002" in str(path):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return digest(path)

    monkeypatch.setattr(files, "sha256", fail)
    assert checkpoints.newest(RUN, lambda *what: told.append(what)).step == 1
    assert "Input/output error" in told[0][1]
    assert names(checkpoints) == ["step-00000001", "step-00000002"]
