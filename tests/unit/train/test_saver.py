"""Checkpoints are saved while training goes on; what goes wrong in the thread is raised where the run asks."""

from __future__ import annotations

import errno
import os
import threading

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tutelage import files
from tutelage.checkpoints import Checkpoints, verify
from tutelage.errors import MachineError
from tutelage.recipe import TrainOptions
from tutelage.train.optimizer import build_optimizer
from tutelage.train.saver import Saver
from tutelage.train.state import MODEL, Position

SOUND = {"healthy": True, "heldout_nll": None}


@pytest.fixture
def make(tmp_path):
    """`make(keep=..., wait=...)` is a saver of two parameters, and the lines that it said."""

    def make(*, keep=2, wait=0, **more):
        said: list[str] = []
        parameters = {"a": nn.Parameter(torch.ones(4, 4)), "b": nn.Parameter(torch.ones(3))}
        optimizer = build_optimizer(parameters, TrainOptions())
        options = {"keep": keep, "wait_seconds": wait, "say": said.append, **more}
        return Saver(Checkpoints(tmp_path / "checkpoints"), "run", parameters, optimizer, **options), said

    return make


def steps(saver) -> list[int]:
    return [checkpoint.step for checkpoint in saver.checkpoints.all()]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_save_is_committed_and_known(make):
    saver, said = make()
    assert saver.where() == ""
    saver.save(Position(5), SOUND)
    saver.finish()
    assert (steps(saver), saver.last.step, said) == ([5], 5, [])
    assert saver.where() == f"; {saver.last.folder} holds step 5, and --resume goes on there"
    verify(saver.last)
    assert saver.last == saver.checkpoints.newest("run", lambda *_: None)


def test_training_goes_on_while_it_is_saved_and_does_not_reach_what_is(make, monkeypatch):
    saver, _ = make()
    may_go_on, entered = threading.Event(), threading.Event()
    seal = files.sha256

    def slow(path):
        entered.set()
        assert may_go_on.wait(30)
        return seal(path)

    monkeypatch.setattr(files, "sha256", slow)
    saver.save(Position(5), SOUND)
    assert entered.wait(30)
    assert steps(saver) == []  # It is not there, and this thread goes on.
    saver.check()
    with torch.no_grad():
        saver.parameters["a"].fill_(7.0)
    may_go_on.set()
    saver.finish()
    assert torch.equal(load_file(saver.last.folder / MODEL)["a"], torch.ones(4, 4))


def test_the_next_save_waits_for_the_one_before(make, monkeypatch):
    saver, _ = make(keep=5)
    at_once, most = 0, 0
    commit = saver.checkpoints.commit

    def counted(*given, **named):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        made = commit(*given, **named)
        at_once -= 1
        return made

    monkeypatch.setattr(saver.checkpoints, "commit", counted)
    for step in range(1, 6):
        saver.save(Position(step), SOUND)
    saver.finish()
    assert (steps(saver), most) == ([5, 4, 3, 2, 1], 1)


def test_only_what_the_rule_keeps_stays(make):
    saver, _ = make(keep=2)
    for step in range(1, 6):
        saver.save(Position(step), {"healthy": step < 2, "heldout_nll": 1.0 if step == 3 else None})
    saver.finish()
    assert steps(saver) == [5, 4, 3, 1]


def test_the_journals_are_on_disk_before_the_checkpoint_is_there(make):
    seen = []
    saver, _ = make(before_commit=lambda: seen.append(steps(saver)))
    saver.save(Position(1), SOUND)
    saver.save(Position(2), SOUND)
    saver.finish()
    assert seen == [[], [1]]


def test_an_error_in_the_thread_is_raised_where_the_run_asks(make, monkeypatch):
    saver, _ = make()
    saver.save(Position(1), SOUND)
    saver.finish()
    monkeypatch.setattr(files, "sync", full)
    saver.save(Position(2), SOUND)
    saver._thread.join()
    with pytest.raises(MachineError) as caught:
        saver.check()
    assert caught.value.code == "machine/disk-full"
    monkeypatch.undo()
    saver.check()  # It is raised once.
    assert (steps(saver), saver.last.step) == ([1], 1)
    assert [path.name for path in saver.checkpoints.folder.iterdir()] == ["step-00000001"]
    saver.save(Position(3), SOUND)
    saver.finish()
    assert steps(saver) == [3, 1]


def test_the_next_save_and_the_end_raise_it_as_well(make, monkeypatch):
    for ask in (lambda saver: saver.save(Position(3), SOUND), lambda saver: saver.finish()):
        saver, _ = make()
        monkeypatch.setattr(files, "sync", full)
        saver.save(Position(2), SOUND)
        with pytest.raises(MachineError):
            ask(saver)
        monkeypatch.undo()
        assert steps(saver) == []


def test_an_error_that_is_not_the_disks_is_not_hidden(make, monkeypatch):
    saver, _ = make()
    monkeypatch.setattr(files, "sync", lambda path: 1 / 0)
    saver.save(Position(2), SOUND)
    with pytest.raises(ZeroDivisionError):
        saver.finish()


def test_what_is_not_finite_is_named_and_not_saved(make):
    saver, said = make()
    assert saver.save(Position(1), SOUND) is None
    saver.finish()
    with torch.no_grad():
        saver.parameters["b"][1] = float("nan")
    assert saver.save(Position(2), SOUND) == "b"
    saver.finish()
    assert (steps(saver), saver.last.step, said) == ([1], 1, [])
    assert [path.name for path in saver.checkpoints.folder.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("words", [True, False], ids=["its library's words", "the system's number"])
@pytest.mark.parametrize("where", ["writing", "committing"])
def test_a_full_disk_is_waited_for(make, monkeypatch, where, words):
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.01)
    saver, said = make(wait=60)
    tries = []
    name = ("tutelage.train.state.save_file", "tutelage.files.sync")[where == "committing"]
    module, _, attribute = name.rpartition(".")
    import importlib

    real = getattr(importlib.import_module(module), attribute)

    def twice_full(*given):
        tries.append(1)
        if len(tries) <= 2:
            raise (
                RuntimeError("I/O error: No space left on device (os error 28)")
                if words
                else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            )
        return real(*given)

    monkeypatch.setattr(name, twice_full)
    saver.save(Position(1), SOUND)
    saver.finish()
    assert steps(saver) == [1]
    assert len(said) == 1
    assert said[0].endswith("is full; waiting up to 60 s for room (checkpoint.wait)")
    assert [path.name for path in saver.checkpoints.folder.iterdir()] == ["step-00000001"]


def test_a_disk_that_stays_full_ends_in_words(make, monkeypatch):
    saver, said = make(wait=0)
    monkeypatch.setattr("tutelage.train.state.save_file", full)
    with pytest.raises(MachineError) as caught:
        saver.save(Position(1), SOUND)
    assert caught.value.code == "machine/disk-full"
    assert list(saver.checkpoints.folder.iterdir()) == said == []
