"""`tutelage runs list|verify|diff` on runs that are whole, on one that was killed and resumed, and on anything else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tinyruns
from tutelage import commands, history
from tutelage.checkpoints.manifest import read, seal
from tutelage.runs import Run

KILLED = """
import os, signal, sys
from tutelage.cli import main
from tutelage.train import journal

write_down = journal.write_down

def fatal(step, *given, **named):
    found = write_down(step, *given, **named)
    if step.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return found

journal.write_down = fatal
sys.argv = ["tutelage", *sys.argv[1:]]
main()
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_model) -> Path:
    """Below it `straight`, `broken` (the same, killed after step 5), `resumed` (that one, continued) and `faster`."""
    folder = tmp_path_factory.mktemp("runs")
    data = tinyruns.write_rows(folder / "rows.jsonl", tinyruns.demonstrations())

    def recipe(name: str, **sections):
        whole = {"train": {"steps": 8, "schedule": {"kind": "constant"}}, "checkpoint": {"every": 2}, **sections}
        return tinyruns.recipe(tiny_model("llama"), data, folder / "all" / name, **whole)

    path = tinyruns.write_recipe(folder / "killed.yaml", recipe("resumed"))
    done = subprocess.run([sys.executable, "-c", KILLED, "train", str(path)], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()[-2000:]
    shutil.copytree(folder / "all" / "resumed", folder / "all" / "broken")
    with pytest.MonkeyPatch.context() as patch:
        tinyruns.prove_here(patch)
        commands.train(recipe("resumed"), resume=True)
        commands.train(recipe("straight"))
        commands.train(recipe("deep/faster", train={"steps": 6, "learning_rate": 2e-3}))
    return folder / "all"


@pytest.fixture
def own(runs, tmp_path) -> Path:
    """A copy to do damage to."""
    return Path(shutil.copytree(runs, tmp_path / "own"))


def asked(*words):
    """What the command says as JSON."""
    outcome = tinyruns.tutelage("runs", *words, "--json")
    assert outcome.code in (0, 1), outcome.err
    return json.loads(outcome.out)


def unchanged(folder):
    """Every file's content and time of change."""
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


def test_every_run_is_listed(runs):
    rows = {row["name"]: row for row in asked("list", runs)}
    assert set(rows) == {"straight", "broken", "resumed", "deep/faster"}
    assert {name: row["status"] for name, row in rows.items()} == {
        **dict.fromkeys(("straight", "resumed", "deep/faster"), "done"),
        "broken": "broken off",
    }
    assert {name: (row["steps"]["made"], row["steps"]["planned"]) for name, row in rows.items()} == {
        "straight": (8, 8),
        "broken": (5, 8),
        "resumed": (8, 8),
        "deep/faster": (6, 6),
    }
    assert {name: row["sessions"] for name, row in rows.items()} == {
        "straight": 1,
        "broken": 1,
        "resumed": 2,
        "deep/faster": 1,
    }
    assert {name: row["model"] for name, row in rows.items() if not row["model"]} == {"broken": False}
    result = json.loads((runs / "straight" / "result.json").read_text())["heldout"]
    assert rows["straight"]["heldout"] == {key: result[key] for key in ("difference", "verdict")}
    assert rows["broken"]["heldout"] is None
    saved = list((runs / "straight" / "checkpoints").glob("step-*/*"))
    size = sum(path.stat().st_size for path in saved if path.name != "manifest.json")
    assert rows["straight"]["checkpoints"] == {"count": len(saved) // 4, "newest": 8, "bytes": size, "put_aside": 0}
    assert rows["broken"]["begun"] == rows["resumed"]["begun"] <= rows["straight"]["begun"]  # In whole seconds.
    assert all(row["unreadable"] == {} for row in rows.values())


def test_the_list_as_text(runs):
    outcome = tinyruns.tutelage("runs", "list", runs)
    head, *lines = outcome.out.splitlines()
    assert head.split() == ["RUN", "STATUS", "STEPS", "HELD-OUT", "CHECKPOINTS", "MODEL", "BEGUN", "SESSIONS"]
    (broken,) = [line for line in lines if line.startswith("broken")]
    assert "broken off" in broken
    assert "5 of 8" in broken
    assert (outcome.code, outcome.err, len(lines)) == (0, "", 4)


def test_a_run_alone_is_listed_by_its_own_name(runs):
    assert [row["name"] for row in asked("list", runs / "straight")] == ["straight"]


def test_looking_changes_nothing(own):
    before = unchanged(own)
    for words in (("list", own), ("verify", own / "broken"), ("diff", own / "broken", own / "straight")):
        assert tinyruns.tutelage("runs", *words).code == 0
    assert unchanged(own) == before


def test_a_run_that_another_process_holds_is_running(own):
    with Run(own / "broken").locked():
        Run(own / "broken").claim()
        (row,) = asked("list", own / "broken")
        assert row["status"] == "running"
    (row,) = asked("list", own / "broken")
    assert row["status"] == "broken off"


@pytest.mark.parametrize("status", ["stopped", "failed", "diverged"])
def test_a_run_says_how_it_ended(own, status):
    (own / "broken" / "result.json").write_text(json.dumps({"status": status, "steps": 5, "error": "why"}))
    assert asked("list", own / "broken")[0]["status"] == status


HALVES = {
    "run.json": ["", "{", "[]", "null", '{"sessions": 3}', '{"sessions": [1, {}]}', "\x00\xff"],
    "result.json": ["{}", '{"status": 1}', '{"heldout": []}', '{"heldout": {"difference": "x"}}', "[" * 100_000],
    "plan.json": ["{}", '{"steps": "many"}', "1"],
    "metrics.jsonl": ["", "\n\n", '{"step": 1}\n{"st', '{"step": "x"}\n', "[]\n", "x" * 100_000],
    "recipe.yaml": ["", "a: [", "\t"],
}


@pytest.mark.parametrize(("name", "content"), [(name, half) for name, halves in HALVES.items() for half in halves])
def test_half_written_files_are_answered_in_words(own, name, content):
    (own / "straight" / name).write_text(content, "utf-8", errors="replace")
    rows = {row["name"]: row for row in history.listing(own)}
    assert len(rows) == 4
    found = history.verify(own / "straight")
    assert isinstance(found["problems"], list)
    assert history.diff(own / "straight", own / "broken")["sentence"]
    assert history.diff(own / "broken", own / "straight")["sentence"]


def test_foreign_folders_are_passed_by(own):
    (own / "notes").mkdir()
    (own / "notes" / "recipe.yaml").write_text("cake: yes")
    (own / "a-file").write_text("")
    (own / "step-00000001").mkdir()
    (own / "loop").symlink_to(own)
    (own / "checkpoints").write_text("a file")
    shutil.rmtree(own / "straight" / "checkpoints")
    (own / "straight" / "checkpoints").write_text("a file")
    with contextlib.suppress(OSError):
        (own / "closed").mkdir(mode=0)
    rows = {row["name"]: row for row in asked("list", own)}
    assert set(rows) == {"straight", "broken", "resumed", "deep/faster"}
    assert rows["straight"]["checkpoints"]["count"] == 0


def test_a_folder_that_was_only_just_taken_is_a_run(tmp_path):
    with Run(tmp_path / "new").locked():
        Run(tmp_path / "new").claim()
        (row,) = asked("list", tmp_path)
        assert (row["name"], row["status"], row["steps"]) == ("new", "running", {"made": 0, "planned": None})
        assert "nothing to compare" in history.diff(tmp_path / "new", tmp_path / "new")["sentence"]


def test_nothing_and_nowhere(tmp_path):
    outcome = tinyruns.tutelage("runs", "list", tmp_path)
    assert (outcome.code, outcome.out) == (0, f"no runs below {tmp_path}\n")
    assert asked("list", tmp_path) == []
    for words in (("list", "none"), ("verify", tmp_path), ("diff", tmp_path, tmp_path), ("verify", "none")):
        outcome = tinyruns.tutelage("runs", *words)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith("error[usage/not-a-run]")


def test_a_thousand_runs_are_listed_quickly(tmp_path, runs):
    metrics = (runs / "straight" / "metrics.jsonl").read_text() * 50
    for number in range(1000):
        folder = tmp_path / f"run-{number:04}"
        folder.mkdir()
        for name in ("run.json", "plan.json", "result.json", "recipe.yaml"):
            os.link(runs / "straight" / name, folder / name)
        (folder / "metrics.jsonl").write_text(metrics)
    began = time.perf_counter()
    rows = history.listing(tmp_path)
    seconds = time.perf_counter() - began
    assert [row["name"] for row in rows] == [f"run-{number:04}" for number in range(1000)]
    assert seconds < 5, f"1,000 runs took {seconds:.1f} s"


@pytest.mark.parametrize("name", ["straight", "resumed", "broken", "deep/faster"])
def test_what_is_whole_verifies(runs, name):
    outcome = tinyruns.tutelage("runs", "verify", runs / name)
    assert (outcome.code, outcome.err) == (0, "")
    assert "everything is whole" in outcome.out
    assert "MB/s" in outcome.out
    found = asked("verify", runs / name)
    assert found["problems"] == []
    assert all(one["whole"] for one in found["checkpoints"]["each"])
    assert found["checkpoints"]["mb_per_second"] > 0
    assert found["model"]["tensors"] == (0 if name == "broken" else 20)


def flip(path: Path, place: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def not_finite(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-4:] = b"\x00\x00\x80\x7f"
    path.write_bytes(content)


def without_line(path: Path, number: int) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for place, line in enumerate(lines, 1) if place != number))


DAMAGE = [
    ("checkpoints/step-00000006/model.safetensors", flip, "model.safetensors has another content"),
    ("checkpoints/step-00000008/state.json", lambda path: path.unlink(), "state.json is missing"),
    ("checkpoints/step-00000008/manifest.json", lambda path: path.unlink(), "the save was not finished"),
    ("checkpoints/step-00000008/extra", lambda path: path.write_text(""), "extra does not belong to it"),
    ("model/model.safetensors", lambda path: os.truncate(path, 5000), "model.safetensors is not whole"),
    ("model/model.safetensors", not_finite, "holds values that are not finite"),
    ("model/model.safetensors", lambda path: path.unlink(), "the run is done, and there are no weights"),
    ("model/config.json", lambda path: path.write_text("{"), "model/config.json is not whole"),
    ("metrics.jsonl", lambda path: without_line(path, 3), "line 3 is of step 4, and not of step 3"),
    ("metrics.jsonl", lambda path: without_line(path, 8), "it ends at step 7, and there is a checkpoint of step 8"),
    ("metrics.jsonl", lambda path: os.truncate(path, path.stat().st_size - 5), "line 8 is cut short"),
    ("plan.json", lambda path: path.write_text("{"), "plan.json is not whole"),
    ("evaluations.jsonl", lambda path: path.write_text("x\n"), "line 1 is not a JSON object"),
]


@pytest.mark.parametrize(("file", "damage", "said"), DAMAGE)
def test_what_is_not_whole_is_named_with_its_reason(own, file, damage, said):
    damage(own / "straight" / file)
    before = unchanged(own)
    outcome = tinyruns.tutelage("runs", "verify", own / "straight")
    assert outcome.code == 1
    assert "error[check/not-whole]" in outcome.err
    assert said in outcome.err
    assert "everything is whole" not in outcome.out
    assert unchanged(own) == before
    found = asked("verify", own / "straight")
    assert any(Path(file).parts[0] == Path(one["file"]).parts[0] for one in found["problems"])


def test_a_line_that_a_kill_cut_short_is_no_fault_of_a_run_that_goes_on(own):
    path = own / "broken" / "metrics.jsonl"
    os.truncate(path, path.stat().st_size - 5)
    found = asked("verify", own / "broken")
    assert (found["problems"], found["steps"]) == ([], 4)
    assert found["notes"] == ["metrics.jsonl: line 5 is cut short and not a JSON object; --resume makes it anew"]


def test_checkpoints_that_were_put_aside_are_listed_with_their_reasons(own):
    run = Run(own / "broken")
    newest = run.checkpoints.paths()[0]
    flip(newest / "model.safetensors")
    (reason,) = [one["reason"] for one in asked("verify", own / "broken")["problems"]]
    run.checkpoints.newest(run.read_json("run.json")["run"], lambda folder, reason: None)
    found = asked("verify", own / "broken")
    (aside,) = found["put_aside"]
    assert aside["folder"].startswith(f"checkpoints/{newest.name}.broken-")
    assert aside["reason"] == reason
    assert found["problems"] == []
    assert asked("list", own / "broken")[0]["checkpoints"]["put_aside"] == 1
    assert f"{aside['folder']}: {reason}" in tinyruns.tutelage("runs", "verify", own / "broken").out


def test_a_checkpoint_of_another_run_is_not_this_runs(own):
    shutil.copytree(own / "deep/faster/checkpoints/step-00000006", own / "broken/checkpoints/step-00000006")
    (problem,) = asked("verify", own / "broken")["problems"]
    assert problem["file"] == "checkpoints/step-00000006"
    assert problem["reason"].startswith("it is of the run ")


def test_a_resumed_run_is_identical_to_the_unbroken_one(runs):
    found = asked("diff", runs / "straight", runs / "resumed")
    assert found["identical"]
    assert found["sentence"] == "identical: the same 8 steps and the same weights, bit for bit"
    for section in ("recipe", "data", "model", "environment", "plan", "results"):
        assert found[section] == [], section
    assert found["steps"]["first_difference"] == {"rows": None, "loss": None, "loss_beyond_rounding": None}
    assert found["weights"] == {"at": "checkpoint of step 8", "step": 8, "same": True, "differ": []}
    assert tinyruns.tutelage("runs", "diff", runs / "straight", runs / "resumed").out.endswith(
        "identical: the same 8 steps and the same weights, bit for bit\n"
    )


def test_a_run_that_was_broken_off_is_the_same_up_to_there(runs):
    found = asked("diff", runs / "broken", runs / "straight")
    assert found["sentence"] == "the same up to step 5, where A ends; B has 8 steps"
    assert not found["identical"]
    assert (found["steps"]["a"], found["steps"]["b"], found["steps"]["same_up_to"]) == (5, 8, 5)


def test_another_recipe_is_named_with_both_values(runs):
    found = asked("diff", runs / "straight", runs / "deep/faster")
    assert found["recipe"] == [
        {"what": "train.steps", "a": 8, "b": 6},
        {"what": "train.learning_rate", "a": 0.001, "b": 0.002},
        {"what": "train.schedule.kind", "a": "constant", "b": "cosine"},
    ]
    assert found["data"] == found["model"] == found["environment"] == []
    assert [one["what"] for one in found["plan"]] == ["steps", "learning_rate"]
    # The first loss is that of the same model; the second shows the other learning rate.
    assert found["steps"]["first_difference"] == {"rows": None, "loss": 2, "loss_beyond_rounding": 2}
    assert found["sentence"] == "different from the first step on"
    text = tinyruns.tutelage("runs", "diff", runs / "straight", runs / "deep/faster").out
    assert "recipe      train.learning_rate: 0.001 | 0.002\n" in text


def rewrite(path: Path, step: int, **changes) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[step - 1] |= changes
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_loss_that_differs_by_rounding_is_told_from_one_that_differs(own):
    path = own / "resumed" / "metrics.jsonl"
    losses = [json.loads(line)["loss"] for line in path.read_text().splitlines()]
    rewrite(path, 4, loss=losses[3] + 5e-7)
    rewrite(path, 7, loss=losses[6] + 2e-6)
    found = asked("diff", own / "straight", own / "resumed")
    assert found["steps"]["first_difference"] == {"rows": None, "loss": 4, "loss_beyond_rounding": 7}
    assert found["sentence"] == "the same up to step 3; step 4 differs, in its loss"


def test_other_rows_and_steps_that_are_not_finite(own):
    rewrite(own / "resumed" / "metrics.jsonl", 6, rows="0123456789abcdef", loss=None)
    found = asked("diff", own / "straight", own / "resumed")
    assert found["steps"]["first_difference"] == {"rows": 6, "loss": 6, "loss_beyond_rounding": 6}
    assert found["sentence"] == "the same up to step 5; step 6 differs, in its rows and loss"
    rewrite(own / "straight" / "metrics.jsonl", 6, rows="0123456789abcdef", loss=None)
    assert asked("diff", own / "straight", own / "resumed")["identical"]


def seal_again(run: Path, step: int) -> None:
    """Write the manifest of a checkpoint for the files as they are now."""
    folder = run / "checkpoints" / f"step-{step:08}"
    known = read(folder)
    (folder / "manifest.json").unlink()
    seal(folder, step=step, run=known.run, facts=known.facts)


def test_the_same_steps_with_other_weights_are_not_identical(own):
    flip(own / "resumed" / "checkpoints" / "step-00000008" / "optimizer.safetensors")
    seal_again(own / "resumed", 8)
    found = asked("diff", own / "straight", own / "resumed")
    assert not found["identical"]
    assert found["weights"]["differ"] == ["optimizer.safetensors"]
    assert found["sentence"] == "the same 8 steps, but other weights in the checkpoint of step 8"


def test_without_a_common_checkpoint_the_models_are_compared(own):
    (own / "straight" / "checkpoints" / "step-00000008" / "manifest.json").unlink()
    found = asked("diff", own / "straight", own / "resumed")
    assert (found["weights"]["at"], found["weights"]["step"], found["identical"]) == ("finished model", 8, True)
    for name in ("straight", "resumed"):
        shutil.rmtree(own / name / "checkpoints")
    assert asked("diff", own / "straight", own / "resumed")["identical"]
    flip(own / "resumed" / "model" / "model.safetensors")
    found = asked("diff", own / "straight", own / "resumed")
    assert found["weights"] == {"at": "finished model", "step": 8, "same": False, "differ": ["model.safetensors"]}
    assert found["sentence"] == "the same 8 steps, but other weights in the finished model"


def test_weights_of_an_earlier_step_do_not_prove_those_of_the_last(own):
    for name in ("straight", "resumed"):
        shutil.rmtree(own / name / "model")
        shutil.rmtree(own / name / "checkpoints" / "step-00000008")
    found = asked("diff", own / "straight", own / "resumed")
    assert not found["identical"]
    assert found["sentence"] == "identical in all 8 steps, bit for bit; weights are known up to step 6"


def test_content_and_environment_are_compared(own):
    path = own / "resumed" / "run.json"
    known = json.loads(path.read_text())
    known["begun_with"]["data"]["rows of source 1"] = "other"
    known["begun_with"]["model"]["template"] = "other"
    path.write_text(json.dumps(known))
    environment = json.loads((own / "resumed" / "environment.json").read_text())
    (own / "resumed" / "environment.json").write_text(json.dumps({**environment, "threads": 99}))
    data = json.loads((own / "resumed" / "data.json").read_text())
    data["ledger"]["dropped"] = {"over-long": 3}
    (own / "resumed" / "data.json").write_text(json.dumps(data))
    found = asked("diff", own / "straight", own / "resumed")
    assert [(one["what"], one["b"]) for one in found["data"]] == [
        ("rows of source 1", "other"),
        ("ledger.dropped.over-long", 3),
    ]
    assert [(one["what"], one["b"]) for one in found["model"]] == [("template", "other")]
    assert [(one["what"], one["b"]) for one in found["environment"]] == [("threads", 99)]


def test_the_verbs_load_no_torch(runs):
    code = (
        "import sys\n"
        f"sys.argv = ['tutelage', 'runs', 'verify', {str(runs / 'straight')!r}]\n"
        "from tutelage.cli import main\n"
        "main()\n"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])\n"
    ).replace("main()\nprint", "try:\n    main()\nexcept SystemExit:\n    pass\nprint")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
