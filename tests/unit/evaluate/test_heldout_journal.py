"""Two runs paired by the rows that both held out, from what each of them kept."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tutelage.evaluate.anatomy import Anatomy, Piece
from tutelage.evaluate.compare import paired_ratio
from tutelage.evaluate.heldout import HeldoutLoss
from tutelage.evaluate.journal import describe, line, paired, recorded
from tutelage.runs import Run
from tutelage.types import Origin


def anatomy_of(names, tokens=10, size=30, weight=1.0):
    """Of one example a row, each with one answer."""
    pieces = [Piece(n, 5, 5 + tokens, 1, False, True, tokens, size, weight * tokens) for n in range(len(names))]
    origins = tuple(Origin("a.jsonl", n + 1) for n in range(len(names)))
    return Anatomy(tuple(names), origins, *[(text,) * len(names) for text in ("a", "", "")], tuple(pieces))


@pytest.fixture
def keep(tmp_path):
    """`keep("one", anatomy, base=[...], tuned=[...])` is what a run of that name recorded."""

    def kept(name, made, **sums):
        run = Run(tmp_path / name)
        run.create()
        run.write_json("heldout.json", describe(made))
        weights = made.by_example(made.column("weight"))
        for step, (model, values) in enumerate(sums.items()):
            loss = HeldoutLoss(np.array(values, dtype=float), weights, 1)
            run.append("heldout.jsonl", [line(step, model.replace("_", " "), loss)])
        return recorded(run, name)

    return kept


NAMES = [f"r{number}" for number in range(12)]
BASE = [20.0 + number for number in range(12)]
FIRST = [value - 5 for value in BASE]
SECOND = [value - 8 - number / 10 for number, value in enumerate(BASE)]


def test_what_is_kept_is_what_others_read(tmp_path):
    run = Run(tmp_path)
    run.write_json("heldout.json", describe(anatomy_of(NAMES[:2])))
    said = json.loads((tmp_path / "heldout.json").read_text())
    assert said == {
        "rows": ["r0", "r1"],
        "renderings": ["", ""],
        "origins": [["a.jsonl", 1], ["a.jsonl", 2]],
        "sources": ["a", "a"],
        "turns": [1, 1],
        "tokens": [10, 10],
        "bytes": [30, 30],
        "weights": [10.0, 10.0],
    }
    loss = HeldoutLoss(np.array([1.5, 2.5]), np.array([10.0, 10.0]), 20)
    assert line(7, "tuned", loss) == {"step": 7, "model": "tuned", "sums": [1.5, 2.5]}


def test_the_same_rows_in_another_order_are_paired(keep):
    one = keep("one", anatomy_of(NAMES), base=BASE, step_3=[0.0] * 12, tuned=FIRST)
    two = keep("two", anatomy_of(NAMES[::-1]), base=BASE[::-1], tuned=SECOND[::-1])
    found = paired(one, two, 0.95)
    weights = np.full(12, 10.0)
    expected = paired_ratio(np.array(FIRST), np.array(SECOND), weights, confidence=0.95)
    assert found["difference"] == pytest.approx(expected.difference)
    assert found["interval"] == pytest.approx(list(expected.interval))
    assert (found["n"], found["unit"], found["same_base"], found["verdict"]) == (12, "nats per token", True, "better")
    assert found["base_before"] == found["other_before"] == pytest.approx(sum(BASE) / 120)
    assert found["sentence"].startswith("two is better on held-out rows than one: held-out loss ")
    assert "; 12 shared rows)." in found["sentence"]


def test_rows_of_one_alone_are_left_out_and_counted(keep):
    one = keep("one", anatomy_of(NAMES), base=BASE, tuned=FIRST)
    two = keep("two", anatomy_of([*NAMES[4:], "other"]), base=[*BASE[4:], 99], tuned=[*SECOND[4:], 0])
    found = paired(one, two, 0.95)
    assert (found["n"], found["rows"]) == (8, {"base": 12, "other": 9})
    assert found["base_nll"] == pytest.approx(sum(FIRST[4:]) / 80)
    assert found["other_nll"] == pytest.approx(sum(SECOND[4:]) / 80)
    assert "8 shared rows, of 12 and 9 that the two held out" in found["sentence"]
    assert found["same_base"] is True


def test_several_examples_of_a_row_are_one_draw(keep):
    names = [name for name in NAMES for _ in range(2)]
    one = keep("one", anatomy_of(names), tuned=[half / 2 for half in FIRST for _ in range(2)])
    two = keep("two", anatomy_of(NAMES, tokens=20), tuned=SECOND)
    found = paired(one, two, 0.95)
    assert found["n"] == 12
    assert found["difference"] == pytest.approx((sum(SECOND) - sum(FIRST)) / 240)
    assert found["same_base"] is None


def test_another_tokenizer_is_compared_by_the_byte(keep):
    one = keep("one", anatomy_of(NAMES, tokens=10), base=BASE, tuned=FIRST)
    two = keep("two", anatomy_of(NAMES, tokens=14), base=SECOND, tuned=SECOND)
    found = paired(one, two, 0.95)
    assert (found["unit"], found["same_base"]) == ("nats per byte", False)
    assert found["base_nll"] == pytest.approx(sum(FIRST) / 360)
    assert "nats per byte" in found["sentence"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ((anatomy_of(NAMES, weight=0.5), {"tuned": SECOND}), "weight the tokens of their rows differently"),
        ((anatomy_of(NAMES), {"base": BASE}), "two kept no held-out loss of a trained model"),
        ((anatomy_of(["x", "y"]), {"tuned": [1, 2]}), "no row was held out by both runs"),
    ],
    ids=["weights", "unfinished", "other rows"],
)
def test_what_cannot_be_paired_says_why(keep, other, said):
    one = keep("one", anatomy_of(NAMES), base=BASE, tuned=FIRST)
    found = paired(one, keep("two", other[0], **other[1]), 0.95)
    assert said in found["note"]
    assert "difference" not in found


def test_too_few_rows_say_so(keep):
    one = keep("one", anatomy_of(NAMES[:3]), tuned=FIRST[:3])
    two = keep("two", anatomy_of(NAMES[:3]), tuned=[0.0, 0.0, 0.0])
    found = paired(one, two, 0.95)
    assert found["verdict"] == "no difference"
    assert found["sentence"].startswith("Too few rows were held out by both")


def test_a_run_without_the_files_has_nothing(tmp_path):
    assert recorded(Run(tmp_path), "none") is None
    (tmp_path / "heldout.json").write_text('{"rows": ["a"]}')
    assert recorded(Run(tmp_path), "damaged") is None
