"""Arguments to settings: what is one value, what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinyruns import recipe, write_recipe
from tutelage.errors import RecipeError, SecurityError
from tutelage.sweep.grid import seeded, settings, split


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "r.yaml", recipe(tmp_path / "model", tmp_path / "rows.jsonl", tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1e-5,2e-5", ["1e-5", "2e-5"]),
        ("[wandb,mlflow],[]", ["[wandb,mlflow]", "[]"]),
        ("{kind: lora, rank: 8},{kind: full}", ["{kind: lora, rank: 8}", "{kind: full}"]),
        ("'a,b',\"c,d\"", ["'a,b'", '"c,d"']),
        (r'"a\",b",c', [r'"a\",b"', "c"]),
        (r'"a\\",c', [r'"a\\"', "c"]),
        ("'it''s, so',x", ["'it''s, so'", "x"]),
        ("", [""]),
    ],
)
def test_values_end_at_commas_outside_of_brackets_and_quotes(text, parts):
    assert split(text) == parts


def test_every_combination_is_a_setting(file):
    found = settings(file, ["train.learning_rate=1e-5,2e-5", "train.global_batch_size=2,4,8", "train.steps=5"], seeds=1)
    assert [(one.recipe.learning_rate, one.recipe.train.global_batch_size) for one in found] == [
        (rate, size) for rate in (1e-5, 2e-5) for size in (2, 4, 8)
    ]
    assert {one.recipe.train.steps for one in found} == {5}
    assert found[1].label == "learning rate 1e-5, global batch size 4"
    assert found[1].name == "02-learning-rate-1e-5-global-batch-size-4"
    assert found[1].overrides == ("train.learning_rate=1e-5", "train.global_batch_size=4", "train.steps=5")


def test_options_with_one_last_word_keep_their_whole_names(file):
    found = settings(file, ["data.mixture.temperature=1,2", "guard.limit=3,4"], seeds=1)
    assert found[0].label == "temperature 1, limit 3"
    found = settings(file, ["data.train.0.limit=7,8", "guard.limit=3,4"], seeds=1)
    assert found[0].label == "data.train.0.limit 7, guard.limit 3"


def test_names_are_told_apart_and_plain(file):
    long = ",".join(f"a{'/' * 3}{'b' * 90}{n}" for n in range(3))
    found = settings(file, [f"model.path={long}"], seeds=1)
    names = [one.name for one in found]
    assert len(set(names)) == 3
    assert all(name.isascii() and "/" not in name and len(name) <= 63 for name in names)


def test_an_unknown_option_is_refused_once_with_what_was_meant(file):
    with pytest.raises(RecipeError) as refused:
        settings(file, ["train.learning_rat=1e-5,2e-5,3e-5", "train.epochs=0,1"], seeds=1)
    text = str(refused.value)
    assert text.count("recipe/unknown-option") == 1
    assert "learning_rate" in text
    assert "recipe/bad-value" in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train.learning_rate"], "recipe/bad-override", "section.option=value"),
        (["train.learning_rate=1e-5"], "recipe/bad-override", "nothing is varied"),
        ([], "recipe/bad-override", "nothing is varied"),
        (["train.learning_rate=1e-5,,2e-5"], "recipe/bad-override", "nothing stands after"),
        (["train.learning_rate=1e-5,1e-4", "train.learning_rate=2e-5"], "recipe/conflict", "given twice"),
        (["train.learning_rate=1e-5,0.00001"], "recipe/conflict", "two settings are the same"),
        (["output=a,b"], "recipe/conflict", "--out"),
    ],
)
def test_what_is_no_grid_is_refused(file, arguments, code, said):
    with pytest.raises(RecipeError) as refused:
        settings(file, arguments, seeds=1)
    assert refused.value.code == code
    assert said in str(refused.value)


def test_a_secret_is_refused_and_not_shown(file):
    secret = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ01234567"
    with pytest.raises(SecurityError) as refused:
        settings(file, [f"track.project={secret},other"], seeds=1)
    assert secret not in str(refused.value)


def test_seeds_count_from_the_recipes(file):
    (one, _) = settings(file, ["train.epochs=1,2", "train.steps=null", "train.seed=5"], seeds=1)
    assert [(name, seed) for name, seed, _ in seeded(one, 1)] == [(one.name, 5)]
    runs = list(seeded(one, 3))
    assert [seed for _, seed, _ in runs] == [5, 6, 7]
    assert runs[1][2][-1] == "train.seed=6"
    assert len({name for name, _, _ in runs}) == 3
    with pytest.raises(RecipeError, match="seeds"):
        settings(file, ["train.epochs=1,2", "train.seed=5"], seeds=2)


def test_seeds_alone_are_a_sweep(file):
    assert [one.label for one in settings(file, [], seeds=2)] == ["the recipe"]
