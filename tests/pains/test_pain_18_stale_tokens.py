"""Encoded rows are used again exactly when nothing that decides their tokens has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from conftest import make_encoder, make_template_tokenizer
from tutelage.data.dataset import prepare
from tutelage.data.encode import Encoder
from tutelage.data.encode.template import ChatTemplate
from tutelage.data.store import building, identity
from tutelage.errors import DataError
from tutelage.recipe import DataOptions

MANY = [{"instruction": f"Ask {n}", "output": f"Yes {n}.", "system": "Be kind." if n % 3 else ""} for n in range(40)]


@pytest.fixture
def encoded(monkeypatch):
    """How many rows went through the encoder."""
    seen: list[int] = []
    original = Encoder.encode

    def counted(self, rows, **options):
        def passing():
            for row in rows:
                seen.append(1)
                yield row

        return original(self, passing(), **options)

    monkeypatch.setattr(Encoder, "encode", counted)
    return lambda: (len(seen), seen.clear())[0]


@pytest.fixture
def tokenizer(tmp_path):
    return make_template_tokenizer(tmp_path / "tokenizer", "chatml")


def options(path, store, **more) -> DataOptions:
    train = [{"path": str(path), **more.pop("source", {})}]
    return DataOptions.model_validate({"train": train, "store": str(store), "heldout": 0.2, **more})


def tokens(data):
    return [(e.input_ids.tolist(), e.weights.tolist()) for split in ("train", "heldout") for e in data.examples(split)]


def stores(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def test_the_second_run_encodes_nothing_and_sees_the_same(rows, tmp_path, tokenizer, encoded):
    path = rows(MANY)
    first = prepare(options(path, tmp_path / "store"), make_encoder(tokenizer))
    assert encoded() == 40
    os.utime(path, (0, 0))  # touched, not changed
    second = prepare(options(path, tmp_path / "store"), make_encoder(tokenizer))
    assert encoded() == 0
    assert tokens(first) == tokens(second)
    assert first.ledger.as_json() == second.ledger.as_json()
    assert first.sources == second.sources
    assert first.stop_ids == second.stop_ids


@pytest.mark.parametrize(
    "changed",
    [
        {"heldout": 0.5},
        {"duplicates": {"exact": "drop"}},
        {"duplicates": {"near": "drop"}},
        {"mixture": {"by": "examples"}},
        {"source": {"cap": 3, "name": "mine", "share": 2.0}},
        {"max_quarantined": 0.5},
        {"store_limit": 10**9},
    ],
)
def test_what_does_not_change_the_tokens_uses_them_again(rows, tmp_path, tokenizer, encoded, changed):
    path = rows(MANY)
    prepare(options(path, tmp_path / "store"), make_encoder(tokenizer))
    encoded()
    prepare(options(path, tmp_path / "store", **changed), make_encoder(tokenizer))
    assert encoded() == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"max_length": 1000},
        {"over_long": "drop"},
        {"source": {"weight": 2.0}},
        {"source": {"limit": 39}},
        {"thinking_weight": 0.5},
        {"renderings": {"train": ["plain", "alpaca"]}},
        {"duplicates": {"threshold": 0.5}},
        {"clean": {"line_endings": "keep"}},
    ],
)
def test_what_may_change_the_tokens_does_not(rows, tmp_path, tokenizer, encoded, changed):
    path = rows(MANY)
    prepare(options(path, tmp_path / "store"), make_encoder(tokenizer))
    encoded()
    prepare(options(path, tmp_path / "store", **changed), make_encoder(tokenizer))
    assert encoded() > 0


def test_one_character_of_the_rows_the_template_or_the_code_is_another_store(
    rows, tmp_path, tokenizer, encoded, monkeypatch
):
    path = rows(MANY)
    encoder = make_encoder(tokenizer)
    prepare(options(path, tmp_path / "store"), encoder)
    path.write_text(path.read_text().replace("Yes 3.", "Yes 3!"))
    prepare(options(path, tmp_path / "store"), encoder)
    assert encoded() == 80
    template = ChatTemplate(encoder.template.source + " ", encoder.tokenizer.special_tokens, name="changed")
    prepare(options(path, tmp_path / "store"), Encoder(encoder.tokenizer, template))
    assert encoded() == 40
    monkeypatch.setattr(identity, "_code", lambda: "other")
    prepare(options(path, tmp_path / "store"), encoder)
    assert encoded() == 40
    assert len(stores(tmp_path / "store")) == 4


def test_another_process_finds_the_store_by_the_same_name(rows, tmp_path, tokenizer, encoded):
    path, folder = rows(MANY), str(tmp_path / "saved")
    tokenizer.save_pretrained(folder)
    program = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from transformers import AutoTokenizer
from conftest import make_encoder
from tutelage.data.dataset import prepare
from tutelage.recipe import DataOptions
options = DataOptions.model_validate({{"train": [{{"path": {str(path)!r}}}], "store": {str(tmp_path / "store")!r}}})
prepare(options, make_encoder(AutoTokenizer.from_pretrained({folder!r})))
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    (built,) = stores(tmp_path / "store")
    again = AutoTokenizer.from_pretrained(folder)
    prepare(options(path, tmp_path / "store", heldout=0.05), make_encoder(again))
    assert encoded() == 0
    assert stores(tmp_path / "store") == [built]


@pytest.mark.parametrize("near", ["off", "keep"])
@pytest.mark.parametrize("after", [1, 7, 8, 23, 39])
def test_a_building_that_was_killed_goes_on(rows, tmp_path, tokenizer, encoded, monkeypatch, after, near):
    """Killed at any row: what it has stored is not encoded again, and the end is the same to the last bit."""
    values = [*MANY[:20], {"instruction": "Ask 99", "output": " "}, *MANY[20:], MANY[5]]
    path = rows(values)
    policy = {"on_bad_row": "quarantine", "max_quarantined": 0.1, "duplicates": {"near": near}}
    whole = prepare(options(path, tmp_path / "whole", **policy), make_encoder(tokenizer))
    encoded()

    monkeypatch.setattr(building, "PART_ROWS", 8)
    store, left = building.Building._store, [after]

    def killed(self, *given):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return store(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(building.Building, "_store", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(options(path, tmp_path / "store", **policy), make_encoder(tokenizer))
    encoded()
    again = prepare(options(path, tmp_path / "store", **policy), make_encoder(tokenizer))
    assert encoded() == 41 - after // 8 * 8
    assert tokens(again) == tokens(whole)
    assert again.ledger.as_json() == whole.ledger.as_json()
    assert again.quarantined == whole.quarantined
    assert again.stop_ids == whole.stop_ids
    assert [row.origin for row in again.rows()] == [row.origin for row in whole.rows()]


def test_rows_that_are_refused_leave_no_store(rows, tmp_path, tokenizer):
    path = rows([*MANY, {"instruction": "Ask", "output": ""}])
    for _ in range(2):
        with pytest.raises(DataError, match="data/empty-answer"):
            prepare(options(path, tmp_path / "store"), make_encoder(tokenizer))
        assert stores(tmp_path / "store") == []


def test_ten_settings_stay_under_the_limit_and_the_last_used_stay(rows, tmp_path, tokenizer, encoded):
    path = rows(MANY)
    one = prepare(options(path, tmp_path / "probe"), make_encoder(tokenizer)).store.bytes_on_disk()
    limit = int(3.5 * one)
    for length in range(1000, 1010):
        data = prepare(options(path, tmp_path / "store", max_length=length, store_limit=limit), make_encoder(tokenizer))
        os.utime(data.store.folder, (length, length))
        assert sum(f.stat().st_size for f in (tmp_path / "store").rglob("*") if f.is_file()) <= limit
    encoded()
    for length in (1009, 1008, 1007):
        prepare(options(path, tmp_path / "store", max_length=length, store_limit=limit), make_encoder(tokenizer))
    assert encoded() == 0
    prepare(options(path, tmp_path / "store", max_length=1001, store_limit=limit), make_encoder(tokenizer))
    assert encoded() == 40
