"""Suspects: wrong answers come first, each kind is known by its course, and what is written is what is read."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest

import tinyruns
from tutelage import commands
from tutelage.data.store import ROW
from tutelage.errors import DataError, RecipeError
from tutelage.evaluate.passes import Passes, first_renderings
from tutelage.suspects import find
from tutelage.suspects.courses import Courses
from tutelage.suspects.ranking import by_losses

WRONG, ROWS = 10, 200
QUICK = {"drift": False, "knowledge": 0}


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory, tiny_model):
    """A finished run on 200 rows of a rule, ten of which have an answer that is not by the rule; and which ones."""
    folder = tmp_path_factory.mktemp("shuffled")
    draw = random.Random(7)
    colours = tinyruns.COLOURS
    wrong = set(draw.sample(range(ROWS), WRONG))

    def row(number, colour):
        prompt = f"Box {number}: it is {colours[number % 8]} inside. Which colour?"
        return {"instruction": prompt, "input": "", "output": colour}

    def answer(number):
        right = colours[number % 8]
        return draw.choice([c for c in colours if c != right]) if number in wrong else right

    data = tinyruns.write_rows(folder / "rows.jsonl", [row(n, answer(n)) for n in range(ROWS)])
    apart = tinyruns.write_rows(folder / "apart.jsonl", [row(n, colours[n % 8]) for n in range(ROWS, ROWS + 16)])
    values = tinyruns.recipe(
        tiny_model("llama"),
        data,
        folder / "run",
        data={"heldout": {"path": str(apart)}},
        train={"steps": None, "epochs": 3, "learning_rate": 3e-3},
        evaluate=QUICK,
    )
    recipe = tinyruns.write_recipe(folder / "recipe.yaml", values)
    with pytest.MonkeyPatch.context() as patch:
        tinyruns.prove_here(patch)
        commands.train(recipe)
    return SimpleNamespace(folder=folder, run=folder / "run", recipe=recipe, wrong={n + 1 for n in wrong})


def line_of(row) -> int:
    return int(row["origin"].rpartition(":")[2])


def test_wrong_answers_are_found_and_left_out_of_the_next_run(shuffled):
    found = find(shuffled.run)
    first = [line_of(row) for row in found.rows[:15]]
    assert len(shuffled.wrong & set(first)) >= 8
    assert found.rows[0]["kind"] == "mislabelled"
    assert (found.trained, found.passes) == (ROWS, 3)
    assert all(len(row["losses"]) == 3 for row in found.rows)
    assert found.rows[0]["prompt"] == f"Box {first[0] - 1}: it is " + found.rows[0]["prompt"].partition("it is ")[2]

    path = found.write(shuffled.run)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len((shuffled.run / "suspects.jsonl").read_text().splitlines()) == len(found.rows)
    assert [line["row"] for line in lines] == [row["row"] for row in found.rows]
    # Somebody looks through it and keeps the lines that are right; the others are the rows that the ranking missed.
    keys = {row.origin.line: row.index for row in commands.preview(shuffled.recipe)[0].dataset.rows("train")}
    pairs = commands.preview(shuffled.recipe)[0].dataset.store.rows["pair"]
    kept = [line for line in lines if line_of(line) in shuffled.wrong]
    missed = shuffled.wrong - {line_of(line) for line in kept}
    kept += [{"row": f"{int(pairs[keys[number]]):016x}", "weight": 0} for number in missed]
    edited = tinyruns.write_rows(shuffled.folder / "edited.jsonl", kept)
    overrides = [f"data.adjust={edited}", f"output={shuffled.folder / 'second'}", "train.epochs=null", "train.steps=1"]
    with pytest.MonkeyPatch.context() as patch:
        tinyruns.prove_here(patch)
        result = commands.train(shuffled.recipe, overrides)
    dropped = {"weight 0 in data.adjust": WRONG}
    assert result["ledger"] == {"rows": ROWS + 16, "trained": ROWS - WRONG, "heldout": 16, "dropped": dropped}
    data = json.loads((shuffled.folder / "second" / "data.json").read_text())
    lines_left_out = [origin["line"] for origin in data["ledger"]["origins"]["weight 0 in data.adjust"]]
    assert lines_left_out == sorted(shuffled.wrong)


def test_what_was_edited_is_not_overwritten(shuffled):
    found = find(shuffled.run, top=3)
    path = shuffled.folder / "mine.jsonl"
    assert found.write(shuffled.run, path) == path
    assert found.write(shuffled.run, path) == path  # the same again is no harm
    path.write_text(path.read_text().replace('"weight": 0.0', '"weight": 0.5', 1))
    with pytest.raises(RecipeError) as raised:
        found.write(shuffled.run, path)
    assert raised.value.code == "usage/output-exists"


def test_few_are_listed_and_all_are_counted(shuffled):
    few, all_of_them = find(shuffled.run, top=3), find(shuffled.run, top=1000)
    assert few.rows == all_of_them.rows[:3]
    assert few.found == all_of_them.found
    assert any("the first 3 are listed" in note for note in few.notes)


def test_other_rows_than_those_of_the_record_are_refused(shuffled):
    rows = (shuffled.folder / "rows.jsonl").read_text()
    try:
        (shuffled.folder / "rows.jsonl").write_text(rows.replace("Box 7:", "Box seven:"))
        with pytest.raises(DataError) as raised:
            find(shuffled.run)
        assert raised.value.code == "data/changed"
    finally:
        (shuffled.folder / "rows.jsonl").write_text(rows)


def test_a_run_without_a_record_is_refused(shuffled, tmp_path):
    for name in ("run.json", "recipe.yaml"):
        (tmp_path / name).write_text((shuffled.run / name).read_text())
    with pytest.raises(RecipeError) as raised:
        find(tmp_path)
    assert raised.value.code == "usage/no-record"
    with pytest.raises(RecipeError) as raised:
        find(tmp_path / "nowhere")
    assert raised.value.code == "usage/not-a-run"


def test_the_same_prompt_with_another_answer_is_in_conflict(workdir, tiny_model):
    """Also when it is spaced otherwise; but prompts that differ in a sign alone are not the same."""
    rows = [
        *tinyruns.demonstrations(12),
        {"instruction": "What is 5 + 3?", "input": "", "output": "8"},
        {"instruction": "What is 5 - 3?", "input": "", "output": "2"},
        {"instruction": "Name a  dog.", "input": "", "output": "Rex"},
        {"instruction": "name a dog.", "input": "", "output": "Bello"},
        {"instruction": "Name a dog.", "input": "", "output": "Rex"},
    ]
    data = tinyruns.write_rows(workdir / "rows.jsonl", rows)
    recipe = tinyruns.recipe(
        tiny_model("llama"),
        data,
        workdir / "run",
        data={"heldout": 0},
        train={"steps": None, "epochs": 1},
        evaluate=QUICK,
    )
    commands.train(recipe)
    found = find(workdir / "run")
    conflicts = [row for row in found.rows if row["kind"] == "in conflict"]
    assert sorted(map(line_of, conflicts)) == [15, 16, 17]
    assert {row["weight"] for row in conflicts} <= {0.5, 0.0}
    by_line = {line_of(row): row["why"] for row in conflicts}
    assert by_line[15] == f"the same prompt has 2 answers; another one stands in {data}:16"
    assert by_line[16] == f"the same prompt has 2 answers; another one stands in {data}:15"
    assert found.found["memorised"] == found.found["unlearnable"] == 0
    assert any("each row was trained on once" in note for note in found.notes)


def courses(losses, sources=None, batch=10):
    """From losses (rows, passes); rows come in an order of their own at each pass."""
    count, number = losses.shape
    rows = np.zeros(count, ROW)
    rows["source"], rows["examples"], rows["renderings"] = sources or 0, 1, 1
    store = SimpleNamespace(rows=rows, first_example=np.arange(count + 1), rows_of=lambda examples: examples)
    lines = []
    for epoch in range(number):
        order = np.random.default_rng(epoch).permutation(count)
        for start in range(0, count, batch):
            chosen = order[start : start + batch]
            step = {"step": len(lines) + 1, "epoch": epoch + 1, "examples": chosen.tolist()}
            lines.append({**step, "nll": (8 * losses[chosen, epoch]).tolist(), "weight": [8.0] * len(chosen)})
    return Courses.of(Passes.read(lines), store)


def falling(count=200, seed=0):
    rng = np.random.default_rng(seed)
    return np.array([2.0, 1.0, 0.6]) + rng.normal(0, 0.1, (count, 1)) + rng.normal(0, 0.05, (count, 3))


def test_each_kind_is_known_by_its_course():
    losses = falling()
    losses[3] = [2.0, 1.9, 2.1]  # like others at first, and stays
    losses[5] = [6.0, 6.1, 6.0]  # high from the first pass on
    losses[7] = [2.0, 0.3, 0.01]  # falls far more than held-out rows
    heldout = [
        (step, 8 * np.array([level + 0.1 * k for k in range(9)]), np.full(9, 8.0))
        for step, level in ((0, 2.2), (20, 1.4), (40, 1.0), (60, 0.9))
    ]
    found = {one.row: one for one in by_losses(courses(losses), heldout)}
    assert {row: found[row].kind for row in (3, 5, 7)} == {3: "mislabelled", 5: "unlearnable", 7: "memorised"}
    assert found[3].weight == found[5].weight == 0
    assert found[7].weight == pytest.approx(1 / 3, abs=1e-3)
    assert sum(one.kind in ("mislabelled", "unlearnable") for one in found.values()) <= 4  # one in 700 by chance
    assert not [one for one in by_losses(courses(losses)) if one.kind == "memorised"]  # nothing to compare with


def test_a_source_that_is_hard_is_not_suspicious():
    losses = falling(200)
    losses[:40] += 5.0
    sources = [0] * 40 + [1] * 160
    assert len(by_losses(courses(losses, sources))) <= 4
    assert len(by_losses(courses(losses))) >= 30  # they would be, were all rows taken as one kind


def test_rows_met_early_in_the_first_pass_are_not_suspicious():
    """One pass, in which the loss falls from 6 to 1: a row is compared with those of its time."""
    count = 400
    losses = np.zeros((count, 1))
    order = np.random.default_rng(0).permutation(count)
    losses[order, 0] = 1 + 5 * np.exp(-np.arange(count) / 80) + np.random.default_rng(1).normal(0, 0.3, count)
    losses[order[350], 0] = 5.5  # no more than the first rows cost, and far too much for so late
    found = by_losses(courses(losses))
    assert order[350] in {one.row for one in found}
    assert len(found) <= 12
    assert {one.kind for one in found} == {"mislabelled"}


def test_a_row_is_the_same_in_all_its_renderings():
    rows = np.zeros(3, ROW)
    rows["examples"], rows["renderings"] = [4, 1, 6], [2, 1, 3]
    first = np.array([0, 4, 5, 11])
    store = SimpleNamespace(
        rows=rows, first_example=first, rows_of=lambda examples: np.searchsorted(first, examples, side="right") - 1
    )
    names = first_renderings(store, np.arange(11))
    assert names.tolist() == [0, 1, 0, 1, 4, 5, 6, 5, 6, 5, 6]
    lines = [
        {"step": 1, "epoch": 1, "examples": [0, 1, 4], "nll": [3.0, 1.0, 5.0], "weight": [1.0, 1.0, 2.0]},
        {"step": 2, "epoch": 2, "examples": [2, 3, 4], "nll": [1.0, 2.0, None], "weight": [2.0, 1.0, 2.0]},
    ]
    found = Courses.of(Passes.read(lines, lambda places: first_renderings(store, places)), store)
    assert found.rows.tolist() == [0, 1]
    assert found.loss[0].tolist() == [2.0, 1.0]
    assert found.loss[1, 0] == 2.5
    assert found.last.tolist() == [1, 0]  # a loss that is not finite is no pass


def test_a_run_with_canaries_trains_on_them_and_suspects_none(workdir, tiny_model):
    data = tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations(12))
    recipe = tinyruns.recipe(
        tiny_model("llama"),
        data,
        workdir / "run",
        data={"heldout": 0},
        train={"steps": None, "epochs": 2},
        evaluate={"canaries": 3, **QUICK},
    )
    result = commands.train(recipe)
    assert result["ledger"]["trained"] == 15
    assert json.loads((workdir / "run" / "data.json").read_text())["sources"][-1]["name"] == "canaries"
    found = find(workdir / "run")
    assert found.trained == 12
    assert not [row for row in found.rows if "canaries" in row["origin"]]
