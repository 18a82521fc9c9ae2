"""From a file or values to a recipe, or to all of its problems at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from goodrecipe import GOOD, problems_of, values, write
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.config import PEERS, dump, load, options, resolve
from tutelage.errors import RecipeError
from tutelage.recipe import Lora


def test_file_becomes_recipe(tmp_path: Path) -> None:
    recipe = load(write(tmp_path, GOOD)).recipe
    assert recipe.train.learning_rate == 1e-4
    assert [source.path for source in recipe.data.train] == ["a.jsonl", "b.jsonl"]
    assert recipe.data.train[1].weight == 2.0
    assert (
        recipe
        == resolve(
            values(
                model={"path": "smollm2-135m-instruct"},
                data={"train": [{"path": "a.jsonl"}, {"path": "b.jsonl", "weight": 2}]},
                train={"learning_rate": 1e-4},
            )
        ).recipe
    )


def test_whole_number_is_taken_where_a_number_is_asked_for() -> None:
    assert resolve(values(train={"weight_decay": 0})).recipe.train.weight_decay == 0.0


def test_lora_is_the_kind_when_none_is_given() -> None:
    assert resolve(values(), ["model.adapter.rank=8"]).recipe.model.adapter == Lora(rank=8)


def test_everything_wrong_is_said_at_once_in_order(tmp_path: Path) -> None:
    text = GOOD.replace("1e-4", '"1e-4"').replace("smollm2-135m-instruct", "3").replace("output", "outpt")
    text += "lora_r: 8\n"
    found = problems_of(text, tmp_path, "train.epochs", "train.steps=0")
    assert [(problem.code, problem.where.rpartition(":")[2]) for problem in found] == [
        ("recipe/bad-value", "3"),
        ("recipe/bad-value", "10"),
        ("recipe/unknown-option", "11"),
        ("recipe/unknown-option", "12"),
        ("recipe/bad-override", "command line"),
        ("recipe/bad-value", "command line"),
    ]


_KEYS = st.sampled_from(
    [*(key for option in options() for key in option.name.split(".")), *PEERS, "", "a.b", "(x)", "0"]
)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["lora", "5%", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(["model", "data", "train", "output", "lr"], _ANY)))
def test_no_values_end_in_anything_but_a_recipe_or_its_error(given: dict[str, Any]) -> None:
    try:
        text = dump(resolve(given).recipe)
    except RecipeError as error:
        text = str(error)
    assert text.encode()


def test_config_loads_without_torch() -> None:
    code = "import sys, tutelage.config; print({'torch', 'numpy', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
