"""What changed between two sessions of a run: recipe, rows, model, environment, checkpoints. Refused, or said."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from begun import CANNOT_GO_ON_HERE, CHANGED, Begun, StopAfter, at
from harness import LONG, read_lines
from outcomes import outcome

import tinyruns
from tutelage import commands, config, lineage
from tutelage.checkpoints.manifest import read, seal
from tutelage.config.names import general
from tutelage.errors import DataError, ModelError, RecipeError, StoppedError
from tutelage.recipe.resume import MEANINGS
from tutelage.runs import Run

IDENTITY = [name for name, meaning in MEANINGS.items() if meaning == "identity"]
EXTEND = [name for name, meaning in MEANINGS.items() if meaning == "extend"]
OTHER = [name for name, meaning in MEANINGS.items() if meaning in ("content", "free", "extend")]
SAMPLE = [*EXTEND, "checkpoint.every", "data.train.N.path", "model.path", "output"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> Begun:
    """Stopped after the second step of four."""
    folder = tmp_path_factory.mktemp("original")
    shutil.copytree(tiny_model(), folder / "model")
    rows = [{"id": n, **row} for n, row in enumerate(tinyruns.demonstrations(30))]
    tinyruns.write_rows(folder / "rows.jsonl", rows[:24])
    tinyruns.write_rows(folder / "heldout.jsonl", rows[24:])
    tinyruns.write_rows(folder / "joined.jsonl", [{"id": n, "box": n % 2} for n in range(30)])
    begun = at(folder)
    with pytest.raises(StoppedError) as stopped:
        commands.train(begun.recipe, screen=StopAfter(2))
    assert "step 2, which is saved" in str(stopped.value)
    return begun


@pytest.fixture
def begun(original: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begun:
    """A copy to change."""
    tinyruns.prove_here(monkeypatch)
    return copied(original, tmp_path / "begun")


def copied(original: Begun, folder: Path) -> Begun:
    """The run and all that it was made of in another folder."""
    shutil.copytree(original.folder, folder)
    recipe = folder / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(original.folder), str(folder)))
    return at(folder)


def refused(begun: Begun, kind: type[Exception], code: str, *overrides: str, exit_code: int) -> str:
    """The text; the run folder is as it was."""
    before = tinyruns.tree(begun.run)
    with pytest.raises(kind) as error:
        begun.go_on(*overrides)
    assert (error.value.code, error.value.exit_code) == (code, exit_code)
    after = tinyruns.tree(begun.run)
    after.pop(".holder.json", None)  # Who held the folder last.
    before.pop(".holder.json", None)
    assert after == before
    return str(error.value)


def weights(run: Path) -> str:
    """Of the last checkpoint and of what was exported."""
    last = Run(run).checkpoints.paths()[0]
    names = [*sorted(last.glob("*.safetensors")), *sorted((run / "model").glob("*.safetensors"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in names)).hexdigest()


def test_every_option_has_a_meaning_and_another_value_here():
    declared = {option.name for option in config.options()}
    sections = {"data.train", "data.heldout"}
    assert declared <= set(MEANINGS) | sections
    assert set(MEANINGS) <= declared
    assert set(CHANGED) == set(MEANINGS)


def test_an_option_that_decides_the_weights_is_refused_with_both_values(begun):
    with outcome("F15", "each option of the recipe changed, one at a time: refused") as found:
        for name in IDENTITY:
            changed = begun.override(name)
            then, now = (
                lineage._flat(config.resolve(begun.recipe, given).recipe.model_dump(mode="json"))
                for given in ([], changed)
            )
            differ = [option for option in {**then, **now} if then.get(option) != now.get(option)]
            assert name in map(general, differ) or name in ("data.train.N.join", "data.heldout.join"), name
            with found.trial():
                text = refused(begun, RecipeError, "recipe/changed", *changed, exit_code=2)
                for option in differ:
                    if MEANINGS[lineage._declared(option)] == "identity":
                        assert f"`{option}`" in text
                        assert f"{then.get(option)!r} before, {now.get(option)!r} now" in text


@pytest.mark.parametrize("name", OTHER if LONG else SAMPLE)
def test_an_option_that_may_change_lets_the_run_go_on_and_is_recorded_where_it_matters(begun, name):
    with outcome("F15", f"{name} changed: goes on") as found, found.trial():
        changed = begun.override(name)
        if name in CANNOT_GO_ON_HERE:
            _, _ = lineage.begin(Run(begun.run), config.resolve(begun.recipe, changed), resume=True)
            return
        run = Path(begun.recipe["output"]) if name != "output" else begun.folder / "moved"
        result = begun.go_on(*changed)
        assert result["status"] == "done"
        assert result["sessions"] == 2
        recorded = begun.sessions(run)[-1]["changes"]
        if MEANINGS[name] == "extend":
            assert any(change.startswith(f"{name}: ") for change in recorded)
        else:
            assert recorded == []


def test_every_option_that_may_change_passes_the_comparison(begun):
    with outcome("F15", "each option of the recipe changed, one at a time: not refused") as found:
        for name in OTHER:
            if name == "output":
                continue
            with found.trial():
                changed = config.resolve(begun.recipe, begun.override(name))
                recorded = lineage.begin(Run(begun.run), changed, resume=True)[0].changes
                assert bool(recorded) == (MEANINGS[name] == "extend"), name


def test_what_is_free_leaves_the_weights_as_they_would_be(begun, original):
    unchanged = copied(original, begun.folder.parent / "unchanged")
    unchanged.go_on()
    begun.go_on("checkpoint.every=1", "evaluate.points=0", "checkpoint.keep=1", "train.token_budget=60")
    assert weights(begun.run) == weights(unchanged.run)


def edit_a_byte(begun: Begun, seed: int) -> None:
    """In a text, with the size and the time of the file as before."""
    path = begun.folder / "rows.jsonl"
    data, times = bytearray(path.read_bytes()), path.stat()
    places = [at for at in range(len(data)) if data[at : at + 1].isdigit() and data[at - 1 : at] == b" "]
    at = random.Random(seed).choice([at for at in places if data[max(0, at - 7) : at] == b"number "])
    data[at] = ord("9") if data[at] != ord("9") else ord("8")
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    assert path.stat().st_mtime_ns == times.st_mtime_ns


def add_a_row(begun: Begun, seed: int) -> None:
    rows = _rows(begun)
    rows.insert(random.Random(seed).randrange(len(rows) + 1), {"id": 25, "instruction": "New?", "output": "Yes."})
    tinyruns.write_rows(begun.folder / "rows.jsonl", rows)


def remove_a_row(begun: Begun, seed: int) -> None:
    rows = _rows(begun)
    del rows[random.Random(seed).randrange(len(rows))]
    tinyruns.write_rows(begun.folder / "rows.jsonl", rows)


def swap_two_rows(begun: Begun, seed: int) -> None:
    rows = _rows(begun)
    one, other = random.Random(seed).sample(range(len(rows)), 2)
    rows[one], rows[other] = rows[other], rows[one]
    tinyruns.write_rows(begun.folder / "rows.jsonl", rows)


def put_a_link_there(begun: Begun, seed: int) -> None:
    path = begun.folder / "rows.jsonl"
    other = path.with_name("other.jsonl")
    shutil.copy(path, other)
    path.unlink()
    path.symlink_to(other)
    edit_a_byte(begun, seed)


def change_the_heldout_rows(begun: Begun, seed: int) -> None:
    path = begun.folder / "heldout.jsonl"
    path.write_text(path.read_text().replace("colour number 27", "colour number 67"))


CHANGES = (edit_a_byte, add_a_row, remove_a_row, swap_two_rows, put_a_link_there, change_the_heldout_rows)


@pytest.mark.parametrize("seed", range(5 if LONG else 1))
@pytest.mark.parametrize("change", CHANGES)
def test_other_rows_are_refused_with_both_digests(begun, change, seed):
    with outcome("F14", f"rows changed between: {change.__name__}") as found, found.trial():
        before = begun_with(begun)["data"]
        change(begun, seed)
        text = refused(begun, DataError, "data/changed", exit_code=3)
        assert before["rows of source 1"][:64] in text or change is change_the_heldout_rows
        assert len(set(re.findall(r"[0-9a-f]{64}", text))) >= 2


def test_a_change_of_rows_that_is_allowed_is_recorded(begun):
    swap_two_rows(begun, 0)
    said: list[str] = []
    assert begun.go_on(said=said, allow_data_change=True)["status"] == "done"
    recorded = begun.sessions()[-1]["changes"]
    assert any(change.startswith("rows of source 1: ") for change in recorded)
    assert all(f"resume  {change}" in said for change in recorded)
    # What the run is by content is now the new rows: the next session needs no permission.
    assert begun.go_on("train.steps=5")["status"] == "done"


def begun_with(begun: Begun) -> dict[str, Any]:
    return json.loads((begun.run / "run.json").read_text())["begun_with"]


def _rows(begun: Begun) -> list[Any]:
    return [json.loads(line) for line in (begun.folder / "rows.jsonl").read_text().splitlines()]


def change_a_weight(folder: Path) -> None:
    path = next(folder.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def change_the_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    whole["model"]["merges"] = whole["model"]["merges"][:-1]
    path.write_text(json.dumps(whole))


def change_the_template(folder: Path) -> None:
    for path in folder.iterdir():
        if path.suffix in (".jinja", ".json"):
            path.write_text(path.read_text().replace("<|im_start|>assistant", "<|im_start|> assistant"))


def change_the_sizes(folder: Path) -> None:
    path = folder / "config.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "rms_norm_eps": 1e-4}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (change_a_weight, "weights"),
        (change_the_tokenizer, "tokenizer"),
        (change_the_template, "template"),
        (change_the_sizes, "weights"),
    ],
)
def test_another_model_is_refused(begun, change, named):
    with outcome("F16", f"model changed between: {change.__name__}") as found, found.trial():
        before = tinyruns.tree(begun.folder / "model")
        change(begun.folder / "model")
        assert tinyruns.tree(begun.folder / "model") != before
        text = refused(begun, ModelError, "model/changed", exit_code=4)
        assert f"begun with: {named}" in text
        assert len(set(re.findall(r"[0-9a-f]{64}", text))) >= 2


def threads(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    return "threads: 1 before, 7 now"


def version_of_torch(monkeypatch: pytest.MonkeyPatch) -> str:
    was = torch.__version__
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    return f"torch: {was} before, 9.9.9 now"


def own_version(monkeypatch: pytest.MonkeyPatch) -> str:
    from tutelage import __version__, environment

    monkeypatch.setattr(environment, "__version__", "9.9")
    return f"tutelage: {__version__} before, 9.9 now"


@pytest.mark.parametrize("change", [threads, version_of_torch, own_version])
def test_another_environment_goes_on_and_says_so(begun, monkeypatch, change):
    with outcome("F16", f"environment changed between: {change.__name__}") as found, found.trial():
        expected = change(monkeypatch)
        said: list[str] = []
        assert begun.go_on(said=said)["status"] == "done"
        assert f"note    from here on not bit for bit as it would have gone on; {expected}" in said
        assert begun.sessions()[-1]["changes"] == [expected]


def test_a_finished_run_goes_on_for_more_steps_over_the_rows_that_come_next(begun):
    begun.go_on()
    assert begun.go_on("train.steps=8")["steps"] == 8
    assert begun.sessions()[-1]["changes"] == ["train.steps: 4 before, 8 now"]
    longer = begun.folder / "longer"
    begun.go_on("train.steps=8", f"output={longer}")
    # Rates differ, since the first four steps did not know of the others; the order of the rows does not.
    ours, theirs = (read_lines(run / "metrics.jsonl") for run in (begun.run, longer))
    assert [(line["step"], line["rows"]) for line in ours] == [(line["step"], line["rows"]) for line in theirs]
    assert [line["step"] for line in ours] == list(range(1, 9))


@pytest.mark.parametrize("finished", [False, True])
def test_fewer_steps_than_were_made_are_refused(begun, finished):
    if finished:
        begun.go_on()
    text = refused(begun, RecipeError, "recipe/changed", "train.steps=1", exit_code=2)
    assert "train.steps" in text
    assert f"{4 if finished else 2} steps" in text


def test_a_finished_run_whose_rows_changed_is_not_given_as_if_it_were_of_these_rows(begun):
    begun.go_on()
    swap_two_rows(begun, 0)
    refused(begun, DataError, "data/changed", exit_code=3)


def test_a_checkpoint_of_another_run_is_put_aside(begun):
    checkpoints = begun.run / "checkpoints"
    own = read(checkpoints / "step-00000002").run
    shutil.copytree(checkpoints / "step-00000002", checkpoints / "step-00000003")
    (checkpoints / "step-00000003" / "manifest.json").unlink()
    seal(checkpoints / "step-00000003", step=3, run="f" * 16, facts={})
    said: list[str] = []
    assert begun.go_on(said=said)["status"] == "done"
    aside = [path.name for path in checkpoints.glob("*.broken-*")]
    assert len(aside) == 1
    assert aside[0].startswith("step-00000003.broken-")
    assert any(f"it is of the run {'f' * 16}, and this is {own}" in line for line in said)
    assert any("after step 2 of 4" in line for line in said)


def test_a_position_that_somebody_edited_is_found_and_never_gone_on_from(begun, original):
    unbroken = copied(original, begun.folder.parent / "unbroken")
    unbroken.go_on()
    path = begun.run / "checkpoints" / "step-00000002" / "state.json"
    path.write_text(path.read_text().replace('"step": 2', '"step": 1'))
    with pytest.raises(ModelError, match=r"state\.json has another content") as error:
        begun.go_on()
    assert (error.value.code, error.value.exit_code) == ("checkpoint/none", 4)
    (aside,) = (begun.run / "checkpoints").glob("step-00000002.broken-*")
    assert (aside / "why-broken.txt").read_text().startswith("state.json has another content")
    shutil.rmtree(aside)
    begun.go_on()
    assert weights(begun.run) == weights(unbroken.run)


def test_ten_thousand_odd_names_among_the_checkpoints_do_not_matter(begun, original):
    unbroken = copied(original, begun.folder.parent / "unbroken")
    unbroken.go_on()
    names = [
        "step-2",
        "step-00000002.bak",
        "step--0000001",
        "step-0000000２",
        ".step-00000009-zzzz.part",
        "STEP-00000099",
    ]
    for number in range(10_000):
        path = begun.run / "checkpoints" / f"{names[number % len(names)]}{number if number >= len(names) else ''} x"
        path.touch() if number % 2 else path.mkdir()
    for name in names:
        (begun.run / "checkpoints" / name).mkdir()
    began = time.monotonic()
    assert [path.name for path in Run(begun.run).checkpoints.paths()] == ["step-00000002"]
    assert time.monotonic() - began < 1
    begun.go_on()
    assert weights(begun.run) == weights(unbroken.run)
    assert sum(1 for path in (begun.run / "checkpoints").iterdir()) == 10_000 + len(names) + 2
