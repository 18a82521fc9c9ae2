"""Overrides are spelled as in the file, and put in from left to right."""

from __future__ import annotations

from pathlib import Path

import pytest
from goodrecipe import GOOD, only, problems, values, write

from tutelage.config import load, resolve
from tutelage.recipe import Full, HeldoutFile


def test_overrides_are_yaml(tmp_path: Path) -> None:
    overrides = ["model.adapter={kind: full}", "train.epochs=3", "data.train.0.path=x.jsonl", "model.template=no"]
    recipe = load(write(tmp_path, GOOD), overrides).recipe
    assert recipe.model.adapter == Full()
    assert recipe.model.template == "no"
    assert recipe.train.epochs == 3
    assert [source.path for source in recipe.data.train] == ["x.jsonl", "b.jsonl"]


def test_overrides_can_build_what_the_file_does_not_have() -> None:
    overrides = ["model.path=m", "data.train.0.path=a", "data.train.1.path=b", "data.heldout.path=h", "output=o"]
    recipe = resolve({}, overrides).recipe
    assert [source.path for source in recipe.data.train] == ["a", "b"]
    assert recipe.data.heldout == HeldoutFile(path="h")


def test_last_override_wins_and_the_callers_values_stay() -> None:
    given = values()
    assert resolve(given, ["train.epochs=2", "train.epochs=3"]).recipe.train.epochs == 3
    assert given == values()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.epochs", "section.option=value"),
        ("--train.epochs=3", "section.option=value"),
        ("train..epochs=3", "section.option=value"),
        ("=3", "section.option=value"),
        ("caf\udce9=3", "section.option=value"),
        ("train.epochs=", "null"),
        ("train.betas=[0.9", "not valid YAML"),
        ("data.train.path=x", "count from 0"),
        ("data.train.7.path=x", "count from 0"),
        ("data.train.0.completion_after=### Answer:", "quote"),
        ("data.train.0.completion_after=Answer #1", "quote"),
        ("data.train.0.path=caf\udce9", "character"),
    ],
)
def test_bad_override(override: str, says: str) -> None:
    problem = only(problems(values(), override))
    assert problem.code == "recipe/bad-override"
    assert problem.where == "command line"
    assert problem.found == override.replace("\udce9", "\\udce9")
    assert says in str(problem)
    assert str(problem).encode()


def test_misspelt_override() -> None:
    problem = only(problems(values(), "train.epoch=3"))
    assert (problem.where, problem.found) == ("command line", "train.epoch = 3")
    assert "did you mean `epochs` (section train)?" in problem.fix


def test_wrong_override_is_mended_as_an_override() -> None:
    problem = only(problems(values(), "model.adapter=full"))
    assert (problem.where, problem.found) == ("command line", 'model.adapter = "full"')
    assert problem.fix == "model.adapter={kind: full}"
