"""`data.adjust`: rows are found by what they hold; a weight of 0 leaves them out, others multiply their loss."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

import tinyruns
from tutelage import commands
from tutelage.data.adjust import Adjustment, name_of_row
from tutelage.data.ledger import Ledger
from tutelage.data.selection import HELDOUT, REASONS, TRAIN, select
from tutelage.data.store import ROW
from tutelage.errors import DataError
from tutelage.recipe import DataOptions
from tutelage.types import Origin

LEFT = 2 + REASONS.index("weight 0 in data.adjust")


def stored(prompts, answers):
    rows = np.zeros(len(prompts), ROW)
    rows["prompt"] = np.array(prompts, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    rows["pair"] = [1000 * prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    rows["examples"] = rows["renderings"] = 1
    return SimpleNamespace(rows=rows, array=lambda name: None, origin=lambda row: Origin("a", int(row) + 1))


def adjusted(folder, lines, store, **options):
    path = tinyruns.write_rows(folder / "adjust.jsonl", lines)
    ledger = Ledger()
    given = {"train": [{"path": "s"}], "heldout": 0, "adjust": str(path), **options}
    selection = select(store, DataOptions.model_validate(given), ledger)
    ledger.balance(len(store.rows))
    return selection, ledger


def line(pair: int, weight: float, **more):
    return {"row": name_of_row(pair), "weight": weight, **more}


def test_rows_are_dropped_and_weighted_by_content(tmp_path):
    store = stored([1, 2, 3, 2], [1, 1, 1, 1])
    selection, ledger = adjusted(tmp_path, [line(2001, 0, origin="old.jsonl:9"), line(3001, 0.25)], store)
    assert selection.sides.tolist() == [TRAIN, LEFT, TRAIN, LEFT]  # also the copy of a row that is named
    assert selection.adjusted.factors.tolist() == [1.0, 1.0, 0.25, 1.0]
    assert ledger.dropped == {"weight 0 in data.adjust": 2}
    assert [str(o) for o in ledger.origins["weight 0 in data.adjust"]] == ["a:2", "a:4"]
    assert ledger.trained == 2
    assert selection.adjusted.remarks() == []


def test_a_line_that_names_no_row_is_told(tmp_path):
    selection, _ = adjusted(tmp_path, [line(77, 0, origin="gone.jsonl:4")], stored([1], [1]))
    path = tmp_path / "adjust.jsonl"
    assert selection.adjusted.missing == [f"{path}:1 (gone.jsonl:4)"]
    assert selection.adjusted.remarks() == [
        f"data.adjust: 1 of the rows that it names are not among the rows: {path}:1 (gone.jsonl:4)"
    ]


def test_a_heldout_row_stays_as_it_is(tmp_path):
    store = stored(list(range(1, 40)), [1] * 39)
    given = [line(1000 * prompt + 1, 0 if prompt % 2 else 0.5) for prompt in range(1, 40)]
    bare = select(store, DataOptions.model_validate({"train": [{"path": "s"}], "heldout": 0.3}), Ledger()).sides
    selection, _ = adjusted(tmp_path, given, store, heldout=0.3)
    assert (selection.sides == HELDOUT).tolist() == (bare == HELDOUT).tolist()
    assert len(selection.adjusted.heldout) == int((bare == HELDOUT).sum()) > 3
    assert (selection.adjusted.factors[bare == HELDOUT] == 1).all()
    assert selection.adjusted.dropped + selection.adjusted.weighted == int((bare == TRAIN).sum())


@pytest.mark.parametrize("duplicates", [{"prompt": "drop"}, {"near": "drop"}])
def test_another_answer_takes_the_place_of_the_one_that_is_dropped(tmp_path, duplicates):
    """The first row of a prompt is kept; where it is the bad one, the next is."""
    store = stored([1, 1, 1, 2, 2], [1, 2, 3, 1, 2])
    selection, ledger = adjusted(tmp_path, [line(1001, 0), line(1002, 0)], store, duplicates=duplicates)
    assert selection.sides[[0, 2, 3]].tolist() == [LEFT, TRAIN, TRAIN]
    assert TRAIN not in selection.sides[[1, 4]].tolist()
    assert ledger.trained == 2


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ('{"row": "00000000000003e9", "weight": 0}\n{"row": "x", "weight": 0}', "data/bad-row", ":2"),
        ('{"row": "00000000000003e9", "weight": -1}', "data/bad-row", ":1"),
        ('{"row": "00000000000003e9", "weight": true}', "data/bad-row", ":1"),
        ('{"row": "00000000000003e9"}', "data/bad-row", ":1"),
        ('{"row": "00000000000003e9", "weight": 0}\n{"row": "00000000000003e9", "weight": 1}', "data/bad-row", ":2"),
        ('{"row": "00000000000003e9", "weight": 0}\n{"row"', "data/bad-json", ":2"),
        ("[1]", "data/bad-json", ":1"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, code, place):
    path = tmp_path / "adjust.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(DataError) as raised:
        Adjustment.read(str(path))
    assert raised.value.code == code
    assert raised.value.problems[0].where == f"{path}{place}"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError) as raised:
        Adjustment.read(str(tmp_path / "none.jsonl"))
    assert raised.value.code == "data/missing-file"


def test_the_loss_of_a_weighted_row_is_multiplied(workdir, tiny_model):
    """Through the whole of the data side: examples, ledger, what `data.json` says; wherever the rows lie now."""
    rows = tinyruns.demonstrations(6)
    data = tinyruns.write_rows(workdir / "rows.jsonl", rows)
    recipe = tinyruns.recipe(tiny_model("llama"), data, workdir / "run", data={"heldout": 0})
    before, _ = commands.preview(recipe)
    names = [name_of_row(int(pair)) for pair in before.dataset.store.rows["pair"]]
    lines = [{"row": names[1], "weight": 0, "origin": "rows.jsonl:2"}, {"row": names[4], "weight": 0.5}]
    adjust = tinyruns.write_rows(workdir / "adjust.jsonl", lines)
    moved = tinyruns.write_rows(workdir / "moved.jsonl", rows[::-1])
    recipe["data"] |= {"adjust": str(adjust), "train": [{"path": str(moved)}]}
    after, _ = commands.preview(recipe)
    assert after.dataset.ledger.dropped == {"weight 0 in data.adjust": 1}
    assert [str(o) for o in after.dataset.ledger.origins["weight 0 in data.adjust"]] == [f"{moved}:5"]
    assert after.describe()["adjusted"] == {"dropped": 1, "weighted": 1, "heldout": [], "missing": []}
    weights = {example.origin.line: set(example.weights[example.weights > 0]) for example in after.train}
    assert weights == {1: {1.0}, 2: {0.5}, 3: {1.0}, 4: {1.0}, 6: {1.0}}
    assert "adjusted" not in before.describe()
    assert json.dumps(after.describe())
