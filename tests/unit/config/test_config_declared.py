"""Every option is described from its declaration."""

from __future__ import annotations

import pytest

from tutelage.config import options
from tutelage.errors import RecipeError


def test_options_describe_every_field() -> None:
    found = {option.name: option for option in options()}
    assert all(option.doc and option.type and option.default for option in found.values())
    assert (found["train.epochs"].type, found["train.epochs"].default) == (
        "whole number (1 or more) or null",
        "not given",
    )
    assert found["evaluate.confidence"].type == "number (above 0.5, below 1)"
    assert found["model.adapter.kind"].type == "lora | full"
    assert found["data.train.N.path"].default == "required"
    assert found["train.learning_rate"].doc.startswith("The highest rate")
    assert [option.name for option in options("export")] == ["export.merged", "export.step"]
    assert options("data.train.0")[0].name == "data.train.N.path"


def test_options_of_an_unknown_section() -> None:
    with pytest.raises(RecipeError, match="did you mean: train") as caught:
        options("trian")
    assert caught.value.code == "recipe/unknown-option"
