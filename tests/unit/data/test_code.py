"""Code: trained whole, or cut into functions whose prompt and body join to the source again."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.formats import LEFT_OUT, expand, parse
from tutelage.errors import DataError
from tutelage.types import Completion, Document, Origin, Record

ORIGIN = Origin("code.parquet", 2)

SOURCE = '''import os


@cached
def area(r):
    """The area."""
    # pi times
    return 3 * r * r


async def fetch(url):
    r"""Fetch
    it."""
    return await get(url)


class Shape(Base):
    """A shape."""

    def name(self):
        """Its name."""
        def inner():
            """Not cut."""
            return 1
        return inner()

    def bare(self):
        return 0


def stub():
    """Nothing."""


def dots():
    """Nothing."""
    ...


def one(): "Same line."; return 1
'''


def cut(content: str, **more: Any) -> list[Completion]:
    records = expand(Record(ORIGIN, {"content": content, **more}), "code-functions")
    rows = [parse(record, "code-functions") for record in records]
    assert all(isinstance(row, Completion) and row.origin == ORIGIN for row in rows)
    return rows  # type: ignore[return-value]


def refusal(content: Any, **more: Any) -> tuple[str, str, str]:
    with pytest.raises(DataError) as caught:
        cut(content, **more)
    problem = caught.value.problems[0]
    return problem.code, problem.what, problem.found


def test_functions_and_methods_with_a_docstring_and_a_body() -> None:
    area, fetch, name = cut(SOURCE)
    assert area.prompt == '@cached\ndef area(r):\n    """The area."""\n'
    assert area.completion == "    # pi times\n    return 3 * r * r\n"
    assert fetch.prompt == 'async def fetch(url):\n    r"""Fetch\n    it."""\n'
    assert name.prompt == 'class Shape(Base):\n    def name(self):\n        """Its name."""\n'
    assert name.completion.startswith("        def inner():\n")


def test_every_piece_is_python_again() -> None:
    for row in cut(SOURCE):
        ast.parse(row.prompt + row.completion)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_odd_characters_stay(end: str) -> None:
    source = f'def f():{end}    """D\u2028\x0c."""{end}    return "\u2028\x0c\x1c"{end}'
    (row,) = cut("\ufeff" + source)
    assert row.prompt + row.completion == source


def test_weights_go_along() -> None:
    (row,) = cut('def f():\n    "D"\n    return 1', weight=0.5)
    assert (row.weight, row.completion) == (0.5, "    return 1")


@pytest.mark.parametrize(
    ("content", "more", "what"),
    [
        ("x = 1\n", {}, "holds no function with a docstring and a body"),
        ("print 'two'\n", {}, "cannot be read as Python"),
        ("x = '\x00'\n", {}, "cannot be read as Python"),
        ("(" * 500, {}, "cannot be read as Python"),
        ("-" * 20000 + "1", {}, "cannot be read as Python"),
        ("fn main() {}", {"lang": "Rust"}, "only Python is cut"),
        ("fn main() {}", {"path": "src/main.rs"}, "only Python is cut"),
    ],
)
def test_files_that_hold_nothing_to_cut(content: str, more: dict[str, str], what: str) -> None:
    code, said, found = refusal(content, **more)
    assert code == "data/no-function"
    assert code in LEFT_OUT
    assert what in said
    assert found


@pytest.mark.parametrize(
    "more", [{"lang": "Python"}, {"lang": "python", "path": "x"}, {"path": "a/b.py"}, {"lang": None}]
)
def test_python_is_known_by_its_language_or_name(more: dict[str, Any]) -> None:
    assert len(cut(SOURCE, **more)) == 3


def test_rows_that_are_refused() -> None:
    assert refusal(" \n")[0] == "data/empty-answer"
    assert refusal(3)[0] == refusal(None)[0] == "data/bad-row"


def test_code_is_a_document() -> None:
    record = Record(ORIGIN, {"content": SOURCE, "lang": "Rust"})
    assert parse(record, "code") == Document(ORIGIN, SOURCE)
    with pytest.raises(DataError) as caught:
        parse(Record(ORIGIN, {"content": ""}), "code")
    assert caught.value.code == "data/empty-answer"


@given(st.text(max_size=200) | st.binary(max_size=60).map(lambda b: b.decode("latin-1")))
def test_any_text_is_cut_or_left_out(content: str) -> None:
    try:
        cut(content)
    except DataError as error:
        assert error.code in ("data/no-function", "data/empty-answer")  # noqa: PT017
