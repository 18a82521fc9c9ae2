"""Missing options, wrong values and contradictions: one problem for each mistake, in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from goodrecipe import GOOD, only, problems, problems_of, values


def test_missing_options_are_all_named(tmp_path: Path) -> None:
    found = problems_of("data:\n  train:\n    - format: text\n", tmp_path)
    assert {problem.code for problem in found} == {"recipe/missing-option"}
    assert sorted(problem.what.split("`")[1] for problem in found) == ["data.train.0.path", "model", "output"]
    by_name = {problem.what.split("`")[1]: problem for problem in found}
    assert by_name["data.train.0.path"].where == f"{tmp_path / 'recipe.yaml'}:3"
    assert "a section with `path`" in by_name["model"].fix


WRONG = [
    ("train.epochs", "3", "epochs: 3"),
    ("train.epochs", True, "whole number (1 or more)"),
    ("train.epochs", 1.5, "whole number (1 or more)"),
    ("train.epochs", 3.0, "epochs: 3"),
    ("train.epochs", 0, "whole number (1 or more)"),
    ("train.learning_rate", "1e-4", "learning_rate: 1e-4"),
    ("train.learning_rate", True, "number (above 0)"),
    ("train.learning_rate", float("inf"), "number (above 0)"),
    ("train.learning_rate", float("nan"), "number (above 0)"),
    ("train.betas", [0.9], "list of 2"),
    ("train.betas", [0.9, 0.9, 0.9], "list of 2"),
    ("train.betas", [1.9, "x"], "list of 2"),
    ("train.betas", "0.9", "list of 2"),
    ("train.schedule", "linear", "schedule: {kind: linear}"),
    ("train.schedule.warmup", 1.5, "whole number (0 or more)"),
    ("train.schedule.warmup", -1, "number (0 or more, below 1)"),
    ("train.schedule.warmup", "5 %", "warmup: 0.05"),
    ("train.schedule.warmup", True, "number (0 or more, below 1)"),
    ("train", None, "write its options under it, or remove it"),
    ("data.heldout", "5%", "heldout: 0.05"),
    ("data.heldout", "h.jsonl", "heldout: {path: h.jsonl}"),
    ("data.heldout", 5, "number (0 or more, below 1) or section"),
    ("data.heldout", [1], "number (0 or more, below 1) or section"),
    ("data.train", "a.jsonl", 'train: [{"path": "a.jsonl"}]'),
    ("data.train", {"path": "a.jsonl"}, 'train: [{"path": "a.jsonl"}]'),
    ("data.train", 3, 'train: [{"path": "…"}]'),
    ("data.heldout", "1.2.3%", "heldout: {path: 1.2.3%}"),
    ("data.train", [], 'train: [{"path": "…"}]'),
    ("data.train.0", "a.jsonl", "- {path: a.jsonl}"),
    ("data.over_long", "Drop", "over_long: drop"),
    ("data.max_quarantined", 2, "at most 1"),
    ("model.adapter", "lora", "adapter: {kind: lora}"),
    ("model.adapter", "Full", "adapter: {kind: full}"),
    ("model.adapter", None, "write its options under it"),
    ("model.adapter", 3, "write its options under it"),
    ("model.adapter.kind", "qlora", "kind: lora"),
    ("model.adapter.rank", -1, "whole number (1 or more)"),
    ("model.revision", 123, 'revision: "123"'),
    ("model.path", "", "give text (not empty)"),
    ("data.train.0.path", "", "give text (not empty)"),
    ("data.heldout", "", "heldout: {path: …}"),
    ("data.heldout.path", "", "give text (not empty)"),
    ("data.train", "", 'train: [{"path": "…"}]'),
    ("output", "", "give text (not empty)"),
    ("export.merged", "yes", "merged: true"),
    ("export.merged", 1, "true | false"),
]


@pytest.mark.parametrize(("name", "value", "fix"), WRONG)
def test_a_wrong_value_is_one_problem_in_plain_words(name: str, value: Any, fix: str) -> None:
    given = values()
    *sections, last = name.split(".")
    holder: Any = given
    for key in sections:
        holder = holder[int(key)] if isinstance(holder, list) else holder.setdefault(key, {})
    if isinstance(holder, list):
        holder[int(last)] = value
    else:
        holder[last] = value
    problem = only(problems(given))
    assert problem.code == "recipe/bad-value"
    assert problem.what.startswith(f"`{name}` cannot be ")
    assert problem.found.startswith(f"{last} = ")
    assert fix in problem.fix
    assert not any(word in str(problem) for word in ("Input", "valid", "pydantic", "(share)", "(file)"))


def test_mistakes_inside_variants_are_reported_once() -> None:
    given = values(data={"train": [{"path": "a"}, "b"], "heldout": {"path": "h", "limit": 0}})
    assert [problem.what.split("`")[1] for problem in problems(given)] == ["data.train.1", "data.heldout.limit"]


def test_conflicts_come_with_their_places(tmp_path: Path) -> None:
    text = GOOD + "export:\n  merged: true\n"
    found = problems_of(text, tmp_path, "train.epochs=1", "train.steps=2", "model.adapter={kind: full}")
    assert [(p.code, p.where, p.found) for p in found] == [
        ("recipe/conflict", f"{tmp_path / 'recipe.yaml'}:13", "merged = true"),
        ("recipe/conflict", "command line", "train.steps = 2"),
    ]


def test_conflicts_wait_for_valid_values() -> None:
    found = problems(values(train={"epochs": 1, "steps": 0}))
    assert only(found).code == "recipe/bad-value"
