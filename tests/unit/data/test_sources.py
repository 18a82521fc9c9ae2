"""Reading: every row of every file type is a `Record` or a `Problem`, at the right line."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tutelage.data.sources import fingerprint, read
from tutelage.errors import DataError, MachineError, Problem, RecipeError
from tutelage.recipe import DataOptions, HeldoutFile, Source
from tutelage.types import Record

ROWS = [{"a": "one", "n": 1}, {"a": "zwei \u2028 \u0085 \x0b", "n": 2.5}, {"a": "", "n": None}]


def write_jsonl(path: Path, rows: list[Any] = ROWS) -> Path:
    path.write_bytes(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
    return path


def zst(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


def rows_of(path: Path | str, **options: Any) -> list[Record | Problem]:
    return list(read(Source(path=str(path), **options)))


def fields_of(path: Path) -> list[Any]:
    rows = rows_of(path)
    assert all(isinstance(row, Record) for row in rows), rows
    return [dict(row.fields) for row in rows if isinstance(row, Record)]


def lines_of(path: Path) -> list[int]:
    return [row.origin.line for row in rows_of(path) if isinstance(row, Record)]


def failure(path: Path | str) -> Problem:
    with pytest.raises(DataError) as caught:
        rows_of(path)
    return caught.value.problems[0]


def only_problem(path: Path) -> Problem:
    (problem,) = (row for row in rows_of(path) if isinstance(row, Problem))
    return problem


# ---------------------------------------------------------------------------------------------- JSON lines


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "json", "JSONL"])
def test_json_lines_keep_every_character_and_line(tmp_path: Path, ending: str) -> None:
    path = write_jsonl(tmp_path / f"rows.{ending}")
    assert fields_of(path) == ROWS
    assert lines_of(path) == [1, 2, 3]
    assert [row.origin.file for row in rows_of(path) if isinstance(row, Record)] == [str(path)] * 3


def test_raw_line_separators_do_not_end_a_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"a": "x\u2028y\u2029z\u0085"}\n{"a": "2"}\n'.encode())
    assert fields_of(path) == [{"a": "x\u2028y\u2029z\u0085"}, {"a": "2"}]


def test_blank_lines_bom_and_crlf(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": 2}\r\n\n{"a": 3}')
    assert fields_of(path) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert lines_of(path) == [1, 4, 6]


@pytest.mark.parametrize(
    ("line", "code", "found"),
    [
        (b'{"a": 1,}', "data/bad-json", "column 9"),
        (b"{'a': 1}", "data/bad-json", "column 2"),
        (b'{"a": "cut', "data/bad-json", "Unterminated string"),
        (b'{"a": "raw \x0b control"}', "data/bad-json", "control character"),
        (b'{"a": NaN}', "data/bad-json", "NaN"),
        (b'{"a": [-Infinity]}', "data/bad-json", "-Infinity"),
        (b'{"a": 1e400}', "data/bad-json", "1e400"),
        (b'{"b": {"role": "user", "role": "assistant"}}', "data/bad-json", "`role`"),
        (b'{"a": "\\ud800"}', "data/bad-json", "surrogate"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "data/bad-json", "nested"),
        (b'{"a": ' + b"1" * 5000 + b"}", "data/bad-json", "5000 digits"),
        (b"[1, 2]", "data/bad-json", "an array"),
        (b'"text"', "data/bad-json", "a string"),
        (b"null", "data/bad-json", "null"),
        (b"17", "data/bad-json", "a number"),
        (b'{"a": "Z\xfcrich"}', "data/bad-encoding", "0xfc at offset 8"),
    ],
)
def test_a_bad_line_is_a_problem_and_reading_goes_on(tmp_path: Path, line: bytes, code: str, found: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b'\n{"a": 2}\n')
    first, problem, last = rows_of(path)
    assert isinstance(first, Record)
    assert isinstance(last, Record)
    assert last.origin.line == 4
    assert isinstance(problem, Problem)
    assert (problem.code, problem.where) == (code, f"{path}:3")
    assert found in problem.found
    assert problem.why == ""


def test_a_line_cut_off_at_the_end_of_the_file_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "tw')
    assert "cut off" in only_problem(path).why


def test_escaped_pairs_are_whole_characters(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"a": "🚀"}) + "\n")
    assert fields_of(path) == [{"a": "🚀"}]


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' * 200_000)
    rows = read(Source(path=str(path)))
    assert next(rows) is not None
    path.write_bytes(b"")  # what follows is read from the file only when it is asked for
    assert sum(1 for _ in rows) < 100_000


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=8), VALUES, max_size=4), min_size=1, max_size=6),
    blanks=st.lists(st.integers(0, 2), min_size=6, max_size=6),
    plain=st.booleans(),
    line_end=st.sampled_from([b"\n", b"\r\n"]),
)
def test_whatever_is_written_reads_back(
    tmp_path: Path, rows: list[dict[str, Any]], blanks: list[int], plain: bool, line_end: bytes
) -> None:
    data, lines, line = b"", [], 0
    for row, skipped in zip(rows, blanks, strict=False):
        line += skipped + 1
        lines.append(line)
        data += line_end * skipped + json.dumps(row, ensure_ascii=not plain).encode() + line_end
    for name, stored in (("r.jsonl", data), ("r.jsonl.gz", gzip.compress(data)), ("r.jsonl.zst", zst(data))):
        path = tmp_path / name
        path.write_bytes(stored)
        assert fields_of(path) == rows
        assert lines_of(path) == lines


# ---------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    "value",
    [
        ROWS,
        {"data": ROWS},
        {"version": "1", "train": ROWS},
        {"things": ROWS, "names": ["x"]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_json_array_or_object_with_one(tmp_path: Path, value: object, indent: int | None) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(value, indent=indent), encoding="utf-8-sig")
    assert fields_of(path) == ROWS
    assert lines_of(path) == [1, 2, 3]


@pytest.mark.parametrize(
    "row", [{"messages": [{"role": "user", "content": "x"}]}, {"instruction": "x", "output": "y", "history": []}]
)
@pytest.mark.parametrize("indent", [None, 2])
def test_one_json_object_is_one_row(tmp_path: Path, row: dict[str, Any], indent: int | None) -> None:
    path = tmp_path / "row.json"
    path.write_text(json.dumps(row, indent=indent))
    assert fields_of(path) == [row]


def test_json_rows_that_are_no_objects_are_problems(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1}, 2, {"a": 3}]')
    assert only_problem(path).where == f"{path}:2"
    assert lines_of(path) == [1, 3]


@pytest.mark.parametrize(
    ("data", "code", "where"),
    [
        (b'[{"a": 1},\n {"a": }]', "data/bad-json", ":2"),
        (b'[{"a": NaN}]', "data/bad-json", ""),
        (b"17", "data/bad-json", ""),
        (b'[{"a": "\xff"}]', "data/bad-encoding", ""),
        (b"", "data/bad-json", ":1"),
        (b"[]", "data/empty-file", ""),
        (b'{"data": []}', "data/empty-file", ""),
    ],
)
def test_a_broken_json_file_is_refused(tmp_path: Path, data: bytes, code: str, where: str) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(data)
    assert (failure(path).code, failure(path).where) == (code, f"{path}{where}")


# ------------------------------------------------------------------------------------------ CSV and plain text


def test_csv_rows_start_at_their_physical_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [["q", "a"], ["1", "two\nlines, and a \r too"], ["2", 'a "quote"'], ["3", "\u2028"]]
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
        file.write("\n4,end\n")
    assert [list(row.values()) for row in fields_of(path)] == [*rows[1:], ["4", "end"]]
    assert lines_of(path)[0] == 2
    assert lines_of(path)[-1] == path.read_bytes().replace(b"\r", b"\n").count(b"\n")


def test_bad_csv_rows_are_problems(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'q,a\n1,2,3\n4,Z\xfcrich\n5\n"6"x,7\n8,9\n')
    *problems, last = rows_of(path)
    assert [(p.code, p.where) for p in problems if isinstance(p, Problem)] == [
        ("data/bad-row", f"{path}:2"),
        ("data/bad-encoding", f"{path}:3"),
        ("data/bad-row", f"{path}:4"),
        ("data/bad-row", f"{path}:5"),
    ]
    assert isinstance(problems[1], Problem)
    assert problems[1].found.startswith("byte 0xfc after 1 bytes")
    assert isinstance(last, Record)
    assert dict(last.fields) == {"q": "8", "a": "9"}


def test_a_csv_field_may_be_long_and_a_quote_must_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n" + "x" * 200_000 + ',1\n"never closed\n2,3\n')
    long, problem = rows_of(path)
    assert isinstance(long, Record)
    assert len(long.fields["a"]) == 200_000
    assert isinstance(problem, Problem)
    assert problem.where == f"{path}:3"


def test_csv_header(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b,a\n1,2,3\n")
    assert failure(path).code == "data/unreadable"
    path.write_text("a,b\n")
    assert failure(path).code == "data/empty-file"
    path.write_bytes(b"a,\xff\n1,2\n")
    assert failure(path).code == "data/bad-encoding"


def test_a_text_file_is_one_row_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xef\xbb\xbf one\r\n\n\ntwo \n")
    assert fields_of(path) == [{"text": " one\r\n\n\ntwo \n"}]
    path.write_bytes(b"ab\xff")
    assert only_problem(path).found == "byte 0xff at offset 2"


# -------------------------------------------------------------------------------------------------- Parquet


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_parquet_gives_plain_values_row_by_row(tmp_path: Path, packed: str) -> None:
    rows = [{"messages": [{"role": "user", "content": str(i)}], "tags": None, "n": i} for i in range(3000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    data = (tmp_path / "rows.parquet").read_bytes()
    path = tmp_path / f"other.parquet{packed}"
    path.write_bytes({"": data, ".gz": gzip.compress(data), ".zst": zst(data)}[packed])
    assert fields_of(path) == rows
    assert lines_of(path) == list(range(1, 3001))


def test_unsafe_or_broken_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table([[1], [2]], names=["a", "a"]), path)
    assert (failure(path).code, failure(path).found) == ("data/unreadable", "the column `a` occurs twice")
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"x" * 16], pa.binary(16)))
    pq.write_table(pa.table({"ids": pa.ListArray.from_arrays([0, 1], ids)}), path)
    assert "extension type" in failure(path).found
    unknown = pa.field("u", pa.int64(), metadata={"ARROW:extension:name": "nobody.knows"})
    pq.write_table(pa.table([[1]], schema=pa.schema([unknown])), path)
    assert "extension type" in failure(path).found
    pq.write_table(pa.table({"a": list(range(1000))}), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert failure(path).code == "data/unreadable"
    path.write_bytes(b"")
    assert failure(path).code == "data/unreadable"
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), path)
    assert failure(path).code == "data/empty-file"


# ----------------------------------------------------------------------------------- packing, paths, folders


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_packed_files_read_as_their_content(tmp_path: Path, packed: str) -> None:
    pack = gzip.compress if packed == ".gz" else zst
    data = write_jsonl(tmp_path / "rows.jsonl").read_bytes()
    path = tmp_path / f"more.rows.jsonl{packed}"
    path.write_bytes(pack(data) + pack(data))
    assert fields_of(path) == ROWS * 2
    for broken in (pack(data)[:-9], b"no archive", pack(data) + b"left over"):
        path.write_bytes(broken)
        assert failure(path).code == "data/unreadable"


def test_a_cut_archive_does_not_pass_for_a_shorter_one(tmp_path: Path) -> None:
    rows = [{"n": i, "h": hashlib.sha256(str(i).encode()).hexdigest()} for i in range(5000)]
    data = write_jsonl(tmp_path / "rows.jsonl", rows).read_bytes()
    for packed, pack in ((".gz", gzip.compress), (".zst", zst)):
        path = tmp_path / f"cut.jsonl{packed}"
        path.write_bytes(pack(data)[:-1])
        assert failure(path).code == "data/unreadable"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (gzip.compress(b"{}"), "gzip"),
        (zst(b"{}"), "zstandard"),
        (b"PK\x03\x04....", "zip"),
        (b"PAR1....", "Parquet"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_content_that_is_something_else_is_named(tmp_path: Path, data: bytes, named: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    assert failure(path).code == "data/unreadable"
    assert named in failure(path).found


@pytest.mark.parametrize("data", [b"", b"\n \r\n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.csv"])
def test_no_rows_is_an_error(tmp_path: Path, data: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data.replace(b" ", b""))
    assert failure(path).code == "data/empty-file"


def test_a_folder_is_its_data_files_by_name(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl", [{"n": 3}, {"n": 4}])
    (tmp_path / "a.csv").write_text("n\n1\n2\n")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"five"))
    (tmp_path / "README.md").write_text("no data")
    (tmp_path / "z.jsonl").mkdir()
    rows = [row for row in rows_of(tmp_path) if isinstance(row, Record)]
    assert [row.fields for row in rows] == [{"n": "1"}, {"n": "2"}, {"n": 3}, {"n": 4}, {"text": "five"}]
    assert str(rows[2].origin) == f"{tmp_path / 'b.jsonl'}:1"
    assert rows_of(tmp_path, limit=3) == rows[:3]


def test_a_folder_without_data_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    problem = failure(tmp_path)
    assert problem.code == "data/missing-file"
    assert "`data`" in problem.found


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "alpaca_cleaned.jsonl")
    problem = failure(tmp_path / "alpaca_clened.jsonl")
    assert problem.code == "data/missing-file"
    assert "alpaca_cleaned.jsonl" in problem.fix
    assert failure(tmp_path / "no" / "such.jsonl").code == "data/missing-file"
    (tmp_path / "rows.xlsx").write_bytes(b"x")
    problem = failure(tmp_path / "rows.xlsx")
    assert problem.code == "data/unknown-type"
    assert ".jsonl .ndjson .json .csv .parquet .txt" in problem.fix
    (tmp_path / "rows.xlsx").unlink()
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    assert failure(tmp_path).code == "data/unreadable"


def test_limit_counts_rows_bad_ones_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\nbad\n{"a": 2}\n')
    assert len(rows_of(path, limit=2)) == 2
    assert isinstance(rows_of(path, limit=2)[1], Problem)
    assert len(list(read(HeldoutFile(path=str(path), limit=1)))) == 1


# ------------------------------------------------------------------------------------ fingerprints, elsewhere


def test_fingerprint_is_of_the_stored_bytes(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl")
    data = path.read_bytes()
    same = {"path": str(path), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert fingerprint(Source(path=str(path))) == same
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(data))
    assert fingerprint(Source(path=str(packed)))["sha256"] == hashlib.sha256(packed.read_bytes()).hexdigest()


def test_fingerprint_of_a_folder_changes_with_any_file(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl")
    write_jsonl(tmp_path / "b.jsonl")
    source = Source(path=str(tmp_path))
    before = fingerprint(source)
    assert before["bytes"] == 2 * (tmp_path / "a.jsonl").stat().st_size
    write_jsonl(tmp_path / "b.jsonl", ROWS[::-1])
    after = fingerprint(source)
    assert (after["bytes"], after["path"]) == (before["bytes"], before["path"])
    assert after["sha256"] != before["sha256"]
    (tmp_path / "b.jsonl").rename(tmp_path / "c.jsonl")
    assert fingerprint(source)["sha256"] != after["sha256"]


def test_addresses_are_read_as_files(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="the hub extra is not installed")
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(write_jsonl(tmp_path / "rows.jsonl").read_bytes()))
    address = path.as_uri()
    assert [row.fields for row in rows_of(address) if isinstance(row, Record)] == ROWS
    assert fingerprint(Source(path=address))["sha256"] == fingerprint(Source(path=str(path)))["sha256"]
    assert failure((tmp_path / "none.jsonl").as_uri()).code == "data/missing-file"
    assert failure("https://example.org/rows").code == "data/unknown-type"


@pytest.mark.parametrize(
    ("path", "package"),
    [
        ("someone/set", '"tutelage[hub]"'),
        ("hf://datasets/someone/set/rows.jsonl", '"tutelage[hub]"'),
        ("https://example.org/rows.jsonl", '"tutelage[remote]"'),
        ("s3://bucket/rows.jsonl", "s3fs"),
        ("gs://bucket/*.jsonl", "gcsfs"),
    ],
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, path: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MachineError) as caught:
        rows_of(path)
    assert caught.value.code == "machine/missing-package"
    assert caught.value.problems[0].fix == f"pip install {package}"


@pytest.mark.parametrize("path", ["./nothing", "../nothing", "nothing", "nothing/here.jsonl"])
def test_a_path_is_not_taken_for_a_hub_id(path: str) -> None:
    assert failure(path).code == "data/missing-file"
    assert "hub" not in failure(path).found


def test_floats_are_read_exactly(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"a": math.pi, "b": 1e308, "c": -0.0}])
    assert fields_of(path) == [{"a": math.pi, "b": 1e308, "c": -0.0}]


def test_a_split_of_a_file_is_refused_and_not_ignored(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "x"}\n')
    with pytest.raises(RecipeError, match="`split` is for hub data sets"):
        read(Source(path=str(file), split="test"))


def test_each_recipe_on_the_page_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "sources.md").read_text("utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    sources = [s for block in blocks for s in DataOptions.model_validate(YAML(typ="safe").load(block)["data"]).train]
    used = {name for source in sources for name in source.model_fields_set}
    assert used == {"path", "subset", "split", "streaming", "limit", "fields", "where", "join"}
