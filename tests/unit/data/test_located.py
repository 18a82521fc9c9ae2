"""Paths: several, folders, patterns; each file exactly once, and nothing that is no file."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from rowfiles import items, refusal, values, write

from tutelage.data.sources import fingerprint, located, read, stored
from tutelage.errors import MachineError
from tutelage.recipe import Source
from tutelage.types import Record


@pytest.fixture
def tree(workdir: Path) -> Path:
    for name, n in {"b.jsonl": 2, "a.jsonl": 1, "c1.csv": 3, "deep/x.jsonl": 4, "deep/er/y.jsonl": 5}.items():
        write(workdir / "data" / name, [{"n": str(n)}])
    (workdir / "data" / "README.md").write_text("no rows")
    return workdir


def numbers(path: object) -> str:
    return "".join(str(row["n"]) for row in values(path))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("data/*.jsonl", "12"),
        ("data/?.jsonl", "12"),
        ("data/[bc]*", "23"),
        ("data/*", "123"),
        ("data", "123"),
        ("data/**", "12345"),
        ("data/**/*.jsonl", "1254"),
        ("data/*/*.jsonl", "4"),
        ("data/**/er/*", "5"),
        ("./data/deep/../*.csv", "3"),
        (["data/c1.csv", "data/?.jsonl"], "312"),
        (["data/deep", "data/a.jsonl"], "41"),
    ],
)
def test_paths_patterns_and_folders_in_any_mixture(tree: Path, path: object, found: str) -> None:
    assert sorted(numbers(path)) == sorted(found)
    if "**" not in str(path):
        assert numbers(path) == found
    absolute = [tree / part for part in (path if isinstance(path, list) else [path])]
    assert numbers(absolute) == numbers(path)


def test_order_is_sorted_and_origins_keep_the_files_own_path(tree: Path) -> None:
    rows = items(["data/**/*.jsonl"])
    assert [row.origin.file for row in rows if isinstance(row, Record)] == [
        "data/a.jsonl",
        "data/b.jsonl",
        "data/deep/er/y.jsonl",
        "data/deep/x.jsonl",
    ]


def test_a_path_that_exists_wins_over_the_pattern(tree: Path) -> None:
    write(tree / "data" / "[ab].jsonl", [{"n": "literal"}])
    assert numbers("data/[ab].jsonl") == "literal"
    (tree / "data" / "[ab].jsonl").unlink()
    assert numbers("data/[ab].jsonl") == "12"


@pytest.mark.parametrize("pattern", ["data/*.parquet", "data/z*", "nowhere/*.jsonl", "data/*.md", "data/d*"])
def test_no_match_is_said(tree: Path, pattern: str) -> None:
    problem = refusal(pattern)
    assert problem.code == "data/missing-file"
    assert problem.found


def test_hidden_copies_are_left_out_unless_named(tree: Path) -> None:
    write(tree / "data" / ".ipynb_checkpoints" / "a-checkpoint.jsonl", [{"n": "x"}])
    write(tree / "data" / "._a.jsonl", [{"n": "y"}])
    assert numbers("data/*.jsonl") == "12"
    assert numbers("data") == "123"
    assert sorted(numbers("data/**")) == list("12345")
    assert numbers("data/.*/*.jsonl") == "x"


def test_a_file_that_may_hold_rows_is_not_left_out_in_silence(tree: Path) -> None:
    (tree / "data" / "d.jsonl.bz2").write_bytes(b"BZh")
    for path in ("data", "data/*"):
        problem = refusal(path)
        assert (problem.code, problem.where) == ("data/unknown-type", "data/d.jsonl.bz2")
    assert numbers("data/*.jsonl") == "12"


@pytest.mark.parametrize(
    "paths",
    [
        ["data/a.jsonl", "data/a.jsonl"],
        ["data/a.jsonl", "./data/deep/../a.jsonl"],
        ["data", "data/a.jsonl"],
        ["data/a*", "data/*.jsonl"],
        ["data/a.jsonl", "link.jsonl"],
        ["data/a.jsonl", "hard.jsonl"],
    ],
)
def test_the_same_file_twice_is_refused_with_both_names(tree: Path, paths: list[str]) -> None:
    (tree / "link.jsonl").symlink_to("data/a.jsonl")
    (tree / "hard.jsonl").hardlink_to("data/a.jsonl")
    problem = refusal(paths)
    assert problem.code == "recipe/conflict"
    assert paths[0] in problem.found
    assert paths[1] in problem.found
    assert "remove one" in problem.fix


def test_equal_files_are_not_the_same_file(tree: Path) -> None:
    write(tree / "copy.jsonl", [{"n": "1"}])
    assert numbers(["data/a.jsonl", "copy.jsonl"]) == "11"


def test_a_loop_of_links_ends(tree: Path) -> None:
    (tree / "data" / "loop").symlink_to(".", target_is_directory=True)
    assert sorted(numbers("data/**")) == list("12345")
    (tree / "me.jsonl").symlink_to("me.jsonl")
    assert refusal("me.jsonl").code == "data/unreadable"
    (tree / "gone.jsonl").symlink_to("nowhere.jsonl")
    assert "leads nowhere" in refusal("gone.jsonl").found


def test_pipes_sockets_and_devices_are_refused_at_once(tree: Path) -> None:
    os.mkfifo(tree / "pipe.jsonl")
    assert refusal("pipe.jsonl").found == "a pipe, not a regular file"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("plug.jsonl")
        assert refusal("plug.jsonl").found == "a socket, not a regular file"
    (tree / "zero.jsonl").symlink_to("/dev/zero")
    assert refusal("zero.jsonl").found == "a device, not a regular file"
    assert refusal("*.jsonl").code == "data/unreadable"


def test_what_may_not_be_read_is_the_machines_fault(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        with pytest.raises(MachineError) as caught:
            next(read(Source(path="data/a.jsonl")))
    assert (caught.value.code, caught.value.exit_code) == ("machine/no-access", 5)
    assert caught.value.problems[0].where == "data/a.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(located.os, "scandir", refuse)
        assert refusal("data/**").code == "machine/no-access"
    with monkeypatch.context() as patch:
        patch.setattr(stored.os, "stat", refuse)
        with pytest.raises(MachineError):
            stored.regular("data/a.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_closed_folder_below_a_pattern_is_no_empty_folder(tree: Path) -> None:
    (tree / "data" / "deep").chmod(0)
    try:
        assert refusal("data/**").code == "machine/no-access"
    finally:
        (tree / "data" / "deep").chmod(0o755)


def test_fingerprints_of_several_files(tree: Path) -> None:
    source = Source(path=("data/*.jsonl", "data/c1.csv"))
    before = fingerprint(source)
    assert before["path"] == ["data/*.jsonl", "data/c1.csv"]
    assert [part["path"] for part in before["files"]] == ["data/a.jsonl", "data/b.jsonl", "data/c1.csv"]
    os.utime(tree / "data" / "a.jsonl", (1, 1))
    assert fingerprint(source) == before
    write(tree / "data" / "a.jsonl", [{"n": "9"}])
    assert fingerprint(source)["bytes"] == before["bytes"]
    assert fingerprint(source)["sha256"] != before["sha256"]
    write(tree / "data" / "a.jsonl", [{"n": "1"}])
    assert fingerprint(source) == before
    write(tree / "data" / "d.jsonl", [{"n": "9"}])
    assert fingerprint(source)["sha256"] != before["sha256"]
    assert fingerprint(Source(path=("data/c1.csv", "data/[ab].jsonl")))["sha256"] != before["sha256"], "another order"


def test_files_are_opened_one_after_another_and_only_when_needed(tree: Path) -> None:
    (tree / "data" / "b.jsonl").write_bytes(b"\xff\xfe")
    assert len(items(["data/a.jsonl", "data/b.jsonl"], limit=1)) == 1
    assert refusal(["data/a.jsonl", "data/b.jsonl"]).code == "data/unreadable"
