"""Rows of one instruction: the parts stay apart, several instances make several records, several answers references."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.data.formats import expand, parse
from tutelage.errors import DataError
from tutelage.recipe import Format
from tutelage.types import Conversation, Instruction, Origin, Record

ORIGIN = Origin("rows.jsonl", 7)


def read(format: Format, **fields: Any) -> list[Conversation]:
    rows = [parse(record, format) for record in expand(Record(ORIGIN, fields), format)]
    assert all(isinstance(row, Conversation) and row.origin == ORIGIN for row in rows)
    return rows  # type: ignore[return-value]


def said(row: Conversation) -> list[str]:
    return [message.content for message in row.messages]


def refusal(format: Format, **fields: Any) -> tuple[str, str]:
    with pytest.raises(DataError) as caught:
        read(format, **fields)
    return caught.value.code, caught.value.problems[0].what


@pytest.mark.parametrize(
    ("format", "fields", "about"),
    [
        ("alpaca", {"output": "3"}, "input"),
        ("dolly", {"response": "3"}, "context"),
        ("natural-instructions", {"output": "3"}, "input"),
        ("self-instruct", {"output": "3"}, "input"),
    ],
)
def test_the_parts_of_an_instruction_stay_apart(format: Format, fields: dict[str, Any], about: str) -> None:
    name = "Definition" if format == "natural-instructions" else "instruction"
    (row,) = read(format, **{name: "Add.", about: "1 2", **fields})
    assert (row.instruction, said(row)) == (Instruction("Add.", "1 2"), ["Add.\n\n1 2", "3"])
    (row,) = read(format, **{name: "Add.", about: None, **fields})
    assert (row.instruction, said(row)) == (Instruction("Add."), ["Add.", "3"])
    (row,) = read(format, **{name: "", about: "1 + 2", **fields})
    assert (row.instruction, said(row)) == (Instruction("1 + 2"), ["1 + 2", "3"])
    assert refusal(format, **{name: " ", about: "", **fields}) == (
        "data/bad-row",
        f"`{name}` is empty, so there is nothing to answer",
    )


def test_the_instruction_is_that_of_the_last_turn() -> None:
    (row,) = read("alpaca", instruction="3?", output="c", system="S", history=[["1?", "a"]])
    assert row.instruction == Instruction("3?")
    assert said(row) == ["S", "1?", "a", "3?", "c"]


def test_natural_instructions_train_the_first_answer() -> None:
    (row,) = read("natural-instructions", Definition="D", input="x", output=["a", "b", " ", "c"])
    assert said(row) == ["D\n\nx", "a"]
    assert row.references == ("b", "c")
    (row,) = read("natural-instructions", Definition=["D", "E"], input="x", output="a")
    assert said(row) == ["D\nE\n\nx", "a"]
    assert row.references == ()


@pytest.mark.parametrize("output", [[], [""], ["", "a"], " ", ""])
def test_natural_instructions_without_an_answer(output: object) -> None:
    assert refusal("natural-instructions", Definition="D", input="x", output=output)[0] == "data/empty-answer"


@pytest.mark.parametrize(("output", "what"), [(["a", 3], "`output[1]`"), (4, "`output`"), (None, "`output`")])
def test_natural_instructions_that_are_refused(output: object, what: str) -> None:
    code, found = refusal("natural-instructions", Definition="D", input="x", output=output)
    assert (code, found.startswith(what)) == ("data/bad-row", True)
    assert "`Definition`" in refusal("natural-instructions", input="x", output="a")[1]


def test_a_task_file_is_one_record_an_instance() -> None:
    task = {
        "Definition": ["D"],
        "Positive Examples": [{"input": "p", "output": "q"}],
        "Negative Examples": [],
        "Instances": [{"id": "1", "input": "x", "output": ["a", "b"]}, {"id": "2", "input": "y", "output": ["c"]}],
        "weight": 0.5,
    }
    first, second = read("natural-instructions", **task)
    assert (said(first), first.references, first.weight) == (["D\n\nx", "a"], ("b",), 0.5)
    assert said(second) == ["D\n\ny", "c"]


def test_seed_tasks_are_one_record_an_instance() -> None:
    rows = read(
        "self-instruct", instruction="I", instances=[{"input": "", "output": "a"}, {"input": "x", "output": "b"}]
    )
    assert [said(row) for row in rows] == [["I", "a"], ["I\n\nx", "b"]]
    assert [row.instruction for row in rows] == [Instruction("I"), Instruction("I", "x")]


@pytest.mark.parametrize(
    ("instances", "code", "what"),
    [
        ([], "data/empty-answer", "`instances`"),
        ("x", "data/bad-row", "`instances` is not a list"),
        (None, "data/bad-row", "`instances` is missing"),
        (["x"], "data/bad-row", "`instances[0]`"),
        ([{"input": "x", "output": "a"}, {"input": "x"}], "data/bad-row", "`instances[1].output`"),
        ([{"input": "x", "output": " "}], "data/empty-answer", "`output`"),
    ],
)
def test_seed_tasks_that_are_refused(instances: object, code: str, what: str) -> None:
    found = refusal("self-instruct", instruction="I", instances=instances)
    assert (found[0], found[1].startswith(what)) == (code, True)


@pytest.mark.parametrize("format", ["alpaca", "messages", "text", "preference", "oasst", "code"])
def test_other_formats_are_one_record_a_row(format: Format) -> None:
    record = Record(ORIGIN, {"anything": 1})
    assert expand(record, format) == (record,)
