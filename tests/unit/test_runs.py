"""The run folder: strict JSON, whole files, nothing overwritten, and errors that say what to do."""

from __future__ import annotations

import errno
import math
import shutil

import pytest

from tutelage.errors import MachineError, ModelError, Problem, RecipeError
from tutelage.runs import Run


def test_json_is_strict_and_read_back(tmp_path):
    run = Run(tmp_path)
    run.write_json("a.json", {"x": math.nan, "y": [math.inf, 1.5, (2, -math.inf)], 3: "é\ud800"})
    text = (tmp_path / "a.json").read_text("utf-8")
    assert "NaN" not in text
    assert run.read_json("a.json") == {"x": None, "y": [None, 1.5, [2, None]], "3": "é?"}
    assert run.read_json("none.json") is None


def test_lines_are_added_in_order(tmp_path):
    run = Run(tmp_path)
    run.append("a.jsonl", [{"step": 1, "loss": math.nan}])
    run.append("a.jsonl", ({"step": step, "text": "one\ntwo\u2028"} for step in (2, 3)))
    assert (tmp_path / "a.jsonl").read_text("utf-8").count("\n") == 3
    assert [line["step"] for line in run.read_lines("a.jsonl")] == [1, 2, 3]
    assert next(run.read_lines("a.jsonl"))["loss"] is None
    assert list(run.read_lines("none.jsonl")) == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    run = Run(tmp_path)
    run.write_text("a.txt", "first")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(MachineError) as caught:
        run.write_text("a.txt", "second")
    assert caught.value.code == "machine/disk-full"
    assert (tmp_path / "a.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_free_folder_is_taken_without_a_trace(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("new", "deep/er/new", "empty"):
        run = Run(tmp_path / name)
        assert run.is_empty()
        run.refuse_if_taken()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty"]
    run.create()
    Run(tmp_path / "deep/er/new").create()
    assert (tmp_path / "deep/er/new").is_dir()


@pytest.mark.parametrize("what", ["a file in it", "a hidden file in it", "a file instead"])
def test_a_taken_folder_is_refused(tmp_path, what):
    run = Run(tmp_path / "run")
    if what == "a file instead":
        run.folder.write_text("x")
    else:
        run.folder.mkdir()
        (run.folder / (".x" if "hidden" in what else "x")).write_text("")
    with pytest.raises(RecipeError) as caught:
        run.refuse_if_taken()
    assert caught.value.code == "recipe/run-exists"
    assert str(run.folder) in str(caught.value)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "machine/disk-full"),
        (errno.EDQUOT, "machine/disk-full"),
        (errno.EACCES, "machine/read-only"),
        (errno.EROFS, "machine/read-only"),
        (errno.ENOENT, "machine/read-only"),
        (errno.ENOTDIR, "machine/read-only"),
    ],
)
def test_what_the_file_system_says_is_explained(tmp_path, monkeypatch, number, code):
    def fail(*arguments, **options):
        raise OSError(number, "said")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", fail)
    with pytest.raises(MachineError) as caught:
        Run(tmp_path / "run").refuse_if_taken()
    assert caught.value.code == code
    assert "found said" in str(caught.value) or number == errno.ENOTDIR
    assert "fix" in str(caught.value)


def test_what_the_disk_says_is_passed_on(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", fail)
    with pytest.raises(MachineError, match="Input/output"):
        Run(tmp_path / "run").refuse_if_taken()


def test_below_a_file_nothing_can_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(MachineError) as caught:
        Run(tmp_path / "file" / "run").refuse_if_taken()
    assert caught.value.code == "machine/read-only"


def test_the_model_is_in_its_folder(tmp_path):
    assert Run(tmp_path).model == tmp_path / "model"


@pytest.mark.parametrize("act", ["removed", "renamed", "replaced by a file"])
@pytest.mark.parametrize(
    "error", [FileNotFoundError("evaluations.jsonl"), ModelError(Problem("usage/not-a-run", "what came"))]
)
def test_a_folder_that_goes_away_is_said_to_be_gone_whatever_came_of_it(tmp_path, act, error):
    run = Run(tmp_path / "run")

    def go_away():
        run.folder.rename(tmp_path / "elsewhere")
        if act == "removed":
            shutil.rmtree(tmp_path / "elsewhere")
        if act == "replaced by a file":
            run.folder.write_text("a file")
        raise error

    with pytest.raises(MachineError) as caught, run.locked():
        go_away()
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("machine/folder-gone", str(run.folder))
    assert problem.found == str(error).splitlines()[0]
    assert not run.folder.is_dir()


def test_a_folder_that_a_library_made_again_is_not_the_runs(tmp_path):
    run = Run(tmp_path / "run")

    def made_again():
        run.folder.rename(tmp_path / "elsewhere")
        (run.folder / "model").mkdir(parents=True)

    with pytest.raises(MachineError, match="another folder stands in its place"), run.locked():
        made_again()


def test_what_fails_in_a_folder_that_is_there_is_told_as_it_is(tmp_path):
    run = Run(tmp_path / "run")
    with pytest.raises(FileNotFoundError), run.locked():
        raise FileNotFoundError("another file")
