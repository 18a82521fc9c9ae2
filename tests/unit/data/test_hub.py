"""Data sets of the hub: the hub is a folder of the test, and nothing may reach the network."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from rowfiles import items, refusal, values, write

from tutelage.data.sources import fingerprint, hub, read
from tutelage.errors import DataError
from tutelage.recipe import HeldoutFile, Source
from tutelage.types import Record

datasets: Any = pytest.importorskip("datasets", reason="the hub extra is not installed")


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder below which `someone/...` is found; connecting anywhere fails the test."""

    def refuse(*_: object) -> None:
        pytest.fail("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    for name in ("load_dataset", "load_dataset_builder"):
        there = getattr(datasets, name)
        monkeypatch.setattr(datasets, name, lambda id, _there=there, **kw: _there(str(tmp_path / "hub" / id), **kw))
    folder = tmp_path / "hub" / "someone" / "set"
    write(folder / "train.jsonl", [{"a": "x", "k": 1}, {"a": "y", "k": 2}, {"a": "z", "k": 2}])
    write(folder / "test.jsonl", [{"a": "t", "k": 3}])
    return folder


@pytest.mark.parametrize("options", [{}, {"streaming": True, "limit": 10}])
def test_a_split_is_read_stored_or_streamed(sets: Path, options: dict[str, Any]) -> None:
    rows = items("someone/set", **options)
    assert [str(row.origin) for row in rows if isinstance(row, Record)] == [f"someone/set:{n}" for n in (1, 2, 3)]
    assert values("someone/set", **options)[0] == {"a": "x", "k": 1}
    assert values("someone/set", split="test", **options) == [{"a": "t", "k": 3}]
    heldout = read(HeldoutFile(path="someone/set", **options))
    assert [row.fields["a"] for row in heldout if isinstance(row, Record)] == ["t"]
    assert values("someone/set", where={"k": 2}, fields={"output": "a"}, **options)[1] == {"k": 2, "output": "z"}
    assert refusal("someone/set", split="nope", **options).code == "data/unreadable"


def test_subsets_are_chosen_by_name(sets: Path) -> None:
    write(sets / "fr" / "train.jsonl", [{"a": "un"}])
    card = [{"config_name": "en", "data_files": "train.jsonl"}, {"config_name": "fr", "data_files": "fr/train.jsonl"}]
    (sets / "README.md").write_text("---\nconfigs: " + json.dumps(card) + "\n---\n")
    assert values("someone/set", subset="fr") == [{"a": "un"}]
    assert fingerprint(Source(path="someone/set", subset="fr"))["subset"] == "fr"
    problem = refusal("someone/set", subset="de")
    assert problem.code == "data/unreadable"
    assert "fr" in problem.found


def test_a_hub_set_and_a_file_make_one_source(sets: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "more.jsonl", [{"a": "w", "k": 0}])
    both = ["someone/set", str(path)]
    assert [row["a"] for row in values(both)] == ["x", "y", "z", "w"]
    source = Source(path=tuple(both))
    assert json.loads(json.dumps(fingerprint(source))) == fingerprint(source)
    assert refusal(["someone/set", "someone/set"]).code == "recipe/conflict"


def test_the_fingerprint_is_of_the_content(sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(path="someone/set")
    before = fingerprint(source)
    assert (before["path"], before["split"], before["subset"], before["rows"]) == ("someone/set", "train", None, 3)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "other")
    assert fingerprint(source) == before, "stored again elsewhere"
    write(sets / "train.jsonl", [{"a": "x", "k": 1}, {"a": "y", "k": 2}, {"a": "Z", "k": 2}])
    after = fingerprint(source)
    assert after["rows"] == before["rows"]
    assert after["sha256"] != before["sha256"]


def test_the_fingerprint_of_a_stream_is_its_commit(sets: Path) -> None:
    identity = fingerprint(Source(path="someone/set", streaming=True, limit=2))
    assert {**identity, "revision": None} == {
        "path": "someone/set",
        "subset": None,
        "split": "train",
        "revision": None,
        "limit": 2,
    }
    assert identity["revision"]


def test_a_stream_needs_a_limit_and_ends_there(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = refusal("someone/set", streaming=True)
    assert (problem.code, "limit" in problem.fix) == ("recipe/conflict", True)
    given = []

    class Endless:
        def __iter__(self) -> Any:
            while True:
                given.append(1)
                yield {"a": "x"}

    endless = hub.HubSet("someone/set", "train", None, 5, True, Endless(), None)
    monkeypatch.setattr(hub, "load", lambda id, rows: endless)
    assert len(items("someone/set", streaming=True, limit=5)) == len(given) == 5


def test_a_stream_that_breaks_off_is_no_shorter_set() -> None:
    def rows() -> Any:
        yield {"a": 1}
        raise KeyError("whatever a transport raises")

    broken = hub.HubSet("someone/set", "train", None, 5, True, rows(), None).rows()
    assert isinstance(next(broken), Record)
    with pytest.raises(DataError, match="after 1 rows"):
        next(broken)


@pytest.mark.parametrize("option", [{"split": "train"}, {"subset": "x"}, {"streaming": True, "limit": 3}])
def test_options_of_the_hub_are_refused_for_files(tmp_path: Path, option: dict[str, Any]) -> None:
    problem = refusal(write(tmp_path / "a.jsonl", [{"a": 1}]), **option)
    assert problem.code == "recipe/conflict"
    assert f"`{next(iter(option))}` is for hub data sets" in problem.what


def test_a_hub_id_cannot_be_joined(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"a": 1}])
    assert refusal(path, join={"path": "someone/set", "on": "a"}).code == "recipe/conflict"


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, **options: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    problem = refusal("someone/set")
    assert problem.code == "data/missing-file"
    assert "no local file or folder" in problem.found
    assert "no network" in problem.found


def test_nobody_is_told_and_no_code_is_run(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    given: dict[str, Any] = {}
    there = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda id, **options: given.update(options) or there(id, **options))
    values("someone/set")
    assert constants.HF_HUB_DISABLE_TELEMETRY
    assert not datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert set(given) == {"name", "split"}
    (sets / "set.py").write_text("open('it-ran', 'w')")
    (sets / "train.jsonl").unlink()
    (sets / "test.jsonl").unlink()
    assert refusal("someone/set").code in ("data/missing-file", "data/unreadable")
    assert not Path("it-ran").exists()
