"""F29: each protection taken away; the check that is there for it must fail, and passes with the protection."""

from __future__ import annotations

import contextlib
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import mutants
import pytest
import test_corruption as corruption
import test_power_loss as power
import test_retention as retention
from harness import HERE, job
from outcomes import outcome
from savings import Small

from tutelage.errors import MachineError
from tutelage.runs import Run
from tutelage.train.state import Position

Check = Callable[[Path], None]


def power_goes(folder: Path) -> None:
    """F3."""
    (root := folder / "run").mkdir()
    power.lose_power(folder, power.recorded(root, keep=1), str(root), 120)


def order_holds(folder: Path) -> None:
    """F4."""
    (root := folder / "run").mkdir()
    try:
        power.order([operation.named(root) for operation in power.recorded(root, keep=1)])
    except KeyError as missing:
        raise AssertionError(f"no {missing} among the operations") from missing


def damage_is_found(kind: str, name: str) -> Check:
    """F5, for one kind."""

    def check(folder: Path) -> None:
        Small(folder / "run", keep=2).go(4, 2)
        checkpoints = folder / "run" / "checkpoints"
        for step, known in ((2, corruption.BEFORE), (4, corruption.NEWEST)):
            path = checkpoints / f"step-{step:08}"
            manifest = json.loads((path / "manifest.json").read_text("utf-8")) | {"step": int(known[5:])}
            manifest.pop("sha256")
            manifest["sha256"] = corruption._digest(manifest)
            (path / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
            path.rename(checkpoints / known)
        every = corruption.damages(random.Random(1), 40)
        [made, *_] = [made for made in every if made[:2] == (kind, name)]
        corruption.seen(checkpoints, made, "0123456789abcdef")

    return check


def what_is_kept(folder: Path) -> None:
    """F24, for saves that tell each rule from the others."""
    retention.live([(1.0, True, None), (2.0, False, None), (3.0, False, None), (None, False, None)], 2)


def the_lock_holds(folder: Path) -> None:
    """F21."""
    with Run(folder).locked(), contextlib.suppress(MachineError), Run(folder).locked():
        raise AssertionError("a second one got the lock")


def only_finite_is_saved(folder: Path) -> None:
    """F18."""
    small = Small(folder / "run")
    small.parameters["bias"].data.fill_(math.nan)
    with contextlib.suppress(Exception):  # Whether it is an error or a note is not the question here.
        small.saver.save(Position(1), {"healthy": True})
        small.saver.finish()
    assert not small.run.checkpoints.paths(), "values that are not finite were saved"


IN_THIS_PROCESS: dict[str, Check] = {
    "files_are_not_synced": power_goes,
    "folders_are_not_synced": power_goes,
    "the_manifest_comes_after_the_name": order_holds,
    "nothing_is_verified": damage_is_found("cut to 0.5", "model.safetensors"),
    "hashes_are_not_compared": damage_is_found("one bit", "model.safetensors"),
    "the_manifest_is_believed": damage_is_found("manifest with facts = {}", "manifest.json"),
    "only_the_newest_are_kept": what_is_kept,
    "one_too_few_is_kept": what_is_kept,
    "what_is_removed_keeps_its_name": what_is_kept,
    "anybody_gets_the_lock": the_lock_holds,
    "anything_is_finite": only_finite_is_saved,
}
IN_A_RUN = (
    *("journals_are_not_cut_back", "the_guard_forgets", "the_step_is_not_restored", "the_data_begin_again"),
    *("the_weights_are_not_restored", "the_optimizer_is_not_restored", "dropout_is_drawn_by_the_process"),
    *("the_plan_is_made_again", "leftovers_stay"),
)


@pytest.fixture(scope="module", autouse=True)
def counted() -> Iterator[list[str]]:
    """One line of the matrix for all."""
    caught: list[str] = []
    with outcome("F29", "each protection taken away: the check for it fails") as found:
        yield caught
        found.trials, found.passed = len(IN_THIS_PROCESS) + len(IN_A_RUN), len(caught)
        found.note = "; ".join(name.replace("_", " ") for name in caught)


def test_every_mutant_is_tried():
    named = {name for name, value in vars(mutants).items() if getattr(value, "__module__", "") == "mutants"}
    assert named - {"be"} == {*IN_THIS_PROCESS, *IN_A_RUN}


@pytest.mark.parametrize("name", IN_THIS_PROCESS)
def test_caught_by_a_check(name, tmp_path, monkeypatch, counted):
    check = IN_THIS_PROCESS[name]
    (tmp_path / "as it is").mkdir()
    check(tmp_path / "as it is")
    (tmp_path / "mutant").mkdir()
    with monkeypatch.context() as patched:
        getattr(mutants, name)(patched.setattr)
        with pytest.raises(AssertionError):
            check(tmp_path / "mutant")
    counted.append(name)


@pytest.mark.parametrize("name", IN_A_RUN)
def test_caught_by_a_run_that_goes_on(name, tmp_path, counted):
    r60 = job("lora")
    r60.broken_off(tmp_path, 53)
    if name == "leftovers_stay":
        (tmp_path / "run" / "checkpoints" / ".step-00000055-0123abcd.part").mkdir()
    end = r60.begin(tmp_path, [*HERE, ("mutants:be", {"name": name})]).wait()
    assert end.code == 0, end.said[-2000:]  # Nothing but the comparison sees it.
    with pytest.raises(AssertionError):
        r60.same(tmp_path)
    counted.append(name)
