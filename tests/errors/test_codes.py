"""Every declared error code is used, and every code used is declared; the errors' one shape."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tutelage
from tutelage.errors import CLASSES, CODES, Problem, TutelageError

SOURCES = sorted(Path(tutelage.__file__).parent.rglob("*.py"))
FAMILIES = {code.partition("/")[0] for code in CODES}


def codes_in(path: Path) -> set[str]:
    """String literals that look like codes, outside the table of codes itself."""
    tree = ast.parse(path.read_text("utf-8"))
    skipped = set()
    if path.name == "errors.py":
        table = next(n for n in tree.body if isinstance(n, ast.AnnAssign) and getattr(n.target, "id", "") == "CODES")
        skipped = {id(node) for node in ast.walk(table)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped
        if node.value.count("/") == 1 and node.value.partition("/")[0] in FAMILIES
        if node.value.partition("/")[2].replace("-", "").isalpha() and not node.value.endswith(".py")
    }


USED = {code: path for path in SOURCES for code in codes_in(path)}


def test_every_code_used_is_declared():
    assert {code: path.name for code, path in USED.items() if code not in CODES} == {}


@pytest.mark.parametrize("code", CODES)
def test_every_declared_code_is_raised_somewhere(code):
    assert code in USED


def test_every_code_belongs_to_a_class_with_its_exit_code():
    exits = {
        "recipe": 2,
        "usage": 2,
        "data": 3,
        "model": 4,
        "template": 4,
        "save": 4,
        "machine": 5,
        "train": 6,
        "security": 7,
        "worker": 8,
        "check": 1,
        "checkpoint": 4,
        "run": 75,
    }
    assert {family: cls.exit_code for family, cls in CLASSES.items()} == exits
    assert set(exits) == FAMILIES
    for code in CODES:
        error = TutelageError.of([Problem(code, "what")])
        assert type(error) is CLASSES[code.partition("/")[0]]
        assert error.code == code


@pytest.mark.parametrize(("code", "sentence"), CODES.items())
def test_explanations_are_sentences(code, sentence):
    assert sentence[0].isupper() or sentence[0] == "`"
    assert sentence.endswith(".")


def test_problems_share_one_shape():
    problem = Problem("data/bad-json", "no JSON", "a.jsonl:3", "{\n}", "why", "fix")
    assert str(problem).splitlines() == [
        "error[data/bad-json]: no JSON",
        "  where a.jsonl:3",
        "  found {",
        "        }",
        "  why   why",
        "  fix   fix",
    ]
    assert str(TutelageError.of([problem, Problem("data/bad-row", "more")])).count("error[") == 2


def test_an_undeclared_code_is_our_own_bug():
    with pytest.raises(AssertionError, match="not declared"):
        Problem("data/no-such-code", "what")
