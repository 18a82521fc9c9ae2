"""Pain 26: every run says whether the model is better, and what it lost elsewhere, with figures from both ends."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tinyruns
from tinyruns import COLOURS
from tutelage import commands
from tutelage.runs import Run

Train = Callable[..., dict[str, Any]]
WORDS = [*COLOURS, "pink", "teal", "lime", "navy", "gold", "plum", "rust", "sand"]


@pytest.fixture
def train(workdir: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Trains on rows and measures on others."""
    tinyruns.prove_here(monkeypatch)

    def run(rows: list[dict[str, str]], heldout: list[dict[str, str]], **sections: Any) -> dict[str, Any]:
        data = tinyruns.write_rows(workdir / "rows.jsonl", rows)
        kept = tinyruns.write_rows(workdir / "kept.jsonl", heldout)
        whole = {"data": {"heldout": {"path": str(kept)}}, "checkpoint": {"every": 1000, "keep": 1}, **sections}
        return commands.train(tinyruns.recipe(tiny_model("llama"), data, workdir / "run", **whole))

    return run


def rows(first: int, count: int, answer: Callable[[int], str]) -> list[dict[str, str]]:
    return [{"instruction": f"Tell of {n}.", "input": "", "output": answer(n)} for n in range(first, first + count)]


def test_twenty_rows_thirty_times_are_memorised(train: Train, workdir: Path) -> None:
    drawn = random.Random(0)
    said = {n: " ".join(drawn.choices(WORDS, k=3)) for n in range(200)}
    result = train(
        rows(0, 20, said.__getitem__),
        rows(100, 40, said.__getitem__),
        train={"epochs": 30, "steps": None, "learning_rate": 2e-2},
        evaluate={"points": 14, "samples": 10},
    )
    assert result["verdict"]["word"] == "memorising", result["verdict"]
    best = result["best"]
    assert best["exported"]
    assert 0 < best["step"] < 150
    assert f"step {best['step']:,}" in result["verdict"]["sentence"].lower()
    assert result["memorising"]["epochs"][-1]["train_nll"] < result["memorising"]["epochs"][0]["train_nll"]
    measured = {one["step"]: one["nll"] for one in result["frontier"]}
    assert result["heldout"]["tuned_nll"] == pytest.approx(measured[best["step"]], abs=1e-9)
    samples = list(Run(workdir / "run").read_lines("samples.jsonl"))
    assert [sum(one["model"] == model for one in samples) for model in ("base", "tuned")] == [10, 10]


def test_answers_that_follow_from_nothing_do_not_make_it_better(train: Train) -> None:
    """A model that knows which answers there are, trained on answers that were shuffled among the prompts."""
    drawn = random.Random(1)

    def some(first: int) -> list[dict[str, str]]:
        return rows(first, 48, lambda n: drawn.choice(WORDS[:4]))

    options = {"steps": 300, "learning_rate": 1e-2, "global_batch_size": 16}
    first = train(some(0), some(100), train=options, evaluate={"points": 19})  # Its best step is exported.
    assert first["heldout"]["verdict"] == "better"
    sections = {"model": {"path": str(Path("run/model").resolve())}, "output": str(Path("noise").resolve())}
    result = train(some(200), some(300), train={"steps": 40, "learning_rate": 1e-3}, **sections)
    assert result["verdict"]["word"] in ("worse", "no difference", "memorising"), result["verdict"]


def test_what_it_lost_elsewhere_is_said(train: Train) -> None:
    result = train(rows(0, 24, str), rows(100, 24, str), train={"steps": 30, "learning_rate": 3e-2})
    drift = result["drift"]
    assert drift["tokens"] > 1000
    assert drift["kl"] > 0
    low, high = drift["interval"]
    assert low <= drift["difference"] <= high
    assert drift["tuned_nll"] - drift["base_nll"] == pytest.approx(drift["difference"])
    by_step = {one["step"]: one for one in result["frontier"]}
    assert by_step[0]["kl"] == 0
    assert by_step[30]["kl"] == pytest.approx(drift["kl"])


def test_every_run_has_figures_of_both_ends(learned_run: Path) -> None:
    result = Run(learned_run).read_json("result.json")
    for part in ("heldout", "drift"):
        assert {"base_nll", "tuned_nll", "interval", "sentence", "tokens"} <= result[part].keys(), part
    assert result["health"]["base"]["n"] == result["health"]["tuned"]["n"] > 0
    assert 0 <= result["health"]["tuned"]["stop_probability"] <= 1
    assert result["heldout"]["sentence"] in result["verdict"]["sentence"]
