"""What is read from a recipe file, what is refused and where, and what is written back."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from goodrecipe import GOOD, only, problems_of, write
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.config import dump, load
from tutelage.errors import RecipeError
from tutelage.recipe import (
    DataOptions,
    EvaluateOptions,
    Full,
    HeldoutFile,
    Lora,
    ModelOptions,
    Recipe,
    Schedule,
    Source,
    TrainOptions,
)


@pytest.mark.parametrize("word", ["no", "on", "yes", "off", "2024-01-01", "1:30", "=", "0x_"])
def test_words_that_yaml_1_1_would_convert_stay_text(tmp_path: Path, word: str) -> None:
    recipe = load(write(tmp_path, GOOD.replace("smollm2-135m-instruct", word))).recipe
    assert recipe.model.path == word
    assert load(write(tmp_path, dump(recipe), "again.yaml")).recipe == recipe


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "1.0e-4", "0.0001", "+1e-4"])
def test_numbers_without_a_dot_are_numbers(tmp_path: Path, number: str) -> None:
    file = write(tmp_path, GOOD.replace("1e-4", number))
    assert load(file).recipe.train.learning_rate == 1e-4
    assert load(file, [f"train.eps={number}"]).recipe.train.eps == 1e-4


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("", 1, 1, "empty"),
        ("# only a comment\n", 1, 1, "empty"),
        ("- a\n- b\n", 1, 1, "list"),
        ("model\n", 1, 1, "single value"),
        ("model:\n\tpath: x\n", 2, 1, "spaces"),
        ("model: a: b\n", 1, 9, "quotes"),
        ("model: [1\n", 2, 1, "flow sequence"),
        ("a: 1\na: 2\n", 2, 1, "given twice; the first is in line 1"),
        ("data:\n  train:\n    - path: a\n      path: b\n", 4, 7, "given twice; the first is in line 3"),
        ("a: &x [1, 2]\nb: [*x, *x]\n", 1, 4, "anchors"),
        ("a: !!python/name:os.system x\n", 1, 4, "tags"),
        ("%YAML 1.1\n---\na: no\n", 2, 1, "YAML 1.2"),
        ("a: 1\n---\nb: 2\n", 2, 1, "another document"),
        ("a: \x01\n", 1, 4, "character"),
        ('a: "\\UFFFFFFFF"\n', 1, 1, "escape"),
        ('a: "\\ud800"\n', 1, 4, "escape"),
        ("? [a]\n: 1\n", 1, 3, "key"),
        ("a: " + "[" * 3000, 1, 23, "levels"),
    ],
)
def test_bad_yaml_is_refused_with_its_place(tmp_path: Path, text: str, line: int, column: int, says: str) -> None:
    problem = only(problems_of(text, tmp_path))
    assert problem.code == "recipe/bad-yaml"
    assert problem.where == f"{tmp_path / 'recipe.yaml'}:{line}"
    assert problem.found.startswith(f"column {column}")
    assert says in str(problem)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_bytes_that_are_not_utf8_are_refused_with_their_place(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(mark + b"model:\n  path: caf\xe9\n")
    with pytest.raises(RecipeError) as caught:
        load(path)
    assert caught.value.code == "recipe/bad-yaml"
    assert caught.value.problems[0].where == f"{path}:2"
    assert caught.value.problems[0].found == "column 12"


def test_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "alpaca.yaml")
    write(tmp_path, GOOD, "zzzzzzzz.yaml")
    with pytest.raises(RecipeError) as caught:
        load(tmp_path / "alpacca.yaml")
    assert caught.value.code == "recipe/missing-file"
    assert str(tmp_path / "alpaca.yaml") in str(caught.value)
    assert "zzzzzzzz" not in str(caught.value)


def test_missing_file_in_a_missing_folder_and_a_folder(tmp_path: Path) -> None:
    for path, says in [(tmp_path / "no" / "a.yaml", "no folder"), (tmp_path, "is a folder")]:
        with pytest.raises(RecipeError, match=says) as caught:
            load(path)
        assert caught.value.code == "recipe/missing-file"


@pytest.mark.parametrize(
    ("call", "name"), [("is_file", "recipe.yaml"), ("read_text", "recipe.yaml"), ("iterdir", "missing.yaml")]
)
def test_what_the_system_refuses_is_said_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, name: str
) -> None:
    def refuse(self: Path, **_: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    write(tmp_path, GOOD)
    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(RecipeError) as caught:
        load(tmp_path / name)
    problem = only(caught.value.problems)
    assert problem.code == "recipe/missing-file"
    assert (problem.where, problem.found) == (str(tmp_path / name), "Permission denied")
    assert "cannot be read" in problem.what


_SHARE = st.floats(0, 1, exclude_max=True)
_POSITIVE = st.floats(0, exclude_min=True, allow_infinity=False)
_COUNT = st.integers(1)
_WORD = st.sampled_from(
    ["no", "null", "1e-4", "2024-01-01", "=", "<<", "~", " a ", "- x", "# x", "a: b", "é\n\x85", "\u2028x"]
)
_TEXT = st.one_of(_WORD, st.text(min_size=1))
_SOURCE = st.builds(Source, path=_TEXT, weight=st.floats(0, 1e300), completion_after=st.none() | _TEXT)
_RECIPES = st.builds(
    Recipe,
    model=st.builds(
        ModelOptions,
        path=_TEXT,
        template=st.none() | _TEXT,
        adapter=st.builds(Full) | st.builds(Lora, rank=_COUNT, alpha=st.none() | _POSITIVE, dropout=_SHARE),
    ),
    data=st.builds(
        DataOptions,
        train=st.lists(_SOURCE, min_size=1, max_size=2),
        heldout=_SHARE | st.builds(HeldoutFile, path=_TEXT, limit=st.none() | _COUNT),
        max_length=_COUNT,
    ),
    train=st.builds(
        TrainOptions,
        epochs=st.none() | _COUNT,
        steps=st.none(),
        schedule=st.builds(Schedule, warmup=_SHARE | st.integers(0)),
        betas=st.tuples(_SHARE, _SHARE),
        eps=_POSITIVE,
        learning_rate=st.none() | _POSITIVE,
    ),
    evaluate=st.builds(EvaluateOptions, confidence=st.floats(0.5, 1, exclude_min=True, exclude_max=True)),
    output=_TEXT,
)


@settings(max_examples=40, deadline=None)
@given(_RECIPES)
def test_dump_then_load_is_the_identity(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    file = write(tmp_path_factory.mktemp("dump"), dump(recipe))
    assert load(file).recipe == recipe
