"""`tutelage sweep` as it is typed: refused before anything runs, stopped and continued, told at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tinyruns import demonstrations, process, prove_here, recipe, tutelage, write_recipe, write_rows
from tutelage.history.record import Record

STEPS = 200
LASTING = (None, "base", "tuned")
"""What a line may be of to be the same however often a run was stopped."""


@pytest.fixture
def file(tmp_path: Path, tiny_model: Callable[..., Path]) -> Path:
    rows = write_rows(tmp_path / "rows.jsonl", demonstrations(40))
    quick = {"samples": 0, "points": 0, "knowledge": 0, "drift": False}
    values = recipe(tiny_model(), rows, tmp_path / "runs" / "orders", train={"steps": STEPS}, evaluate=quick)
    return write_recipe(tmp_path / "r.yaml", values)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train.learning_rat=1e-3,1e-4"], "did you mean `learning_rate`"),
        (["train.learning_rate=1e-3,fast"], "recipe/bad-value"),
        (["train.learning_rate=1e-3,1e-4", "--halving", "1"], "--halving off"),
        (["train.learning_rate=1e-3"], "nothing is varied"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(file, arguments, said):
    done = tutelage("sweep", file, *arguments)
    assert done.code == 2
    assert said in done.err
    assert not (file.parent / "runs").exists()


def test_a_sweep_that_is_stopped_goes_on_and_names_the_best(file, monkeypatch):
    arguments = ["sweep", str(file), "train.learning_rate=1e-3,1e-6", "--halving", "2", "--json"]
    folder = file.parent / "runs" / "sweep-orders"
    first = folder / "01-learning-rate-1e-3"
    begun = subprocess.Popen(
        [sys.executable, "-m", "tutelage", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 300
    while len(list(Record(first).lines("metrics.jsonl"))) < 3:
        assert time.monotonic() < until, begun.poll()
        assert begun.poll() is None, begun.communicate()
        time.sleep(0.05)
    begun.send_signal(signal.SIGINT)
    out, err = begun.communicate(timeout=300)
    assert begun.returncode == 75, err
    assert out == ""
    assert "the same command goes on" in err
    assert not Record(first).is_held()
    stopped = json.loads((first / "result.json").read_text())
    assert stopped["status"] == "stopped"
    assert 3 <= stopped["steps"] < STEPS // 2
    assert json.loads((folder / "sweep.json").read_text())["status"] == "stopped"

    done = process(*arguments)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told == json.loads((folder / "sweep.json").read_text())
    assert told["sentence"].startswith("learning rate 1e-3 is best: held-out loss")
    best, other = told["settings"]
    assert (best["step"], other["step"], other["status"]) == (STEPS, STEPS // 2, "left behind")
    assert other["against_best"]["difference"] > 0
    assert other["against_best"]["told"]
    assert other["against_best"]["rows"] == len(json.loads((first / "heldout.json").read_text())["rows"])
    # Whatever was broken off, each step was made once.
    assert [line["step"] for line in Record(first).lines("metrics.jsonl")] == list(range(1, STEPS + 1))
    assert json.loads((first / "result.json").read_text())["status"] == "done"
    assert Record(folder / "02-learning-rate-1e-6").last_line("metrics.jsonl")["step"] == STEPS // 2
    assert told["sentence"].split(";")[0].rstrip(".") in (folder / "sweep.html").read_text()
    assert os.listdir(folder / "logs") != []
    # One store of encoded rows serves every run.
    kept = {
        json.loads((folder / name / "run.json").read_text())["begun_with"]["data"]["encoded rows"]
        for name in ("01-learning-rate-1e-3", "02-learning-rate-1e-6")
    }
    assert len(kept) == 1

    # What was stopped twice on its way is the run that it would have been alone.
    alone = file.parent / "runs" / "alone"
    prove_here(monkeypatch)
    assert tutelage("train", file, "train.learning_rate=1e-3", f"output={alone}").code == 0
    for name, keys in (("metrics.jsonl", ("step", "loss", "learning_rate", "grad_norm")), ("heldout.jsonl", ("sums",))):
        mine, theirs = (
            [[line[key] for key in keys] for line in Record(run).lines(name) if line.get("model") in LASTING]
            for run in (first, alone)
        )
        assert mine == theirs
