"""Right or wrong without judgement."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.scoring.exact import INVALID, SCORERS, fields, parse, same_json, same_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("red", "red", True),
        (" red\n", "red", True),
        ("Red", "red", False),
        ("red green", "red  green", False),
        ("", "", True),
        ("red.", "red", False),
    ],
)
def test_text(answer, reference, same):
    assert same_text(answer, reference) is same


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ('{"a": 1, "b": [2]}', '{"b":[2],"a":1}', True),
        ("[1, 2]", "[2, 1]", False),
        ("1", "1.0", True),
        ("true", "1", False),
        ("1", "true", False),
        ("false", "0", False),
        ("null", "false", False),
        ('"1"', "1", False),
        ('{"a": {"b": true}}', '{"a": {"b": 1}}', False),
        ("[true]", "[1]", False),
        ('{"a": 1}', '{"a": 1, "b": null}', False),
        ('{"a": 1} and more', '{"a": 1}', False),
        ("not json", "not json", False),
        ("[" * 100_000, "[]", False),
        ("", "null", False),
        ("9007199254740993", "9007199254740992", False),
    ],
)
def test_json(answer, reference, same):
    assert same_json(answer, reference) is same


@given(VALUES)
def test_a_value_equals_itself_however_it_is_written(value):
    written = json.dumps(value)
    assert same_json(written, json.dumps(value, indent=3, ensure_ascii=False))


@given(VALUES, VALUES)
def test_equality_goes_both_ways(one, other):
    one, other = json.dumps(one), json.dumps(other)
    assert same_json(one, other) == same_json(other, one)


def test_fields():
    assert fields('{"a": 1, "b": 2, "c": 3}', '{"a": 1, "b": 3}') == {"a": True, "b": False}
    assert fields("no json", '{"a": null}') == {"a": False}
    assert fields('{"a": null}', '{"a": null, "b": null}') == {"a": True, "b": False}
    assert fields("[1]", '{"a": 1}') == {"a": False}
    assert fields('{"a": 1}', "[1]") == {}
    assert fields('{"a": 1}', "no json") == {}


def test_parse_and_scorers():
    assert parse("{") is INVALID
    assert parse("null") is None
    assert {"exact": same_text, "json": same_json} == SCORERS
