"""`fields`, `where` and `join`: which columns a row has in the end, and which rows there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rowfiles import items, problems, refusal, values, write

from tutelage.data.sources import fingerprint, read
from tutelage.data.sources.columns import FIRST, MISSING, reach, rename
from tutelage.data.sources.selected import Selected
from tutelage.errors import DataError, Problem
from tutelage.recipe import Source
from tutelage.types import Origin, Record

# ------------------------------------------------------------------------------------------------------ fields


def test_columns_are_renamed_and_the_others_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"question": "1+1", "answer": "2", "id": 7}])
    names = {"instruction": "question", "output": "answer"}
    assert values(path, fields=names) == [{"id": 7, "instruction": "1+1", "output": "2"}]
    assert values(path, fields={"answer": "question", "question": "answer"}) == [
        {"id": 7, "answer": "1+1", "question": "2"}
    ]
    assert values(path, fields={"output": "answer", "text": "answer"})[0]["text"] == "2"
    assert values(path, fields={"answer": "id"}) == [{"question": "1+1", "answer": 7}]


def test_dots_reach_into_objects_and_lists(tmp_path: Path) -> None:
    row = {"instances": [{"input": "i", "output": "o"}], "meta": {"a": {"b": None}}, "x.y": 1, "x": {"y": 2}}
    path = write(tmp_path / "a.jsonl", [row])
    names = {"input": "instances.0.input", "b": "meta.a.b", "z": "x.y"}
    (found,) = values(path, fields=names)
    assert found == {"instances": row["instances"], "meta": row["meta"], "x": {"y": 2}, "input": "i", "b": None, "z": 1}


NESTED = st.recursive(
    st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1, max_size=2), inner),
)


@given(st.dictionaries(st.text("ab", min_size=1, max_size=2), NESTED), st.lists(st.sampled_from(["a", "b", "0", "1"])))
def test_reach_is_what_python_reaches(fields: dict[str, Any], parts: list[str]) -> None:
    wanted: Any = fields
    try:
        for part in parts or ["none"]:
            wanted = wanted[int(part)] if isinstance(wanted, list) else wanted[part]
    except (KeyError, IndexError, ValueError, TypeError):
        wanted = MISSING
    assert reach(fields, ".".join(parts) or "none") is wanted


def test_a_row_without_the_column_is_a_problem_with_the_nearest_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"q": 1}, {"Question": "x", "n": {"ans": 2}}, {"q": None}])
    (problem,) = problems(path, fields={"instruction": "q"})
    assert (problem.code, problem.where) == ("data/bad-row", f"{path}:2")
    assert problem.found == "`Question`, `n`"
    assert len(items(path, fields={"instruction": "q"})) == 3


@pytest.mark.parametrize(
    ("wanted", "near"), [("question", "`Question`"), ("answr", "`answer`"), ("meta.lable", "`meta.label`")]
)
def test_a_column_that_no_row_has_ends_the_reading(tmp_path: Path, wanted: str, near: str) -> None:
    path = write(tmp_path / "a.jsonl", [{"Question": "x", "answer": "y", "meta": {"label": 1}}] * 2)
    problem = refusal(path, fields={"output": wanted})
    assert problem.code == "data/bad-row"
    assert f"`{wanted}`" in problem.what
    assert near in problem.fix
    assert str(path) in problem.where
    assert refusal(path, fields={"output": wanted}, limit=1).code == "data/bad-row"


def test_it_ends_after_the_first_rows_and_not_after_a_million() -> None:
    given = []

    def rows() -> Any:
        for number in range(1, 10_000):
            given.append(number)
            yield Record(Origin("a.jsonl", number), {"x": 1})

    with pytest.raises(DataError):
        list(rename(rows(), {"y": "z"}))
    assert len(given) == FIRST


def test_it_goes_on_when_one_of_the_first_rows_has_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"a": 1}] * 99 + [{"b": 1}] + [{"a": 1}] * 200)
    assert len(problems(path, fields={"c": "b"})) == 299
    other = write(tmp_path / "b.jsonl", [{"a": 1}] * 99 + [{"b": 1}] * 200)
    assert refusal([other, write(tmp_path / "c.jsonl", [{"a": 1}] * 99)], fields={"c": "b"}).where.startswith(
        str(tmp_path / "c.jsonl")
    ), "each file for itself"


# ------------------------------------------------------------------------------------------------------- where


KINDS = [{"v": 1}, {"v": "1"}, {"v": True}, {"v": 1.0}, {"v": None}, {"v": "true"}, {"w": 0}, {"v": 0}, {"v": False}]


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [(1, [0, 3]), (1.0, [0, 3]), ("1", [1]), (True, [2]), ("true", [5]), (False, [8]), (0, [7])],
)
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_values_are_compared_by_kind_and_value(tmp_path: Path, wanted: Any, kept: list[int], ending: str) -> None:
    rows = [{**row, "i": i} for i, row in enumerate(KINDS)]
    path = write(tmp_path / f"a.{ending}", rows)
    assert [row["i"] for row in values(path, where={"v": wanted})] == kept


@pytest.mark.parametrize(("wanted", "kept"), [(1, ["1"]), ("1", ["1"]), (True, ["true"]), (1.5, ["1.5"])])
def test_a_csv_file_holds_text(tmp_path: Path, wanted: Any, kept: list[str]) -> None:
    path = write(tmp_path / "a.csv", [{"v": text} for text in ("1", "true", "1.5", "01", "1.0", "True", "")])
    assert [row["v"] for row in values(path, where={"v": wanted})] == kept


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    rows = [{"split": "eval" if n % 4 == 0 else "train", "n": n} for n in range(1000)]
    path = write(tmp_path / "a.jsonl", [*rows, {"n": -1}])
    reading = read(Source(path=str(path), where={"split": "eval"}))
    assert len(list(reading)) == 250
    assert reading.selected is not None
    assert (reading.selected.rows, reading.selected.kept, reading.selected.left_out) == (1001, 250, 751)
    assert str(reading.selected) == "where: 250 of 1,001 rows (751 left out, 1 of them without the column)"
    assert read(Source(path=str(path))).selected is None


def test_limit_counts_after_where_and_reading_stops_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"k": n % 10 == 0, "n": n} for n in range(1000)])
    reading = read(Source(path=str(path), where={"k": True}, limit=3))
    assert [row.fields["n"] for row in reading if isinstance(row, Record)] == [0, 10, 20]
    assert reading.selected is not None
    assert reading.selected.rows == 21


def test_bad_rows_pass_through_where(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"k": 1}\nbad\n{"k": 2}\n')
    kept, problem = items(path, where={"k": 1})
    assert isinstance(kept, Record)
    assert isinstance(problem, Problem)


def test_where_that_keeps_nothing_says_what_there_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"split": "train", "n": 1}, {"split": "test", "n": 2}])
    problem = refusal(path, where={"split": "eval"})
    assert problem.code == "data/nothing-selected"
    assert problem.found == "`split` is 'test', 'train'"
    problem = refusal(path, where={"split": "test", "spilt": "x"})
    assert "`spilt`, which no row has" in problem.what
    assert problem.fix == "did you mean `split`?"
    assert refusal(path, where={"n": "1"}).found == "`n` is 1, 2"
    # Several files are one source: only the whole must keep something.
    other = write(tmp_path / "b.jsonl", [{"split": "eval"}])
    assert values([path, other], where={"split": "eval"}) == [{"split": "eval"}]


@given(st.lists(st.fixed_dictionaries({}, optional={"k": st.sampled_from([0, 1, "1", True, None])}), max_size=20))
def test_kept_and_left_out_are_all_rows(rows: list[dict[str, Any]]) -> None:
    selected = Selected({"k": 1})
    records = [Record(Origin("f", number), row) for number, row in enumerate(rows)]
    kept = list(selected.select(iter(records), lambda name: False))
    assert kept == [record for record in records if type(k := record.fields.get("k")) is int and k == 1]
    assert selected.kept + selected.left_out == selected.rows == len(rows)
    assert selected.kept == len(kept)


# -------------------------------------------------------------------------------------------------------- join


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    return write(tmp_path / "tasks.jsonl", [{"task": "t1", "definition": "add"}, {"task": "t2", "definition": "sort"}])


def test_columns_of_another_file_are_brought_then_selected_then_renamed(tmp_path: Path, tasks: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", [{"task": "t1", "in": 1}, {"task": "t2", "in": 2}, {"task": "t1", "in": 3}])
    join = {"path": str(tasks), "on": "task"}
    assert values(path, join=join)[1] == {"task": "t2", "in": 2, "definition": "sort"}
    found = values(path, join=join, where={"definition": "add"}, fields={"instruction": "definition"}, limit=2)
    assert found == [{"task": "t1", "in": 1, "instruction": "add"}, {"task": "t1", "in": 3, "instruction": "add"}]


@pytest.mark.parametrize("ending", ["json", "csv", "parquet", "jsonl.zst"])
def test_any_type_may_be_joined(tmp_path: Path, ending: str) -> None:
    other = write(tmp_path / f"t.{ending}", [{"id": "7", "d": "x"}])
    path = write(tmp_path / "a.jsonl", [{"id": "7"}])
    assert values(path, join={"path": str(other), "on": "id"}) == [{"id": "7", "d": "x"}]


@pytest.mark.parametrize(("main", "other"), [("a.jsonl", "b.csv"), ("a.csv", "b.jsonl"), ("a.csv", "b.csv")])
def test_with_a_csv_file_values_are_compared_as_text(tmp_path: Path, main: str, other: str) -> None:
    path = write(tmp_path / main, [{"id": 7, "x": "p"}])
    join = {"path": str(write(tmp_path / other, [{"id": 7, "d": 1}])), "on": "id"}
    assert len(values(path, join=join)) == 1
    assert len(values(path, join=join, where={"d": 1})) == 1, "the joined column's own file decides"


def test_without_csv_true_is_not_one_nor_its_text(tmp_path: Path) -> None:
    other = write(tmp_path / "t.jsonl", [{"id": 1, "d": "int"}, {"id": True, "d": "bool"}, {"id": "1", "d": "text"}])
    path = write(tmp_path / "a.jsonl", [{"id": 1}, {"id": True}, {"id": "1"}])
    join = {"path": str(other), "on": "id"}
    assert [row["d"] for row in values(path, join=join)] == ["int", "bool", "text"]
    table = write(tmp_path / "a.csv", [{"id": 1}])
    assert "the same as text" in refusal(table, join=join).what


def test_values_without_a_partner_are_problems(tmp_path: Path, tasks: Path) -> None:
    rows = [{"task": "t1"}, {"task": "t9"}, {"n": 1}, {"task": ["t1"]}, {"task": None}]
    path = write(tmp_path / "a.jsonl", rows)
    found = problems(path, join={"path": str(tasks), "on": "task"})
    assert [problem.where for problem in found] == [f"{path}:{n}" for n in (2, 3, 4, 5)]
    assert found[0].found == "'t9'"
    assert "does not have the column `task`" in found[1].what


def test_when_no_row_has_a_partner_reading_ends(tmp_path: Path, tasks: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"task": n} for n in range(5000)])
    problem = refusal(path, join={"path": str(tasks), "on": "task"})
    assert (problem.code, problem.found) == ("data/bad-row", "`task` is 0")
    assert f"the {FIRST} rows" in problem.where
    assert "`definition`" in refusal(path, join={"path": str(tasks), "on": "definition"}).what


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"task": "t1", "d": 1}, {"task": "t1", "d": 2}], "two rows have `task` = 't1'"),
        ([{"d": 1}], "in each row"),
        ([{"task": None}], "in each row"),
        ([{"task": "t1", "in": 1.0}], "brings the column `in`"),
        ([17], "not a JSON object"),
    ],
)
def test_a_file_that_cannot_be_joined_is_refused(tmp_path: Path, rows: list[Any], told: str) -> None:
    other = write(tmp_path / "t.jsonl", rows)
    path = write(tmp_path / "a.jsonl", [{"task": "t1", "in": 1}])
    problem = refusal(path, join={"path": str(other), "on": "task"})
    assert problem.code.startswith("data/bad-")
    assert told in problem.what


def test_a_column_that_both_have_with_the_same_value_is_one(tmp_path: Path) -> None:
    other = write(tmp_path / "t.jsonl", [{"task": "t1", "split": "eval", "d": 1}])
    path = write(tmp_path / "a.jsonl", [{"task": "t1", "split": "eval"}])
    assert values(path, join={"path": str(other), "on": "task"}) == [{"task": "t1", "split": "eval", "d": 1}]


def test_the_joined_file_is_part_of_the_fingerprint(tmp_path: Path, tasks: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"task": "t1"}])
    source = Source(path=str(path), join={"path": str(tasks), "on": "task"})
    before = fingerprint(source)
    assert json.loads(json.dumps(before)) == before
    assert before["join"]["path"] == str(tasks)
    write(tasks, [{"task": "t1", "definition": "other"}])
    assert fingerprint(source)["join"] != before["join"]
    assert fingerprint(source)["sha256"] == before["sha256"]


def test_real_tasks_join_their_instances(shared_data: Path) -> None:
    sft = shared_data / "sft"
    source = Source(
        path=str(sft / "natural_instructions_v1_instances.jsonl.gz"),
        join={"path": str(sft / "natural_instructions_v1_tasks.jsonl.gz"), "on": "task"},
        where={"split": "eval"},
    )
    reading = read(source)
    rows = list(reading)
    assert all(isinstance(row, Record) for row in rows)
    assert reading.selected is not None
    assert reading.selected.rows == 13_657
    assert 0 < reading.selected.kept == len(rows) < 13_657
