"""A run by several processes is the run of one: the same rows, the same numbers, and nothing lost when one is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import launching
import tinyruns
from tutelage import commands

LORA = {"kind": "lora", "rank": 4, "dropout": 0.1}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-five rows: the last step of an epoch is a smaller one."""
    return tinyruns.write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", tinyruns.demonstrations(45))


@pytest.fixture
def make(tmp_path: Path, tiny_model: Callable[..., Path], rows: Path) -> Callable[..., Path]:
    """`make("name", steps=7)` writes a recipe; its path, beside which its run folder will be."""

    def write(
        name: str, *, adapter: dict[str, Any] | None = None, parallel: str = "replicated", **options: Any
    ) -> Path:
        values = tinyruns.recipe(
            tiny_model("llama"),
            rows,
            tmp_path / name,
            model={"adapter": adapter or {"kind": "full"}},
            train={"global_batch_size": 8, "parallel": parallel, "steps": options.pop("steps", 7)},
            checkpoint={"every": 2, "keep": 9, **options},
        )
        return tinyruns.write_recipe(tmp_path / f"{name}.yaml", values)

    return write


def _lines(recipe: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    path = recipe.with_suffix("") / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _weights(recipe: Path) -> dict[str, torch.Tensor]:
    (path,) = (recipe.with_suffix("") / "model").glob("*.safetensors")
    return load_file(path)


def _agree(one: Path, other: Path) -> None:
    """Rows and counts exactly; losses, norms and held-out losses to 1e-6."""
    pairs = list(zip(_lines(one), _lines(other), strict=True))
    for a, b in pairs:
        exact = ("step", "rows", "tokens", "supervised_tokens", "learning_rate", "skipped")
        assert [a[name] for name in exact] == [b[name] for name in exact]
        assert abs(a["loss"] - b["loss"]) <= 1e-6
        assert abs(a["grad_norm"] - b["grad_norm"]) <= 1e-6 * a["grad_norm"]
    assert pairs[0][0]["loss"] - pairs[-1][0]["loss"] > 0.05  # So that nothing learned would show.
    for a, b in zip(_lines(one, "evaluations.jsonl"), _lines(other, "evaluations.jsonl"), strict=True):
        assert (a["model"], a["tokens"]) == (b["model"], b["tokens"])
        assert abs(a["nll"] - b["nll"]) <= 1e-6


def _run(world: int, recipe: Path, *options: str, attempt: int = 0) -> list[str]:
    with launching.train(world, recipe, *options, attempt=attempt) as launched:
        codes = launched.wait(240)
        said = [launched.said(rank) for rank in range(world)]
    assert codes == [0] * world, "\n".join(said)
    return said


def _break_off(recipe: Path, step: int) -> None:
    """The run folder as a run leaves it that ended after the checkpoint of a step."""
    folder = recipe.with_suffix("")
    for path in (folder / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    shutil.rmtree(folder / "model")
    for name in ("result.json", "report.html"):
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("adapter", "others"), [(None, [(2, "sharded"), (4, "replicated")]), (LORA, [(2, "replicated")])]
)
def test_the_number_of_processes_changes_nothing(
    make: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    adapter: dict[str, Any] | None,
    others: list[tuple[int, str]],
) -> None:
    one = make("one", adapter=adapter)
    with monkeypatch.context() as here:
        tinyruns.prove_here(here)
        commands.train(one)
    for world, parallel in others:
        other = make(f"{parallel}-{world}", adapter=adapter, parallel=parallel)
        said = _run(world, other)
        assert f"{world} processes, {parallel}" in said[0]
        assert all(text.strip() == "" for text in said[1:])
        _agree(one, other)
        result = json.loads((other.with_suffix("") / "result.json").read_text())
        assert result["status"] == "done"
        assert result["steps"] == 7
        files = {path.name for path in (other.with_suffix("") / "checkpoints" / "step-00000007").iterdir()}
        assert ("model.safetensors" in files) == (parallel == "replicated")
        assert all(path.endswith((".safetensors", ".json")) for path in files)


def test_a_divided_run_goes_on_by_itself_and_divided_again(make: Callable[..., Path], tmp_path: Path) -> None:
    """2 -> 1 -> 2 processes, each from the checkpoint of the one before."""
    unbroken, moved = make("unbroken", parallel="sharded"), make("moved", parallel="sharded")
    _run(2, unbroken)
    shutil.copytree(unbroken.with_suffix(""), moved.with_suffix(""))
    _break_off(moved, 2)
    outcome = tinyruns.process("train", moved, "--resume", OMP_NUM_THREADS="1")
    assert outcome.code == 0, outcome.err
    assert "resume  after step 2 of 7" in outcome.err
    assert "processes: 2 before, 1 now" in outcome.err
    _break_off(moved, 4)
    assert "resume  after step 4 of 7" in _run(2, moved, "--resume")[0]
    _agree(unbroken, moved)
    # A finished run is not given as if it were of other rows.
    other = tinyruns.write_rows(tmp_path / "other.jsonl", tinyruns.demonstrations(44))
    with launching.train(2, moved, "--resume", f"data.train=[{{path: {other}}}]") as launched:
        assert launched.wait(60)[0] == 3, launched.said(0)
        assert "error[data/changed]" in launched.said(0)


def test_a_killed_process_is_named_and_the_launcher_loses_nothing(make: Callable[..., Path]) -> None:
    unbroken, broken = make("unbroken", steps=60, every=5), make("broken", steps=60, every=5)
    _run(2, unbroken)
    for attempt, rank in enumerate((1, 0)):
        with launching.train(2, broken, "--resume", attempt=attempt) as launched:
            before = len(_lines(broken))
            launching.wait_for(lambda before=before: len(_lines(broken)) >= before + 12, 120)
            killed = launched.send(rank)
            assert launched.wait_for(1 - rank, 30) == 8, launched.said(1 - rank)
            assert time.monotonic() - killed <= 10
            assert f"error[worker/lost]: rank {rank} is lost" in launched.said(1 - rank)
    # The last start is the real launcher's.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "tutelage", "train", str(broken), "--resume"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kept = ("step", "loss", "grad_norm", "learning_rate", "rows", "tokens")
    assert [[line[name] for name in kept] for line in _lines(broken)] == [
        [line[name] for name in kept] for line in _lines(unbroken)
    ]
    weights = _weights(broken)
    assert all(torch.equal(weights[name], tensor) for name, tensor in _weights(unbroken).items())


def test_what_one_process_alone_computes_wrong_is_left_out_by_all(make: Callable[..., Path], tmp_path: Path) -> None:
    recipe = make("wrong", steps=4)
    breaks = {"kind": "loss", "at": [3], "told": str(tmp_path / "told.jsonl")}
    with launching.train(2, recipe, hooks={1: [("injections:breaking", breaks)]}) as launched:
        assert launched.wait(120) == [0, 0], launched.said(0) + launched.said(1)
        said = launched.said(0)
    assert [line["skipped"] for line in _lines(recipe)] == [False, False, True, False]
    # The process computed some of the batch's rows, and it is they that are named first.
    rows = _lines(recipe)[2]["unsound"]
    assert "rows.jsonl:" in rows.partition("(whose loss is not finite)")[0]
    assert f"note    step 3 skipped: loss nan, gradient nan; its rows are {rows}" in said


def test_a_signal_to_one_process_stops_all_after_the_same_step(make: Callable[..., Path]) -> None:
    recipe = make("stopped", steps=3000, every=1000)
    with launching.train(2, recipe) as launched:
        launching.wait_for(lambda: len(_lines(recipe)) >= 5, 120)
        launched.send(1, signal.SIGTERM)
        assert launched.wait(60) == [75, 75], launched.said(0) + launched.said(1)
        assert "error[run/stopped]" in launched.said(0)
    (saved,) = (path.name for path in (recipe.with_suffix("") / "checkpoints").iterdir())
    assert int(saved.removeprefix("step-")) == _lines(recipe)[-1]["step"]


def test_a_stopped_process_is_named_as_one_that_hangs(make: Callable[..., Path]) -> None:
    recipe = make("hanging", steps=100_000, every=100_000)
    with launching.train(2, recipe) as launched:
        launching.wait_for(lambda: len(_lines(recipe)) >= 20, 120)
        stopped = launched.send(1, signal.SIGSTOP)
        assert launched.wait_for(0, 60) == 8, launched.said(0)
        assert 25 < time.monotonic() - stopped < 45
        said = launched.said(0)
    assert "error[worker/hung]: rank 1 hangs" in said
    assert "it was stopped by a signal" in said
    stacks = (recipe.with_suffix("") / "stacks" / "rank-0.txt").read_text()
    assert "all_reduce" in stacks
    assert "learning.py" in stacks  # The loop waits below it, or between two steps it does itself.
    result = json.loads((recipe.with_suffix("") / "result.json").read_text())
    assert result["status"] == "failed"
    assert "rank 1 hangs" in result["error"]
