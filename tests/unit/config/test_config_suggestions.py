"""An option that does not exist is answered with the one that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from goodrecipe import GOOD, only, problems, problems_of, values

from tutelage.config import PEERS, options


@pytest.mark.parametrize("section", ["train", "model", "evaluate", ""])
def test_misspelt_option_is_answered_with_the_option_and_its_section(tmp_path: Path, section: str) -> None:
    text = GOOD + (f"{section}:\n  learning_rte: 1e-4\n" if section == "evaluate" else "")
    if section == "train":
        text = GOOD.replace("learning_rate", "learning_rte")
    elif section == "model":
        text = GOOD.replace("model:\n", "model:\n  learning_rte: 1e-4\n")
    elif section == "":
        text = GOOD + "learning_rte: 1e-4\n"
    problem = only(problems_of(text, tmp_path))
    assert problem.code == "recipe/unknown-option"
    assert "did you mean `learning_rate` (section train)?" in str(problem)
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "learning_rte" in row)
    assert problem.where == f"{tmp_path / 'recipe.yaml'}:{line}"
    assert problem.found == "learning_rte = 0.0001"


def test_unknown_option_lists_the_section() -> None:
    problem = only(problems(values(export={"zzz": 1})))
    assert problem.why == "section export has: merged, step"


def test_known_option_in_another_section() -> None:
    assert "did you mean `max_grad_norm` (section train)?" in only(problems(values(max_grad_norm=1.0))).fix
    assert "`kind` (section model.adapter)" in only(problems(values(kind="lora"))).fix


def test_near_name_beside_and_same_name_elsewhere_are_both_named() -> None:
    given = values(data={"train": [{"path": "a"}], "weight": 2.0, "max_lenght": 3})
    assert [problem.fix for problem in problems(given)] == [
        "did you mean `weight` (each entry of data.train)?",
        "did you mean `max_length` (section data)?",
    ]


def test_dotted_key_in_the_file() -> None:
    assert "`epochs` (section train)" in only(problems(values(**{"train.epochs": 3}))).fix


def test_option_of_the_other_adapter() -> None:
    problem = only(problems(values(model={"path": "m", "adapter": {"kind": "full", "rank": 8}})))
    assert problem.code == "recipe/unknown-option"
    assert "another `kind`" in problem.fix


@pytest.mark.parametrize("place", ["top", "section", "entry", "unknown section"])
@pytest.mark.parametrize("spelling", sorted(PEERS))
def test_other_tools_spellings_are_answered_with_ours(spelling: str, place: str) -> None:
    given = values(evaluate={}, data={"train": [{"path": "a"}]})
    holder = {"top": given, "section": given["evaluate"], "entry": given["data"]["train"][0]}.get(place)
    if holder is None:
        holder = given["zz_args"] = {}
    holder[spelling] = 1
    problem = problems(given)[-1]
    ours, note = PEERS[spelling]
    assert problem.code == "recipe/unknown-option"
    assert f"{spelling}`" in problem.what
    assert note in problem.fix
    assert not ours or f"`{ours.rpartition('.')[2]}` (" in problem.fix


def test_every_answer_is_an_option() -> None:
    names = {option.name for option in options()}
    assert {ours for ours, _ in PEERS.values() if ours} <= names


def test_batch_spellings_explain_the_two_options() -> None:
    fix = only(problems(values(train={"gradient_accumulation_steps": 4}))).fix
    assert "`train.global_batch_size` counts examples per optimizer step" in fix
    assert "`train.token_budget` decides how many tokens are computed at once" in fix


def test_a_misspelt_option_is_not_also_missing() -> None:
    given = values(output_dir="runs/a", model_name_or_path="m")
    del given["output"], given["model"]
    assert [problem.code for problem in problems(given)] == ["recipe/unknown-option"] * 2
