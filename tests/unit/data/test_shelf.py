"""Stores are found, shared and removed, and nothing else is touched; what is broken is built anew."""

from __future__ import annotations

import errno
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from conftest import make_encoder, make_template_tokenizer
from tutelage import cache
from tutelage.data import store as stores
from tutelage.data.dataset import prepare
from tutelage.data.store.building import Building
from tutelage.errors import DataError, MachineError
from tutelage.recipe import DataOptions

MANY = [{"instruction": f"Ask {n}", "output": f"Yes {n}."} for n in range(40)]


@pytest.fixture
def tokenizer(tmp_path):
    return make_template_tokenizer(tmp_path / "tokenizer", "chatml")


def options(path, store, **more) -> DataOptions:
    return DataOptions.model_validate({"train": [{"path": str(path)}], "store": str(store), "heldout": 0.3, **more})


def sides(data):
    return data.selection.sides.tolist()


def test_what_is_not_a_store_is_never_removed(rows, tmp_path, tokenizer):
    shelf = tmp_path / "mine"
    for name in ("my-runs", "0" * 31, "g" * 32):
        (shelf / name).mkdir(parents=True)
        (shelf / name / "work").write_text("weeks of it")
    for length in (1000, 1001):
        prepare(options(rows(MANY), shelf, store_limit=1, max_length=length), make_encoder(tokenizer))
    assert {p.name for p in shelf.iterdir() if p.is_dir()} >= {"my-runs", "0" * 31, "g" * 32}
    assert all((shelf / name / "work").is_file() for name in ("my-runs", "0" * 31, "g" * 32))
    assert len([p for p in shelf.iterdir() if (p / "store.json").is_file()]) == 1


@pytest.mark.parametrize("gone", ["near.npy", "part-00000", "part-00000/tokens.bin", "part-00000/part.json"])
def test_a_store_of_which_something_is_gone_is_built_anew(rows, tmp_path, tokenizer, gone):
    path = rows(MANY)
    first = prepare(options(path, tmp_path / "s"), make_encoder(tokenizer))
    lost = first.store.folder / gone
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    again = prepare(options(path, tmp_path / "s"), make_encoder(tokenizer))
    assert lost.exists()
    assert sides(again) == sides(first)
    assert [e.input_ids.tolist() for e in again.examples("train")] == [
        e.input_ids.tolist() for e in first.examples("train")
    ]


def test_a_building_killed_while_it_was_completed_is_completed(rows, tmp_path, tokenizer, monkeypatch):
    path = rows(MANY)
    whole = prepare(options(path, tmp_path / "whole"), make_encoder(tokenizer))
    write = stores.write_json

    def killed(place, value):
        if place.name == "store.json":
            raise KeyboardInterrupt
        write(place, value)

    with monkeypatch.context() as patch:
        patch.setattr(stores, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(options(path, tmp_path / "s"), make_encoder(tokenizer))
    again = prepare(options(path, tmp_path / "s"), make_encoder(tokenizer))
    assert sides(again) == sides(whole)
    assert again.ledger.as_json() == whole.ledger.as_json()


def test_over_long_rows_are_refused_also_after_an_interrupt(rows, tmp_path, tokenizer, monkeypatch):
    path = rows([*MANY, {"instruction": "Ask", "output": "word " * 300}])
    run = Building.run

    def interrupted(self):
        run(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Building, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(options(path, tmp_path / "s", max_length=100), make_encoder(tokenizer))
    with pytest.raises(DataError, match="data/over-long"):
        prepare(options(path, tmp_path / "s", max_length=100), make_encoder(tokenizer))


def test_a_store_that_is_removed_while_it_is_in_use_can_still_be_read(rows, tmp_path, tokenizer):
    data = prepare(options(rows(MANY), tmp_path / "s"), make_encoder(tokenizer))
    before = [example.input_ids.tolist() for example in data.examples("train")]
    shutil.rmtree(data.store.folder)
    assert [example.input_ids.tolist() for example in data.examples("train")] == before
    assert data.store.array("near") is not None


def test_a_file_that_changes_while_it_is_read_is_refused(rows, tmp_path, tokenizer, monkeypatch):
    path = rows(MANY)
    run = Building.run

    def changed(self):
        run(self)
        path.write_text(path.read_text() + json.dumps(MANY[0]) + "\n")

    with monkeypatch.context() as patch:
        patch.setattr(Building, "run", changed)
        with pytest.raises(DataError, match="changed while it was read"):
            prepare(options(path, tmp_path / "s"), make_encoder(tokenizer))
    assert prepare(options(path, tmp_path / "s"), make_encoder(tokenizer)).ledger.rows == 41


def test_two_that_want_the_same_store_build_it_once(rows, tmp_path, tokenizer, monkeypatch):
    path, built, told = rows(MANY), [], []
    run = Building.run
    monkeypatch.setattr(Building, "run", lambda self: (built.append(1), run(self))[1])

    def wanted():
        prepare(options(path, tmp_path / "s"), make_encoder(tokenizer), say=told.append)

    threads = [threading.Thread(target=wanted) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_a_full_disk_is_said_to_be_full(rows, tmp_path, tokenizer, monkeypatch):
    with pytest.raises(OSError, match="No space left") as caught:
        stores._write(Path("/dev/full"), np.arange(10, dtype=np.uint16))
    assert caught.value.errno == errno.ENOSPC

    def full(path, array):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stores, "_write", full)
    with pytest.raises(MachineError) as told:
        prepare(options(rows(MANY), tmp_path / "s"), make_encoder(tokenizer))
    assert told.value.code == "machine/disk-full"
    assert "data.store=" in str(told.value)


def test_without_a_home_there_is_a_cache_all_the_same(monkeypatch):
    def homeless():
        raise RuntimeError("no home")

    monkeypatch.setattr(cache.Path, "home", homeless)
    monkeypatch.delenv("TUTELAGE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.cache_folder().name.startswith("tutelage")


def test_rows_that_cannot_be_told_apart_are_all_found_again(rows, tmp_path, tokenizer):
    """Several rows of one origin with one prompt, as a file of functions or of tasks has them."""
    task = {
        "Definition": "Say it.",
        "Instances": [{"input": "same", "output": [f"Answer {n}."]} for n in range(3)]
        + [{"input": "x", "output": "y"}],
    }
    path = tmp_path / "task.json"
    path.write_text(json.dumps(task))
    given = options(rows(MANY), tmp_path / "s", heldout={"path": str(path), "format": "natural-instructions"})
    data = prepare(given, make_encoder(tokenizer))
    asked = data.asking(10)
    assert [one.messages[-1].content for one in data.demonstrations(asked)] == [
        "Answer 0.", "Answer 1.", "Answer 2.", "y"
    ]  # fmt: skip


def test_one_malformed_row_does_not_hold_the_rest_in_memory(rows, tmp_path, tokenizer, monkeypatch):
    path = rows(
        [{"instruction": "Ask", "output": ""}, *({**row, "instruction": f"A{n}"} for n, row in enumerate(MANY))]
    )
    longest = []
    settle = Building._settle_waiting
    monkeypatch.setattr(Building, "_settle_waiting", lambda self: (longest.append(len(self._waiting)), settle(self))[1])
    with pytest.raises(DataError, match="data/empty-answer"):
        prepare(options(path, tmp_path / "s"), make_encoder(tokenizer))
    assert max(longest) <= 1
