"""The page of a comparison: everything is told, nothing that a model wrote does anything."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from madeup import HOSTILE
from test_report_page import check_harmless

from tutelage.errors import RecipeError
from tutelage.evaluation import compare
from tutelage.evaluation.page import PAIRS, render, write

ANSWERING = runpy.run_path(str(Path(__file__).parents[1] / "evaluation" / "answering.py"))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ANSWERING["QUESTIONS"]))
    for name, skill in (("base", 200), ("tuned", 20)):
        ANSWERING["asked"](data, skill, folder / name)
    return compare([folder / "base", folder / "tuned"])


def hostile(value, text):
    """The same with each text of a row and each name replaced."""
    if isinstance(value, dict):
        fixed = ("verdict", "verdict_together", "better", "test")
        return {key: one if key in fixed else hostile(one, text) for key, one in value.items()}
    if isinstance(value, list):
        return [hostile(one, text) for one in value]
    return text if isinstance(value, str) else value


def test_everything_is_told(comparison):
    words = check_harmless(render(comparison)).words()
    (task,) = comparison["tasks"]
    assert task["sentence"] in words
    assert "tuned against base" in words
    assert f"Lost {len(task['lost'])} of 24 answers" in words
    assert "Won 0 of 24 answers None." in words
    assert "stopped by itself 100 % 100 %" in words
    first = task["lost"][0]
    assert f"{first['origin']['file']}:{first['origin']['line']}" in words
    assert first["asked"][0]["content"] in words
    assert f"base ▲ 100 % {first['base']['answer']}" in words
    assert f"tuned ▼ 0 % {first['other']['answer']} the reference is {first['reference']}" in words
    assert "Chance of such a difference where there is none" in words


def test_what_models_write_is_text(comparison):
    words = check_harmless(render(hostile(comparison, HOSTILE))).words()
    assert "<script>alert('row')</script></textarea></style><img src=x onerror=alert(1)>" in words
    assert "⟨U+202E⟩txt.exe" in words
    assert "{{ 7 * 7 }} {% raw %}" in words


@settings(max_examples=30, deadline=None)
@given(text=st.text(st.characters(), max_size=60))
def test_any_text_is_harmless(comparison, text):
    check_harmless(render(hostile(comparison, text)))


def test_the_page_stays_small(comparison):
    (task,) = comparison["tasks"]
    row = json.loads(json.dumps(task["lost"][0]))
    row["other"]["answer"] = "long " * 100_000
    many = {**comparison, "tasks": [{**task, "lost": [row] * 5000}]}
    html = render(many)
    assert len(html) < 300_000
    assert f"{5000 - PAIRS:,} more" in check_harmless(html).words()


def test_several_tasks_have_one_headline(comparison):
    (task,) = comparison["tasks"]
    other = {**task, "task": "second", "verdict": "better", "verdict_together": "better"}
    words = check_harmless(render({**comparison, "tasks": [task, other]})).words()
    assert "2 tasks compared: worse on 1, better on 1." in words
    none = check_harmless(render({**comparison, "tasks": [], "notes": ["why not"]})).words()
    assert "Nothing could be compared row by row." in none
    assert "why not" in none


def test_the_page_is_not_written_over_anything(comparison, tmp_path):
    write(comparison, tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").read_text("utf-8") == render(comparison)
    with pytest.raises(RecipeError) as refused:
        write(comparison, tmp_path / "new" / "page.html")
    assert refused.value.code == "usage/output-exists"
