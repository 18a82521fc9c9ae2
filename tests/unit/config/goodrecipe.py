"""Recipes to start from, and the problems that come of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tutelage.config import load, resolve
from tutelage.errors import Problem, RecipeError

GOOD = """\
# Teach a small model.
model:
  path: smollm2-135m-instruct
data:
  train:
    - path: a.jsonl
    - path: b.jsonl
      weight: 2
train:
  learning_rate: 1e-4
output: runs/a
"""


def values(**more: Any) -> dict[str, Any]:
    return {"model": {"path": "m"}, "data": {"train": [{"path": "a.jsonl"}]}, "output": "runs/a"} | more


def write(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(text: str, folder: Path, *overrides: str) -> tuple[Problem, ...]:
    with pytest.raises(RecipeError) as caught:
        load(write(folder, text), overrides)
    assert caught.value.exit_code == 2
    return caught.value.problems


def problems(given: dict[str, Any], *overrides: str) -> tuple[Problem, ...]:
    with pytest.raises(RecipeError) as caught:
        resolve(given, overrides)
    return caught.value.problems


def only(found: tuple[Problem, ...]) -> Problem:
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]
