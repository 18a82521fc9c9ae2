"""Evaluation sets: known columns are read, others are named, and a set that cannot be read whole is refused."""

from __future__ import annotations

import pytest

from tutelage.data.repeats.decontaminate import Decontaminator
from tutelage.data.repeats.questions import read_sets
from tutelage.errors import DataError, RecipeError
from tutelage.recipe import DecontaminateOptions

CODE = ("return 1", "def f(): pass")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"question": "Q?", "answer": "A"}, ["Q?"]),
        ({"Question": "Q?", "Best Answer": "A"}, ["Q?"]),
        ({"Body": "Two apples.", "Question": "Q?", "Answer": 2.0}, ["Two apples.\nQ?"]),
        ({"prompt": "def f():", "canonical_solution": "return 1", "test": "assert"}, ["def f():", "return 1"]),
        ({"prompt": "Write f.", "code": "def f(): pass"}, ["Write f.", "def f(): pass"]),
        ({"text": "Write f.", "code": "def f(): pass"}, ["Write f.", "def f(): pass"]),
        ({"prompt": "Do it.", "key": 1}, ["Do it."]),
        ({"question_id": 1, "turns": ["First?", "Then?"]}, ["First?", "Then?"]),
        ({"question_id": 1, "text": "Old?"}, ["Old?"]),
        ({"instruction": "I", "input": "X", "output": "A"}, ["I\nX"]),
        ({"instruction": "I", "input": "", "output": "A"}, ["I"]),
        ({"instruction": "I", "input": None}, ["I"]),
        ({"instruction": "I", "instances": [{"input": "X"}, {"input": "", "output": "A"}]}, ["I\nX", "I"]),
        ({"instruction": "I", "instances": []}, ["I"]),
        ({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q?"}]}, ["Q?"]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Q?"}]}]}, ["Q?"]),
        ({"conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "A"}]}, ["Q?"]),
        ({"prompt": [{"role": "user", "content": "Q?"}]}, ["Q?"]),
        ({"problem": "P", "solution": "S"}, ["P"]),
        ({"input": "X", "target": "Y"}, ["X"]),
    ],
)
def test_known_columns(rows, fields, expected):
    (found,) = read_sets([str(rows([fields]))])
    assert [question.text for question in found.questions] == expected
    assert [question.solution for question in found.questions] == [text in CODE for text in expected]


def test_names_and_columns(rows, workdir):
    rows([{"q": "One?", "more": "Two."}], "some.set-1.jsonl")
    named = {spelled: read_sets([spelled])[0] for spelled in ("a=some.set-1.jsonl#q", "some.set-1.jsonl#q+more")}
    assert [one.name for one in named.values()] == ["a", "some.set-1"]
    assert [one.questions[0].text for one in named.values()] == ["One?", "One?\nTwo."]
    rows([{"question": "Three?"}], "odd=name#1.jsonl")
    assert read_sets(["odd=name#1.jsonl"])[0].name == "odd=name#1"


def test_unknown_columns_are_named_with_what_to_write(rows):
    path = rows([{"q": "What?", "a": "That."}])
    with pytest.raises(DataError) as caught:
        read_sets([str(path)])
    assert caught.value.code == "data/unknown-format"
    text = str(caught.value)
    assert "`q` (text)" in text
    assert "NAME=PATH#COLUMN" in text


@pytest.mark.parametrize(
    ("values", "column", "code"),
    [
        ([{"question": " "}, {"question": ""}], "", "data/no-rows"),
        ([{"question": "Q?"}, {"question": 3}], "", "data/bad-row"),
        ([{"question": "Q?"}, {"other": "Q?"}], "", "data/bad-row"),
        ([{"messages": [1]}], "", "data/bad-row"),
        ([{"question": "Q?"}], "#missing", "data/bad-row"),
    ],
)
def test_a_set_that_cannot_be_read_whole_is_refused(rows, values, column, code):
    with pytest.raises(DataError) as caught:
        read_sets([f"{rows(values)}{column}"])
    assert caught.value.code == code


def test_a_file_that_is_missing_or_broken_is_refused(tmp_path):
    with pytest.raises(DataError) as caught:
        Decontaminator(DecontaminateOptions(against=(f"bench={tmp_path}/none.jsonl",)))
    assert caught.value.code == "data/missing-file"
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "Q?"}\n{"question": \n')
    with pytest.raises(DataError) as caught:
        Decontaminator(DecontaminateOptions(against=(str(broken),)))
    assert caught.value.code == "data/bad-json"


def test_two_sets_of_one_name_are_refused(rows, tmp_path):
    (tmp_path / "b").mkdir()
    paths = [str(rows([{"question": "Q?"}], name)) for name in ("test.jsonl", "b/test.jsonl")]
    with pytest.raises(RecipeError) as caught:
        read_sets(paths)
    assert caught.value.code == "recipe/conflict"
    assert [one.name for one in read_sets([paths[0], f"other={paths[1]}"])] == ["test", "other"]
