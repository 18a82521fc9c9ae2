"""F11: what only one of two processes meets; both take the same decision at the same step.

At full counts only; tests/runs/test_many_processes.py has one of each.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from harness import LONG, count, read_lines, unfinished
from injections import broken
from outcomes import outcome
from pair import EVERY, STEPS, Pair, end_of
from test_corruption import flipped

import launching

pytestmark = pytest.mark.skipif(not LONG, reason="of several processes one of each fault is in tests/runs")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Each of the two holds and saves its half."""
    return Pair(tmp_path_factory.mktemp("divided"), "sharded")


def test_only_one_of_two_is_asked_to_stop(pair: Pair) -> None:
    chance = random.Random("F11")
    with outcome("F11", "SIGTERM to one of two processes while they train", "ranks2") as found:
        for run in range(count(1, 30)):
            recipe = pair.recipe(f"asked-{run}")
            with found.trial():
                with launching.train(2, recipe, "--resume") as launched:
                    journal = recipe.with_suffix("") / "metrics.jsonl"
                    launching.wait_for(lambda journal=journal: journal.exists(), 120)
                    time.sleep(chance.random() / 4)
                    launched.send(chance.randrange(2), signal.SIGTERM)
                    codes = launched.wait(60)
                    assert codes in ([75, 75], [0, 0]), launched.said(0) + launched.said(1)
                pair.finished(recipe, 1)


@pytest.mark.parametrize("policy", ["skip", "rollback", "stop"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_only_one_of_two_computes_what_is_not_finite(pair: Pair, value: str, policy: str) -> None:
    """Whichever it is, both leave the same step out: otherwise their weights would go apart, and so would the ends."""
    at, ends = 7, []
    with outcome("F11", f"{value} in the loss of one of two processes: {policy}", "ranks2") as found:
        for rank in (0, 1):
            name = f"{value}-{policy}-{rank}"
            recipe = pair.recipe(name, steps=12, guard={"non_finite": policy})
            told = pair.folder / f"{name}.jsonl"
            breaks = (
                "injections:breaking",
                {"kind": "loss", "at": [at], "told": str(told), "factor": value, "once": True},
            )
            with found.trial(), launching.train(2, recipe, hooks={rank: [breaks]}) as launched:
                codes = launched.wait(120)
                assert at in broken(told)
                if policy == "stop":
                    assert codes == [6, 6], launched.said(0) + launched.said(1)
                    assert f"step {at}: loss" in launched.said(0)
                    continue
                assert codes == [0, 0], launched.said(0) + launched.said(1)
                assert [line["step"] for line in _metrics(recipe) if line["skipped"]] == [at]
                assert "rows.jsonl:" in launched.said(0)
                ends.append(
                    {name: what for name, what in end_of(recipe).items() if name != "metrics"}
                )  # Other rows are named.
        assert policy == "stop" or ends[0] == ends[1]


def test_only_one_of_two_finds_no_room_for_its_slices(divided: Pair) -> None:
    """None of them has a checkpoint of that step then, and those before are whole."""
    chance = random.Random("room")
    with outcome("F11", "a full disk where one of two processes saves its slices", "ranks2") as found:
        for run in range(count(1, 30)):
            recipe, nth = divided.recipe(f"full-{run}"), chance.randrange(1, 1 + STEPS // EVERY)
            hook = ("injections:no_room", {"file": chance.choice(("model", "optimizer")), "nth": nth})
            with found.trial():
                with launching.train(2, recipe, hooks={run % 2: [hook]}) as launched:
                    codes = launched.wait(120)
                    assert codes == [5, 5], launched.said(0) + launched.said(1)
                    assert "error[machine/disk-full]" in launched.said(0)
                folder = recipe.with_suffix("")
                newest = max((path.name for path in (folder / "checkpoints").glob("step-*")), default="step-00000000")
                assert newest == f"step-{(nth - 1) * EVERY:08}"
                assert not unfinished(folder)
                divided.finished(recipe, 1)


def test_a_slice_of_one_of_two_is_damaged(divided: Pair) -> None:
    chance = random.Random("slice")
    with outcome("F11", "one bit of one of the slices of the newest checkpoint", "ranks2") as found:
        for run in range(count(1, 30)):
            recipe = divided.broken_off(f"torn-{run}", STEPS)
            newest = recipe.with_suffix("") / "checkpoints" / f"step-{STEPS:08}"
            name = chance.choice(sorted(path.name for path in newest.glob("*.safetensors")))
            assert "-of-00002." in name
            with found.trial():
                flipped(newest, name, chance.random(), chance.randrange(8))
                said = divided.finished(recipe, 1)
                assert f"{newest.name}.broken-" in said
                assert name in said
                assert f"resume  after step {STEPS - EVERY} of {STEPS}" in said


def test_only_one_of_two_runs_out_of_memory(pair: Pair) -> None:
    """Both make the step again in smaller pieces, also when they were killed and begun again after it."""
    at, killed_after = 7, 22
    with outcome("F11", "memory runs out on one of two processes, then kill -9 of both", "ranks2") as found:
        for rank in (0, 1):
            hooks = {rank: [("injections:out_of_memory", {"at": {str(at): rank}})]}
            whole = pair.recipe(f"small-{rank}")
            with found.trial():
                with launching.train(2, whole, hooks=hooks) as launched:
                    assert launched.wait(120) == [0, 0], launched.said(0) + launched.said(1)
                    assert launched.said(0).count(f"memory ran out in step {at}") == 1
                for made, before in zip(_metrics(whole), _metrics(pair.folder / "unbroken.yaml"), strict=False):
                    assert (made["rows"], made["tokens"]) == (before["rows"], before["tokens"])
                    if made["step"] < 10:
                        assert abs(made["loss"] - before["loss"]) <= 1e-5
            for number in range(count(1, 5)):
                recipe = pair.recipe(f"small-{rank}-{number}")
                with found.trial():
                    end = ("patches:end_after", {"step": killed_after + number})
                    with launching.train(2, recipe, hooks={n: [*hooks.get(n, ()), end] for n in (0, 1)}) as launched:
                        assert launched.wait(120) == [9, 9], launched.said(0) + launched.said(1)
                    with launching.train(2, recipe, "--resume", attempt=1, hooks=hooks) as launched:
                        assert launched.wait(120) == [0, 0], launched.said(0) + launched.said(1)
                        assert "memory ran out" not in launched.said(0)
                    assert end_of(recipe) == end_of(whole)


def _metrics(recipe: Path) -> list[dict[str, float]]:
    return read_lines(recipe.with_suffix("") / "metrics.jsonl")
