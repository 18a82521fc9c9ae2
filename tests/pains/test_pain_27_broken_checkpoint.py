"""Pain 27: after a kill, a crash or a full disk the newest whole checkpoint is found and used."""

from __future__ import annotations

import errno
import os
import shutil
import signal

import pytest
from brokenoff import Killed, after_step, broken_off, everything, lines

import tinyruns
from tinyruns import Listening
from tutelage import commands, files
from tutelage.errors import MachineError, ModelError, StoppedError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tinyruns.write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", tinyruns.demonstrations())


def a_recipe(tiny_model, data, output):
    """Ten steps, saved every second one; a full disk is not waited for."""
    return tinyruns.recipe(
        tiny_model("llama"),
        data,
        output,
        train={"steps": 10},
        evaluate={"points": 1},
        checkpoint={"every": 2, "keep": 3, "wait": 0},
    )


@pytest.fixture
def recipe(workdir, tiny_model, data, monkeypatch):
    tinyruns.prove_here(monkeypatch)
    return a_recipe(tiny_model, data, workdir / "run")


@pytest.fixture(scope="module")
def straight(tmp_path_factory, tiny_model, data):
    """Everything that the unbroken run computes."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    with pytest.MonkeyPatch.context() as patch:
        tinyruns.prove_here(patch)
        commands.train(a_recipe(tiny_model, data, folder))
    return everything(folder)


def resumed(recipe) -> tuple[dict[str, object], list[str]]:
    said: list[str] = []
    return commands.train(recipe, screen=Listening(said), resume=True), said


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGE = {
    "torn": lambda folder: os.truncate(folder / "model.safetensors", 1000),
    "flipped": lambda folder: flip(folder / "optimizer.safetensors"),
    "zeros": lambda folder: (folder / "state.json").write_bytes(bytes((folder / "state.json").stat().st_size)),
    "missing": lambda folder: (folder / "optimizer.safetensors").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "another step's file": lambda folder: shutil.copy(
        folder.with_name("step-00000004") / "model.safetensors", folder / "model.safetensors"
    ),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_one_is_named_put_aside_and_the_one_before_is_used(recipe, workdir, straight, how):
    broken_off(recipe, after_step(7))
    DAMAGE[how](workdir / "run" / "checkpoints" / "step-00000006")
    _, said = resumed(recipe)
    (told,) = [line for line in said if "put aside" in line]
    assert "step-00000006.broken-" in told
    (resume,) = [line for line in said if line.startswith("resume")]
    assert "after step 5 of 10" in resume, "the held-out loss was measured and saved at step 5"
    (aside,) = (workdir / "run" / "checkpoints").glob("*.broken-*")
    assert (aside / "why-broken.txt").read_text().strip() in told
    assert everything(workdir / "run") == straight


def test_when_none_is_whole_the_run_is_not_begun_again_by_itself(recipe, workdir, straight):
    broken_off(recipe, after_step(7))
    folder = workdir / "run" / "checkpoints"
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        flip(folder / name / "model.safetensors")
    journal = (workdir / "run" / "metrics.jsonl").read_bytes()
    for _ in range(2):
        with pytest.raises(ModelError) as caught:
            resumed(recipe)
        assert (caught.value.code, caught.value.exit_code) == ("checkpoint/none", 4)
        assert all(name in str(caught.value) for name in names)
        assert "model.safetensors has another content" in str(caught.value)
        assert sorted(path.name.partition(".")[0] for path in folder.iterdir()) == names
        assert (workdir / "run" / "metrics.jsonl").read_bytes() == journal
    for path in folder.iterdir():
        shutil.rmtree(path)
    resumed(recipe)
    assert everything(workdir / "run") == straight


@pytest.mark.parametrize("operation", ["sync", "sha256", "write_whole", "sync_folder"])
@pytest.mark.parametrize("after", [3, 6])
def test_a_kill_in_the_middle_of_a_save_leaves_the_one_before(recipe, workdir, straight, operation, after):
    """Each operation of a save fails for good, some time after the second checkpoint was begun."""

    def arrange(patch: pytest.MonkeyPatch) -> None:
        real, calls = getattr(files, operation), []

        def fatal(*given: object) -> object:
            if "checkpoints" in str(given[0]):
                calls.append(given)
                if len(calls) > after:
                    raise Killed
            return real(*given)

        patch.setattr(files, operation, fatal)

    broken_off(recipe, arrange)
    whole = [path.name for path in (workdir / "run" / "checkpoints").glob("step-*")]
    assert whole
    _, said = resumed(recipe)
    assert not [line for line in said if "put aside" in line], "nothing half-written has a checkpoint's name"
    assert everything(workdir / "run") == straight
    assert not list((workdir / "run" / "checkpoints").glob(".step-*"))


@pytest.mark.parametrize("where", ["tutelage.train.state.save_file", "tutelage.files.sync"])
def test_a_disk_that_fills_up_ends_the_run_in_words_and_harms_nothing(recipe, workdir, straight, monkeypatch, where):
    module, _, name = where.rpartition(".")
    from importlib import import_module

    real, saved = getattr(import_module(module), name), []

    def full(*given: object) -> object:
        folder = workdir / "run" / "checkpoints"
        if folder.is_dir() and (folder / "step-00000004").is_dir() and "checkpoints" in str(given):
            saved.append(1)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*given)

    monkeypatch.setattr(where, full)
    with pytest.raises(MachineError) as caught:
        commands.train(recipe)
    assert saved
    assert (caught.value.code, caught.value.exit_code) == ("machine/disk-full", 5)
    names = sorted(path.name for path in (workdir / "run" / "checkpoints").iterdir())
    assert names == ["step-00000002", "step-00000004"]
    monkeypatch.setattr(where, real)
    resumed(recipe)
    assert everything(workdir / "run") == straight


def test_room_for_the_checkpoints_is_proved_before_the_first_step(recipe, workdir, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=300_000))
    with pytest.raises(MachineError) as caught:
        commands.train(recipe)
    assert caught.value.code == "machine/disk-full"
    assert not list((workdir / "run").glob("checkpoints/*"))
    assert not (workdir / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_asked_to_stop_it_saves_the_step_that_it_made(recipe, workdir, straight, monkeypatch, name):
    from tutelage.train import journal

    write_down = journal.write_down

    def interrupted(step, *given, **named):
        if step.step == 3:
            os.kill(os.getpid(), getattr(signal, name))
        return write_down(step, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(journal, "write_down", interrupted)
        with pytest.raises(StoppedError) as caught:
            commands.train(recipe)
    assert (caught.value.code, caught.value.exit_code) == ("run/stopped", 75)
    assert f"({name}) after step 3, which is saved" in str(caught.value)
    assert [line["step"] for line in lines(workdir / "run" / "metrics.jsonl")] == [1, 2, 3]
    assert max((workdir / "run" / "checkpoints").iterdir()).name == "step-00000003"
    _, said = resumed(recipe)
    assert any("after step 3 of 10" in line for line in said)
    assert everything(workdir / "run") == straight


def test_asked_to_stop_while_it_measures_it_saves_first_and_measures_later(recipe, workdir, straight, monkeypatch):
    from tutelage.evaluate.measure import Measure

    loss = Measure._heldout_loss

    def interrupted(self, forward, model, **named):
        if model == "step 5":
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(self, forward, model, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Measure, "_heldout_loss", interrupted)
        with pytest.raises(StoppedError, match="after step 5, which is saved"):
            commands.train(recipe)
    assert [line["step"] for line in lines(workdir / "run" / "evaluations.jsonl")] == [0]
    resumed(recipe)
    assert everything(workdir / "run") == straight
