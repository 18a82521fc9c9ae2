"""A run folder is read whole; what is not there yet is empty; what cannot be read is said, all of it at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from madeup import RECIPE, make_run, write_json, write_lines

from tutelage.errors import DataError, RecipeError
from tutelage.report.collect import collect
from tutelage.report.contents import Setting


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "orders")


def test_a_finished_run(run: Path) -> None:
    report = collect(run)
    assert report.name == "orders"
    assert [step.step for step in report.steps] == list(range(1, 31))
    assert report.evaluations == ((0, 2.312), (15, 1.987), (30, 1.902))
    assert report.result is not None
    assert report.result["status"] == "done"
    assert len(report.samples) == 4
    assert len(report.rows) == 3


def test_only_what_was_given_is_listed_with_its_value(run: Path) -> None:
    given = collect(run).given
    assert Setting("train.learning_rate", 2e-4, "command line") in given
    assert Setting("data.over_long", "drop", "orders.yaml:8") in given
    assert not any(one.origin == "default" for one in given)


@pytest.mark.parametrize("option", ["data.train.0.path", "data.train[0].path"])
def test_a_value_inside_a_list_is_found(run: Path, option: str) -> None:
    write_json(run / "origins.json", {option: "command line", "train.gone": "x.yaml:1"})
    first, second = collect(run).given
    assert first.value == "shop/orders.jsonl"
    assert second.value is None


def test_the_ledger_adds_up_or_says_by_how_much_not(run: Path) -> None:
    ledger = collect(run).ledger
    assert ledger is not None
    assert ledger.unaccounted == 0
    assert [(one.reason, one.rows, len(one.origins)) for one in ledger.dropped] == [
        ("over-long", 7, 7),
        ("empty answer", 3, 3),
    ]
    assert ledger.dropped[0].origins[0] == "shop/orders.jsonl:12"
    write_json(run / "data.json", {"ledger": {"rows": 10, "trained": 5, "heldout": 1, "dropped": {"x": 1}}})
    ledger = collect(run).ledger
    assert ledger is not None
    assert ledger.unaccounted == 3


def test_what_is_not_finite_is_none(run: Path) -> None:
    skipped = collect(run).steps[6]
    assert skipped.skipped
    assert skipped.loss is None
    assert skipped.grad_norm is None
    assert skipped.learning_rate is not None


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400", "true", '"2.1"', "null", "1" + "0" * 400])
def test_no_odd_number_gets_through(run: Path, value: str) -> None:
    (run / "metrics.jsonl").write_text(f'{{"step": 1, "loss": {value}}}\n')
    assert collect(run).steps[0].loss is None


def test_a_recipe_alone_is_a_run_that_has_just_begun(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    report = collect(tmp_path)
    assert report.result is None
    assert report.ledger is None
    assert (report.steps, report.evaluations, report.samples, report.rows, report.given) == ((), (), (), (), ())


@pytest.mark.parametrize("folder", ["", "not-there"])
def test_any_other_folder_is_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(RecipeError) as refused:
        collect(tmp_path / folder)
    assert refused.value.code == "usage/not-a-run"
    assert refused.value.exit_code == 2


def test_a_line_still_being_written_is_left_out(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "lo')
    assert len(collect(run).steps) == 30


def test_a_last_line_without_its_new_line_counts_when_it_is_whole(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "loss": 1.5}')
    assert collect(run).steps[-1].loss == 1.5


def test_all_broken_files_are_named_together(run: Path) -> None:
    (run / "plan.json").write_text("{")
    (run / "result.json").write_text("[]")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[4] = "oops"
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError) as refused:
        collect(run)
    assert [problem.where for problem in refused.value.problems] == [
        str(run / "plan.json"),
        str(run / "result.json"),
        f"{run / 'metrics.jsonl'}:5",
    ]
    assert refused.value.code == "data/bad-json"


def test_a_broken_recipe_is_named(run: Path) -> None:
    (run / "recipe.yaml").write_text("a: [")
    with pytest.raises(RecipeError) as refused:
        collect(run)
    assert refused.value.code == "recipe/bad-yaml"


def test_a_step_repeated_after_a_resume_counts_once(run: Path) -> None:
    write_lines(
        run / "metrics.jsonl", [{"step": s, "loss": loss} for s, loss in ((1, 3.0), (2, 2.0), (2, 1.5), (3, 1.0))]
    )
    assert [(step.step, step.loss) for step in collect(run).steps] == [(1, 3.0), (2, 1.5), (3, 1.0)]


def test_answers_to_one_prompt_are_paired_and_the_latest_wins(run: Path) -> None:
    common = {"origin": {"file": "a.jsonl", "line": 1}, "prompt": "2 + 2 =", "reference": "4"}
    write_lines(
        run / "samples.jsonl",
        [
            {**common, "step": 20, "model": "tuned", "answer": "4", "correct": True},
            {**common, "step": 0, "model": "base", "answer": "5", "stopped": False},
            {**common, "step": 10, "model": "tuned", "answer": "3"},
            {**common, "step": 0, "model": "base", "origin": {"file": "a.jsonl", "line": 2}, "answer": "6"},
        ],
    )
    first, second = collect(run).samples
    assert first.base is not None
    assert first.tuned is not None
    assert (first.base.text, first.tuned.text, first.tuned.correct, first.base.stopped) == ("5", "4", True, False)
    assert second.tuned is None


def test_bytes_that_are_not_utf8_do_not_stop_the_reading(run: Path) -> None:
    (run / "rows.jsonl").write_bytes(b'{"origin": {"file": "a", "line": 1}, "tokens": [["\xff", 1.0]]}\n')
    assert collect(run).rows[0].tokens == (("\ufffd", 1.0),)
