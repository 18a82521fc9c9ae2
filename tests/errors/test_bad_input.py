"""Bad input is refused with the right exit code, in one shape, with the place, and leaves nothing behind."""

from __future__ import annotations

import json
import re

import pytest
import torch
from badinput import CASES, GOOD, Case, good, malformed_line, no_weights, text

import tinyruns


@pytest.mark.parametrize(
    ("verb", "spoil"),
    [(verb, spoil) for verb in ("train", "check") for spoil in CASES],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_it_is_refused_with_code_place_and_fix(workdir, tiny_model, verb, spoil):
    code, name, says = CASES[spoil]
    case = Case(workdir, tiny_model("llama"))
    spoil(case)
    command = case.command(verb)
    before = tinyruns.tree(workdir)
    outcome = tinyruns.tutelage(*command)
    assert_refused(outcome, code, name, says)
    assert tinyruns.tree(workdir) == before
    assert {path.name for path in workdir.iterdir() if path.is_dir()} <= {"model", "run"}


def assert_refused(outcome: tinyruns.Outcome, code: int, name: str, says: str) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    # On a slow machine a line of progress may stand before it.
    assert f"\nerror[{name}]: " in f"\n{outcome.err}", outcome.err
    assert "Traceback" not in outcome.err
    assert re.search(says, outcome.err, re.MULTILINE), outcome.err
    assert re.search(r"^  (where|found) ", outcome.err, re.MULTILINE)


@pytest.mark.parametrize("spoil", [malformed_line, no_weights])
def test_the_same_in_a_process_of_its_own(workdir, tiny_model, spoil):
    code, name, says = CASES[spoil]
    case = Case(workdir, tiny_model("llama"))
    spoil(case)
    command = case.command("train")
    before = tinyruns.tree(workdir)
    assert_refused(tinyruns.process(*command, folder=workdir), code, name, says)
    assert tinyruns.tree(workdir) == before


def test_a_missing_recipe(workdir):
    (workdir / "recipes.yaml").write_text("")
    outcome = tinyruns.process("train", "recipe.yaml", folder=workdir)
    assert_refused(outcome, 2, "recipe/missing-file", r"fix .*recipes\.yaml")


def test_a_recipe_that_is_no_yaml(workdir):
    (workdir / "recipe.yaml").write_text("model:\n  path: [unclosed\n")
    assert_refused(tinyruns.tutelage("check", "recipe.yaml"), 2, "recipe/bad-yaml", r"where recipe\.yaml:\d")


def test_a_bad_override(workdir, tiny_model):
    command = Case(workdir, tiny_model("llama")).command("check")
    outcome = tinyruns.tutelage(*command, "train.epoch=2", "nonsense", "train.steps=few")
    assert outcome.code == 2
    assert len(re.findall(r"^error\[recipe/", outcome.err, re.MULTILINE)) == 3


def test_all_bad_rows_are_reported_at_once(workdir, tiny_model):
    case = Case(workdir, tiny_model("llama"))
    case.rows.write_bytes(text([{**GOOD, "output": ""} if n % 2 else good(20)[n] for n in range(20)] * 2) + b"{\n")
    outcome = tinyruns.tutelage(*case.command("check"))
    assert outcome.code == 3
    places = re.findall(r"^  where rows\.jsonl:(\d+)$", outcome.err, re.MULTILINE)
    assert places == [str(line) for line in range(2, 21, 2)]
    assert "11 more rows have a problem, 21 of 41 in all" in outcome.err
    assert "where the last at rows.jsonl:41" in outcome.err


def test_quarantined_rows_are_set_aside_and_counted(workdir, tiny_model, monkeypatch):
    tinyruns.prove_here(monkeypatch)
    case = Case(workdir, tiny_model("llama"))
    case.rows.write_bytes(text([*good(20), {**GOOD, "output": ""}]) + b"{\n")
    case.values["data"] |= {"on_bad_row": "quarantine", "max_quarantined": 0.2}
    outcome = tinyruns.tutelage(*case.command("train"), "--json")
    assert outcome.code == 0, outcome.err
    ledger = json.loads(outcome.out)["ledger"]
    assert ledger["rows"] == 22
    assert ledger["dropped"] == {"bad-json": 1, "empty-answer": 1}
    aside = [json.loads(line) for line in (workdir / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(row["where"] for row in aside) == ["rows.jsonl:21", "rows.jsonl:22"]


def _on_cpu() -> RuntimeError:
    """What torch raises when there is no such room."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    return caught.value


@pytest.mark.parametrize("raised", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), _on_cpu])
def test_running_out_of_memory_says_what_to_change(workdir, tiny_model, monkeypatch, raised):
    def fail(*arguments):
        raise raised() if callable(raised) else raised

    monkeypatch.setattr("tutelage.objectives.nll.nll", fail)
    case = Case(workdir, tiny_model("llama"))
    outcome = tinyruns.tutelage(*case.command("train"))
    assert outcome.code == 5
    assert "error[machine/out-of-memory]" in outcome.err
    assert "data.max_length" in outcome.err
    assert json.loads((workdir / "run" / "result.json").read_text())["status"] == "failed"
