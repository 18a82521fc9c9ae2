"""Losses, gradients, weights and states that are not finite, and losses that jump: seen before they do harm."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import pytest
from harness import HERE, LONG, Ended, Job, count, job, state, together
from hypothesis import given, settings
from hypothesis import strategies as st
from injections import breaking, broken, mended, told_lines
from outcomes import Outcome, outcome
from safetensors.torch import load_file, save_file

import tinyruns
from tutelage import commands
from tutelage.checkpoints import Checkpoints, verify
from tutelage.errors import DivergedError, TutelageError
from tutelage.recipe import GuardOptions
from tutelage.train.guard import Guard, RollBack

T = TypeVar("T")
STEPS, EVERY, LIMIT = count(14, 24), 5, 3
KINDS = {
    "NaN in the loss": ("loss", "nan"),
    "infinity in the loss": ("loss", "inf"),
    "NaN in the gradient of one micro-batch": ("gradient", "nan"),
    "overflow in the gradient of one micro-batch": ("gradient", "1e39"),
    "NaN in a parameter": ("parameter", "nan"),
    "infinity in the optimizer's state": ("optimizer", "inf"),
    "NaN in the base weights": ("base", "nan"),
    "every label masked": ("masked", "nan"),
}
PASSING = ("loss", "gradient")
"""Kinds that are gone after their step."""
POLICIES = ("skip", "stop", "rollback")
AT = (2, 6, 11, 17, 23)
FAST = [
    ("NaN in the loss", 7, "rollback"),
    ("NaN in the gradient of one micro-batch", 8, "skip"),
    ("infinity in the optimizer's state", 11, "rollback"),
    ("NaN in a parameter", 7, "stop"),
    ("every label masked", 9, "skip"),
]
TRIALS = list(product(KINDS, AT, POLICIES)) if LONG else FAST


def short(guard: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """R60 cut short, with every checkpoint kept."""
    return {
        "train": {"epochs": None, "steps": STEPS, "token_budget": 32},
        "evaluate": {"points": 0, "samples": 0},
        "checkpoint": {"every": EVERY, "keep": 1000},
        "guard": guard,
        **sections,
    }


def hooks(folder: Path, kind: str, at: list[int], factor: str = "nan", once: bool = False) -> list[Any]:
    told = {"kind": kind, "at": at, "told": str(folder / "told.jsonl"), "factor": factor, "once": once}
    return [("injections:breaking", told)]


def ended(r60: Job, folder: Path, broken: list[Any], **sections: Any) -> Ended:
    """How a run ended: in a process of its own in the long suite, otherwise in this one, which is warm."""
    if LONG:
        return r60.begin(folder, [*HERE, *broken], **sections).wait()
    said: list[str] = []
    code, began = 0, time.monotonic()
    with pytest.MonkeyPatch.context() as patch, mended():
        tinyruns.prove_here(patch)
        for _, options in broken:
            breaking(**options)
        try:
            commands.train(r60.write(folder, **sections), screen=tinyruns.Listening(said), resume=True)
        except TutelageError as error:
            said.append(str(error))
            code = error.exit_code
    return Ended(code, "", "\n".join(said), time.monotonic() - began)


def lines(folder: Path) -> list[dict[str, Any]]:
    """Of the metrics, strictly read: a NaN written as such is no JSON."""
    text = (folder / "run" / "metrics.jsonl").read_text("utf-8")

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} was written")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def checkpoints(folder: Path) -> list[Any]:
    """Every one, verified, with nothing in it that is not finite; the newest first."""
    found = Checkpoints(folder / "run" / "checkpoints").all()
    for one in found:
        verify(one)
        for name in ("model.safetensors", "optimizer.safetensors"):
            for tensor in load_file(one.folder / name).values():
                assert tensor.isfinite().all(), f"{one.folder}/{name}"
    return found


def passed_over(folder: Path) -> list[int]:
    return json.loads((checkpoints(folder)[0].folder / "state.json").read_text())["guard"]["passed_over"]


def each(trials: Sequence[T], act: Callable[[T], None]) -> None:
    """Two at a time where they are processes, one after the other in this one."""
    if LONG:
        together([partial(act, trial) for trial in trials])
    else:
        for trial in trials:
            act(trial)


@pytest.mark.parametrize("variant", ["lora"])
def test_what_is_not_finite_is_seen_on_its_step_and_answered_as_asked(tmp_path, variant):
    r60 = job(variant)
    with outcome("F18", "NaN and Inf of 8 kinds at 5 steps, policies skip, stop, rollback", variant) as found:
        each(TRIALS, lambda trial: _not_finite(r60, tmp_path, found, *trial))


def _not_finite(r60: Job, root: Path, found: Outcome, name: str, at: int, policy: str) -> None:
    folder, (kind, factor) = root / f"{name}-{at}-{policy}", KINDS[name]
    folder.mkdir()
    with found.trial():
        end = ended(r60, folder, hooks(folder, kind, [at], factor), **short({"non_finite": policy, "limit": LIMIT}))
        assert at in broken(folder / "told.jsonl"), f"{folder}: nothing was broken\n{end.said}"
        checkpoints(folder)
        if kind == "masked":
            _contributes_nothing(folder, end, at)
        elif kind in PASSING:
            {"skip": _skipped, "stop": _stopped, "rollback": _went_back}[policy](folder, end, at)
        else:
            _never_saved(r60, folder, end, at, policy)


def _skipped(folder: Path, end: Ended, at: int) -> None:
    assert end.code == 0, end.said
    seen = {line["step"]: line for line in lines(folder)}
    assert [step for step, line in seen.items() if line["skipped"]] == [at]
    assert None in (seen[at]["loss"], seen[at]["grad_norm"])
    around = {line["step"]: line for line in told_lines(folder / "told.jsonl") if "step" in line}
    assert around[at]["before"] == around[at]["after"], "the step changed the weights"
    if at < STEPS:
        assert around[at + 1]["before"] == around[at]["after"]
        assert around[at + 1]["before"] != around[at + 1]["after"], "the step after it was not made"


def _stopped(folder: Path, end: Ended, at: int) -> None:
    assert end.code == 6, end.said
    assert "error[train/diverged]" in end.err
    assert f"step {at}: loss" in end.err
    assert "rows.jsonl:" in end.err
    last = (at - 1) // EVERY * EVERY
    assert [line["step"] for line in lines(folder)][: at - 1] == list(range(1, at))
    if last:
        assert f"step-{last:08} holds step {last}" in end.err
    assert max((one.step for one in checkpoints(folder)), default=0) == last
    result = json.loads((folder / "run" / "result.json").read_text())
    assert result["status"] == "diverged"


def _went_back(folder: Path, end: Ended, at: int) -> None:
    assert end.code == 0, end.said
    assert passed_over(folder) == [at]
    seen = lines(folder)
    assert [line["step"] for line in seen] == list(range(1, STEPS + 1))
    assert [(line["step"], line["tokens"], line["loss"]) for line in seen if line["skipped"]] == [(at, 0, None)]
    assert f"back to step {(at - 1) // EVERY * EVERY}, and its rows are passed over" in end.err


def _contributes_nothing(folder: Path, end: Ended, at: int) -> None:
    assert end.code == 0, end.said
    seen = {line["step"]: line for line in lines(folder)}
    assert seen[at]["loss"] == 0
    assert seen[at]["grad_norm"] == 0


def _never_saved(r60: Job, folder: Path, end: Ended, at: int, policy: str) -> None:
    """What broke stays in memory, so no later step mends it: the run ends, or goes back to what it wrote before."""
    last = (at - 1) // EVERY * EVERY
    if policy == "rollback" and "base" not in folder.name:
        assert end.code == 0, end.said
        assert f"back to step {last}" in end.err
        assert [line["step"] for line in lines(folder)] == list(range(1, STEPS + 1))
        assert sum(line["skipped"] for line in lines(folder)) <= 1
        return
    assert end.code == 6, end.said
    over = STEPS - at + 1 < LIMIT  # The run is, before it has skipped too many.
    if over and policy == "skip" and "base" in folder.name:
        assert "gives logits that are not finite" in end.err
        assert not (folder / "run" / "model").exists()
        return
    assert not last or f"step-{last:08} holds step {last}" in end.err
    assert max((one.step for one in checkpoints(folder)), default=0) <= at
    # A process that reads everything again goes on where nothing was broken.
    end = ended(r60, folder, [], **short({"non_finite": policy, "limit": LIMIT}))
    assert end.code == 0, end.said
    assert [line["step"] for line in lines(folder)] == list(range(1, STEPS + 1))


def test_a_model_that_is_not_finite_is_refused_before_anything_is_trained(tmp_path):
    r60 = job("lora")
    with outcome("F18", "NaN in the model's own files", "lora") as found, found.trial():
        model = tmp_path / "model"
        shutil.copytree(r60.root / "lora", model)
        weights = load_file(model / "model.safetensors")
        weights[min(weights)].view(-1)[3] = math.nan
        save_file(weights, model / "model.safetensors", {"format": "pt"})
        end = ended(r60, tmp_path, [], **short({}, model={"path": str(model)}))
        assert end.code == 4, end.said
        assert min(weights) in end.err
        assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_too_many_unsound_steps_in_a_row_end_the_run(tmp_path):
    r60 = job("lora")
    with outcome("F18", "as many unsound steps in a row as `guard.limit`", "lora") as found, found.trial():
        broke = hooks(tmp_path, "loss", [6, 7, 9, 10, 11], "inf")
        end = ended(r60, tmp_path, broke, **short({"non_finite": "skip", "limit": LIMIT}))
        assert end.code == 6, end.said
        assert "3 steps in a row" in end.err
        assert "step 11: loss inf" in end.err
        assert [line["step"] for line in lines(tmp_path) if line["skipped"]] == [6, 7, 9, 10]
        assert [(one.step, one.healthy) for one in checkpoints(tmp_path)] == [(10, False), (5, True)]


def test_as_many_returns_as_the_limit_end_the_run(tmp_path):
    r60 = job("lora")
    with outcome("F18", "as many returns as `guard.limit`", "lora") as found, found.trial():
        end = ended(r60, tmp_path, hooks(tmp_path, "loss", [3, 7, 9], "nan"), **short(_rolling(limit=2)))
        assert end.code == 6, end.said
        assert "after 2 steps that were passed over, step 9" in end.err
        assert checkpoints(tmp_path)[0].step == 5


def _rolling(limit: int = 10) -> dict[str, Any]:
    return {"non_finite": "rollback", "spikes": "rollback", "limit": limit}


def test_a_run_that_went_back_and_was_killed_ends_as_one_that_was_not(tmp_path):
    """Where it is killed differs: before the first save after the return, and after it."""
    r60 = job("lora")
    unbroken, at = tmp_path / "unbroken", 8
    with outcome("F18", "a return, then kill -9, then --resume", "lora") as found:
        unbroken.mkdir()
        end = r60.begin(unbroken, [*HERE, *hooks(unbroken, "loss", [at], "nan")], **short(_rolling())).wait()
        _went_back(unbroken, end, at)

        def trial(after: int) -> None:
            folder = tmp_path / f"killed-{after}"
            folder.mkdir()
            broke = [*HERE, *hooks(folder, "loss", [at], "nan")]
            with found.trial():
                process = r60.begin(folder, [*broke, ("injections:dying", {"after": after})], **short(_rolling()))
                assert process.wait().code == -signal.SIGKILL
                end = r60.resume(folder, broke, **short(_rolling())).wait()
                assert end.code == 0, end.said
                assert state(folder / "run") == state(unbroken / "run")

        together([partial(trial, after) for after in ([6, 8, 9, 10, 11] if LONG else [9])])


SPIKES = list(product((10.0, 100.0), (1, 3, 25), ("skip", "stop", "rollback"))) if LONG else [(10.0, 1, "rollback")]


@pytest.mark.parametrize(("factor", "length", "policy"), SPIKES)
def test_a_loss_that_jumps_is_answered_as_asked(tmp_path, factor, length, policy):
    r60 = job("lora")
    first, steps = 22, 22 + length + 4
    with outcome("F19", f"loss times {factor:g} for {length} steps, spikes: {policy}", "lora") as found, found.trial():
        broke = hooks(tmp_path, "loss", list(range(first, first + length)), str(factor))
        sections = short({"spikes": policy, "limit": 40})
        sections["train"] = {**sections["train"], "steps": steps}
        end = ended(r60, tmp_path, broke, **sections)
        if policy == "stop":
            _stopped(tmp_path, end, first)
            return
        assert end.code == 0, end.said
        assert [line["step"] for line in lines(tmp_path)] == list(range(1, steps + 1))
        assert [line["step"] for line in lines(tmp_path) if line["skipped"]] == list(range(first, first + length))
        kept = json.loads((checkpoints(tmp_path)[0].folder / "state.json").read_text())["guard"]
        made = [line["loss"] for line in lines(tmp_path) if not line["skipped"]]
        assert kept["losses"] == made[-50:]
        assert kept["passed_over"] == (list(range(first, first + length)) if policy == "rollback" else [])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0.5, 2.0), min_size=16, max_size=80),
    st.lists(st.sampled_from([math.nan, math.inf, 1e4, 1e30]), max_size=300),
)
def test_after_any_number_of_rejected_losses_the_next_usual_one_is_accepted(usual, rejected):
    guard = Guard(GuardOptions(non_finite="skip", spikes="skip", limit=10**6))
    for step, loss in enumerate(usual, start=1):
        guard.judge(step, loss, 1.0, "", made=True)
    ceiling = guard.ceiling
    for loss in rejected:
        assert not loss <= ceiling
        guard.judge(0, loss, 1.0, "", made=False)
    assert guard.ceiling == ceiling
    assert sorted(usual)[len(usual) // 2] <= ceiling
    restored = Guard(guard.options)
    restored.load_state(json.loads(json.dumps(guard.state())))
    assert (restored.ceiling, restored.skipped) == (ceiling, len(rejected))


def test_only_the_last_sound_losses_decide_what_a_jump_is():
    guard = Guard(GuardOptions(spikes="rollback", limit=1))
    assert guard.ceiling == math.inf
    for step in range(16):
        guard.judge(step, 2.0 + step % 2 * 0.01, 1.0, "", made=True)
    assert guard.ceiling == pytest.approx(2.005 * 1.5)
    with pytest.raises(RollBack):
        guard.judge(17, 4.0, 1.0, "", made=False)
    guard.passed_over.append(17)
    with pytest.raises(DivergedError):
        guard.judge(18, 4.0, 1.0, "", made=False)
