"""Hostile and broken content: memory stays bounded, nothing is half read, and the error names what it is."""

from __future__ import annotations

import gzip
import io
import json
import string
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rowfiles import CONTENT, PACKING, items, problems, refusal, values, write, zst

from tutelage.data.sources import csvrows, jsonfile, lines, stored
from tutelage.data.sources.lines import Lines
from tutelage.types import Record

# --------------------------------------------------------------------------------------- written and read back

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20)
COLUMNS = st.lists(st.text(string.ascii_letters, min_size=1, max_size=5), min_size=1, max_size=4, unique=True)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, str]]:
    columns = draw(COLUMNS)
    return draw(st.lists(st.fixed_dictionaries({name: TEXTS for name in columns}), min_size=1, max_size=6))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(rows=tables())
def test_any_rows_are_read_back_from_any_type_in_any_packing(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    for kind in CONTENT:
        for packed in PACKING:
            assert values(write(tmp_path / f"r{kind}{packed}", rows)) == rows, (kind, packed)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=4), ANY, max_size=4), min_size=1, max_size=8),
    indent=st.sampled_from([None, 0, 3]),
    plain=st.booleans(),
    block=st.integers(1, 40),
)
def test_an_array_is_the_same_however_it_is_cut_into_blocks(
    tmp_path: Path, rows: list[Any], indent: int | None, plain: bool, block: int
) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=not plain), "utf-8")
    before = lines.BLOCK
    lines.BLOCK = block
    try:
        assert values(path) == rows
    finally:
        lines.BLOCK = before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(parts=st.lists(st.binary(max_size=50), max_size=6), block=st.integers(1, 20), more=st.integers(0, 20))
def test_lines_are_the_same_however_they_are_cut_into_blocks(parts: list[bytes], block: int, more: int) -> None:
    data, longest = b"\n".join(parts), block + more
    before = lines.BLOCK, lines.LONGEST
    lines.BLOCK, lines.LONGEST = block, longest
    try:
        found = Lines(io.BytesIO(data))
        wanted = data.split(b"\n")
        wanted = wanted if wanted[-1] else wanted[:-1]
        assert list(found) == [line if len(line) <= longest else None for line in wanted]
        assert found.whole == (not data or data.endswith(b"\n"))
    finally:
        lines.BLOCK, lines.LONGEST = before


# ----------------------------------------------------------------------------------------------- broken arrays


@pytest.mark.parametrize("block", [1, 7, 1 << 18])
@pytest.mark.parametrize(
    ("text", "where", "found"),
    [
        ('[{"a": 1},\n {"a": }]', ":2", "Expecting value at column 8"),
        ('[{"a": 1}\n {"a": 2}]', ":2", "Expecting ',' delimiter at column 2"),
        ('[{"a": 1},\n\n]', ":3", "Expecting value at column 1"),
        ('[{"a": 1}', ":1", "delimiter at column 10"),
        ('[{"a": 1}, {"b": "cut', ":1", "Unterminated string starting at column 18"),
        ('[{"a": 1}]\n[]', ":2", "Extra data at column 1"),
        ('[{"a": 1}, {"a": NaN}]', "", "row 2: NaN"),
        ('[{"a": 1}, {"a": 1, "a": 2}]', "", "row 2: the key `a`"),
        ('[{"a": 1}, {"a": "\\ud83d"}]', "", "row 2: a \\u escape spells half"),
        ('[{"a": 1}, ' + "[" * 100_000, "", "row 2: nested too deeply"),
    ],
)
def test_a_broken_array_is_refused_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, where: str, found: str, block: int
) -> None:
    monkeypatch.setattr(lines, "BLOCK", block)
    path = tmp_path / "r.json"
    path.write_text(text)
    problem = refusal(path)
    assert (problem.code, problem.where) == ("data/bad-json", f"{path}{where}")
    assert found in problem.found


def test_a_number_that_a_block_cuts_is_one_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK", 1)
    path = tmp_path / "r.json"
    path.write_text('[{"a": 1}, 12345, {"a": 67}]')
    first, number, last = items(path)
    assert [row.fields for row in (first, last) if isinstance(row, Record)] == [{"a": 1}, {"a": 67}]
    assert not isinstance(number, Record)
    assert number.found == "a number"


@pytest.mark.parametrize("block", [1, 3, 64])
def test_bytes_that_are_not_utf8_are_found_at_their_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(lines, "BLOCK", block)
    path = tmp_path / "r.json"
    path.write_bytes('[{"a": "ü"}, {"a": "'.encode() + b'\xfc"}]')
    problem = refusal(path)
    assert (problem.code, problem.found) == ("data/bad-encoding", "byte 0xfc at offset 21")


@pytest.mark.parametrize(
    ("escaped", "whole"),
    [
        (r"\ud83d\ude80", True),
        (r"\uD83D\uDE80\uD83D\uDE80", True),
        (r"\ud83d", False),
        (r"\ude80", False),
        (r"\ud83d\ud83d\ude80", False),
        (r"\ude80\ud83d", False),
        (r"\\ud83d", True),
        (r"\\ud83d\ude80", False),
        (r"\ud83d\\ude80", False),
        (r"\ud83d \ude80", False),
        (r"\u00fc", True),
    ],
)
@pytest.mark.parametrize("kind", [".jsonl", ".json"])
def test_half_characters_are_refused_and_whole_ones_are_not(
    tmp_path: Path, escaped: str, whole: bool, kind: str
) -> None:
    path = tmp_path / f"r{kind}"
    path.write_text(f'[{{"a": "{escaped}"}}]' if kind == ".json" else f'{{"a": "{escaped}"}}\n')
    if whole:
        assert values(path) == [{"a": json.loads(f'"{escaped}"')}]
    else:
        found = refusal(path) if kind == ".json" else problems(path)[0]
        assert "half a character" in found.found


# --------------------------------------------------------------------------------------------- bounded memory


def test_a_line_that_is_too_long_costs_itself_and_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST", 100_000)
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "' + b"x" * 30_000_000 + b'"}\n{"a": 3}\n')
    tracemalloc.start()
    first, problem, last = items(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(first, Record)
    assert isinstance(last, Record)
    assert last.origin.line == 3
    assert (problem.code, problem.where) == ("data/too-large", f"{path}:2")
    assert peak < 5_000_000


def test_a_long_line_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"a": "' + b"x" * 20_000_000 + b'"}\n{"a": "y"}')
    assert [len(row["a"]) for row in values(path)] == [20_000_000, 1]


def test_an_array_is_not_held_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("[" + ",\n".join(['{"a": "' + "x" * 1000 + '"}'] * 20_000) + "]")
    tracemalloc.start()
    assert sum(1 for _ in stored_rows(path)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000 < path.stat().st_size


def stored_rows(path: Path) -> Any:
    from tutelage.data.sources.files import read_file

    return read_file(str(path))


@pytest.mark.parametrize(
    "text",
    [
        '{"data": [' + '{"a": 1},\n' * 500 + '{"a": 1}]}',
        '{"data": [' + '{"a": 1},' * 500 + '{"a": 1}]}',
        '[{"a": "' + "x" * 3000 + '"}]',
        '[{"a": "' + "x" * 3000,
    ],
)
def test_json_that_must_be_held_whole_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(lines, "LONGEST", 1000)
    monkeypatch.setattr(lines, "BLOCK", 100)
    path = tmp_path / "r.json"
    path.write_text(text)
    assert refusal(path).code == "data/too-large"


def test_text_and_csv_have_the_same_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST", 1000)
    monkeypatch.setattr(lines, "BLOCK", 100)
    (tmp_path / "r.txt").write_text("x" * 1001)
    assert problems(tmp_path / "r.txt")[0].code == "data/too-large"
    for long in ("x" * 5000 + ",2", '"' + "y\n" * 600 + '",5'):
        (tmp_path / "r.csv").write_text(f"a,b\n1,2\n{long}\n6,7\n")
        problem = refusal(tmp_path / "r.csv")
        assert (problem.code, problem.where) == ("data/too-large", f"{tmp_path / 'r.csv'}:3")


@pytest.mark.parametrize("packed", [".gz", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".parquet", ".txt"])
def test_a_bomb_is_refused_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, packed: str) -> None:
    monkeypatch.setattr(stored, "_BOMB_BYTES", 1 << 22)
    pack = gzip.compress if packed == ".gz" else zst
    path = tmp_path / f"r{kind}{packed}"
    path.write_bytes(pack(b"a\n" + b"x" * (1 << 24)))
    problem = refusal(path)
    assert problem.code == "data/unreadable"
    assert "200 times" in problem.found


def test_what_packs_well_is_no_bomb_while_it_is_small(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl.gz", [{"a": "x" * 1000}] * 2000)
    assert path.stat().st_size * 200 < 2_000_000
    assert len(values(path)) == 2000


def test_long_rows_of_parquet_are_unpacked_a_few_at_once(tmp_path: Path) -> None:
    from tutelage.data.sources.parquetrows import _batch_size

    write(tmp_path / "short.parquet", [{"a": str(n)} for n in range(5000)])
    assert _batch_size(pq.ParquetFile(tmp_path / "short.parquet").metadata) == 1024
    rows = [{"a": f"{n}" * 1_000_000} for n in range(8)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "long.parquet", compression="none", use_dictionary=False)
    assert 30 < _batch_size(pq.ParquetFile(tmp_path / "long.parquet").metadata) < 70


# ------------------------------------------------------------------------------------------- what is it really


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\n <!DOCTYPE HTML><html><body>404", "a web page"),
        (b"<html lang=en>", "a web page"),
        (b'<?xml version="1.0"?><Error>', "a web page"),
        (b"PK\x03\x04....", "a zip archive"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
        ('{"a": 1}'.encode("utf-16-be"), "UTF-16"),
        (gzip.compress(b"{}", mtime=0), "gzip"),
        (zst(b"{}"), "zstandard"),
    ],
)
def test_what_it_is_really_is_named(tmp_path: Path, data: bytes, told: str, kind: str) -> None:
    path = tmp_path / f"r{kind}"
    path.write_bytes(data)
    if kind == ".parquet" and told == "UTF-16" and not data.startswith(b"\xff"):
        return
    assert told in refusal(path).found
    packed = tmp_path / f"r{kind}.gz"
    packed.write_bytes(data)
    if told != "gzip" and not (told == "UTF-16" and not data.startswith(b"\xff")):
        assert told in refusal(packed).found


def test_a_page_may_be_a_text(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("<html>kept as it is")
    assert values(tmp_path / "r.txt") == [{"text": "<html>kept as it is"}]


@pytest.mark.parametrize("head", ["a;b;c", "a\tb", "a|b"])
def test_a_csv_file_with_another_delimiter_is_named(tmp_path: Path, head: str) -> None:
    (tmp_path / "r.csv").write_text(f"{head}\n1;2;3\n")
    problem = refusal(tmp_path / "r.csv")
    assert problem.code == "data/unreadable"
    assert "no comma" in problem.found


def test_parquet_types_become_plain_values(tmp_path: Path) -> None:
    table = pa.table(
        {
            "large": pa.array(["x"], pa.large_string()),
            "view": pa.array(["y"], pa.string_view()),
            "dictionary": pa.array(["z"]).dictionary_encode(),
            "binary": pa.array([b"b"]),
            "nested": pa.array([[[{"a": [1]}]]]),
        }
    )
    pq.write_table(table, tmp_path / "r.parquet")
    wanted = {"large": "x", "view": "y", "dictionary": "z", "binary": b"b", "nested": [[{"a": [1]}]]}
    assert values(tmp_path / "r.parquet") == [wanted]


@pytest.mark.parametrize("name", ["r.jsonl.gz", "r.json.zst", "r.csv.gz", "r.parquet", "r.parquet.zst"])
def test_a_file_that_was_cut_off_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    data = write(tmp_path / name, [{"n": str(n * 7919)} for n in range(500)]).read_bytes()
    for end in (len(data) - 1, len(data) // 2, 12):
        (tmp_path / name).write_bytes(data[:end])
        assert refusal(tmp_path / name).code in ("data/unreadable", "data/bad-json"), end


def test_an_unpacked_byte_that_was_changed_is_noticed(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b'{"a": "x"}\n' * 1000))
    data[-6] ^= 1  # of the checksum
    (tmp_path / "r.jsonl.gz").write_bytes(data)
    assert refusal(tmp_path / "r.jsonl.gz").code == "data/unreadable"


def test_a_full_disk_is_the_machines_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored.shutil, "copyfileobj", full)
    assert refusal(write(tmp_path / "r.parquet.gz", [{"a": "1"}])).code == "machine/disk-full"


def test_the_limits_are_the_documented_ones() -> None:
    assert lines.LONGEST == csvrows.lines.LONGEST == jsonfile.lines.LONGEST == 256 * 2**20
    assert (stored._BOMB_BYTES, stored._BOMB_RATIO) == (2**30, 200)
