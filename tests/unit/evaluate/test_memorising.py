"""Memorising is told from learning: on made-up courses with noise, and on real runs of a tiny model."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tinyruns
from tutelage import commands
from tutelage.evaluate.memorising import memorising
from tutelage.evaluate.passes import Passes

BATCH = 8


def course(seed, *, rows=200, held=40, epochs=3, points=3, learn=1.0, heart=0.0, rise=0.0):
    """A made-up run: all rows fall by `learn` in general; at each further pass training rows fall by `heart` more,
    and held-out rows rise by `rise`."""
    rng = np.random.default_rng(seed)
    per = -(-rows // BATCH)
    weights = rng.integers(3, 60, rows).astype(float)
    level, slope = rng.normal(2, 0.6, rows).clip(0.1), rng.normal(1, 0.3, rows)

    def general(steps):
        return -learn * (1 - np.exp(-steps / (0.3 * per)))

    lines = []
    for epoch in range(epochs):
        order = rng.permutation(rows)
        for start in range(0, rows, BATCH):
            chosen = order[start : start + BATCH]
            nll = level[chosen] + slope[chosen] * (general(len(lines)) - heart * epoch)
            nll = (nll + rng.normal(0, 0.1, len(chosen))).clip(0) * weights[chosen]
            line = {"step": len(lines) + 1, "epoch": epoch + 1, "examples": chosen.tolist(), "nll": nll.tolist()}
            lines.append({**line, "weight": weights[chosen].tolist()})
    total, size = len(lines), rng.integers(3, 60, held).astype(float)
    level, slope = rng.normal(2, 0.6, held), rng.normal(1, 0.3, held)
    measured = []
    for step in [0, *(round(total * k / (points + 1)) for k in range(1, points + 2))]:
        nll = level + slope * (general(step) + rise * max(0.0, step / per - 1)) + rng.normal(0, 0.1, held)
        measured.append((step, nll * size, size))
    return memorising(Passes.read(lines), measured)


def share(runs=60, **kind):
    return sum(course(seed, **kind).verdict for seed in range(runs)) / runs


@pytest.mark.parametrize(
    "kind",
    [
        {"epochs": 1},
        {"epochs": 2},
        {"epochs": 3, "learn": 0.0},
        {"epochs": 6, "learn": 0.0, "rows": 96, "held": 20, "points": 9},
        {"epochs": 5, "rows": 24, "held": 10},
        {"epochs": 3, "heart": 0.1, "rise": -0.1},  # training rows gain more, and held-out rows gain, too
    ],
)
def test_learning_is_not_called_memorising(kind):
    assert share(**kind) <= 0.05


@pytest.mark.parametrize(
    "kind",
    [
        {"epochs": 30, "rows": 24, "held": 10, "heart": 0.06, "rise": 0.05},
        {"epochs": 3, "heart": 0.2, "rise": 0.2},
        {"epochs": 3, "heart": 0.3, "learn": 0.6},  # held-out rows stand still
    ],
)
def test_memorising_is_found(kind):
    assert share(**kind) >= 0.85


def test_the_best_step_and_the_figures_are_named():
    found = course(0, epochs=30, rows=24, held=10, heart=0.06, rise=0.05)
    assert found.best_step == 22  # the first of the measurements after steps 22, 45, 68 and 90
    assert found.learned
    assert [epoch.epoch for epoch in found.epochs] == list(range(1, 31))
    assert found.epochs[-1].gap > found.epochs[1].gap + 1
    assert all(e.gap == pytest.approx(e.heldout_nll - e.train_nll) for e in found.epochs)
    assert "lowest after step 22" in found.sentence
    written = json.loads(json.dumps(found.as_json()))
    assert written["verdict"] is True
    assert {"epoch", "train_nll", "heldout_nll", "gap"} <= written["epochs"][0].keys()


def test_one_pass_memorises_nothing_although_the_loss_rises():
    found = course(0, epochs=1, learn=-1.0)
    assert not found.verdict
    assert found.sentence.startswith("Each row was trained on once")
    assert "has risen by" in found.sentence
    assert found.best_step == 0
    assert not found.learned


def test_what_was_not_measured_is_said():
    lines = [{"step": 1, "epoch": 1, "examples": [1], "nll": [2.0], "weight": [1.0]}]
    assert "no rows are held out" in memorising(Passes.read(lines), []).sentence
    assert "no rows are held out" in memorising(Passes.read(lines), [(0, np.zeros(0), np.zeros(0))]).sentence
    one = (0, np.ones(3), np.ones(3))
    assert "no step was made" in memorising(Passes.read([]), [one]).sentence


def test_a_few_examples_tell_nothing():
    found = course(0, epochs=10, rows=24, held=3, heart=0.1, rise=0.1)
    assert not found.verdict
    assert found.sentence.startswith("Too few examples")


def test_examples_of_one_row_are_one_draw():
    lines = [
        {"step": 1 + e * 4 + k, "epoch": e + 1, "examples": [k], "nll": [[3.0, 1.0][e]], "weight": [1.0]}
        for e in range(2)
        for k in range(4)
    ] * 1
    held = [(step, np.full(12, 2.0 + step / 8) + np.arange(12) / 50, np.ones(12)) for step in (0, 4, 8)]
    apart, together = (memorising(Passes.read(lines), held, rows=rows) for rows in (None, np.arange(12) // 4))
    assert apart.risen[0] == pytest.approx(together.risen[0]) == 1.0


def run(folder, model, *, rows, epochs, rate):
    data = tinyruns.write_rows(folder / "rows.jsonl", rows)
    apart = tinyruns.write_rows(folder / "apart.jsonl", tinyruns.demonstrations(500)[-12:])
    values = tinyruns.recipe(
        model,
        data,
        folder / "run",
        data={"heldout": {"path": str(apart)}},
        train={"steps": None, "epochs": epochs, "learning_rate": rate},
        evaluate={"points": 5, "drift": False, "knowledge": 0},
    )
    commands.train(tinyruns.write_recipe(folder / "recipe.yaml", values))
    prepared, _ = commands.preview({**values, "output": str(folder / "other")})
    weights = np.array([float(example.weights.sum()) for example in prepared.heldout])
    lines = [json.loads(line) for line in (folder / "run" / "heldout.jsonl").read_text().splitlines()]
    passes = Passes.read(json.loads(line) for line in (folder / "run" / "examples.jsonl").read_text().splitlines())
    return memorising(passes, [(line["step"], np.array(line["sums"]), weights) for line in lines])


def test_twenty_rows_thirty_times_are_memorised(workdir, tiny_model):
    """Their answers follow no rule, so that nothing of them helps elsewhere but the form."""
    rng = np.random.default_rng(0)
    rows = tinyruns.demonstrations(20)
    for row in rows:
        row["output"] = f"It is {' '.join(rng.choice(tinyruns.COLOURS, 3))}."
    found = run(workdir, tiny_model("llama"), rows=rows, epochs=30, rate=3e-3)
    assert found.verdict, found.sentence
    assert 0 < found.best_step < 150
    assert found.epochs[-1].train_nll < 0.6
    assert found.epochs[-1].gap > 0.3 > found.epochs[3].gap
    assert found.learned


def test_one_healthy_pass_is_not(workdir, tiny_model):
    found = run(workdir, tiny_model("llama"), rows=tinyruns.demonstrations(160), epochs=1, rate=2e-3)
    assert not found.verdict
    assert found.learned
