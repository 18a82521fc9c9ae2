"""A whole run under watch: no pickle, no shell, no network, no code and no unwanted file of the model's folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from artifacts import Case

import tinyruns

WATCHED = Path(__file__).parent / "watched"


def events(folder: Path, *arguments: str) -> tuple[tinyruns.Outcome, list[str]]:
    """What a command of its own process does, and what was seen of it and its children."""
    seen = folder.parent / "events.txt"
    outcome = tinyruns.process(
        *arguments,
        folder=folder,
        PYTHONPATH=os.pathsep.join([str(WATCHED), os.environ.get("PYTHONPATH", "")]),
        PYTHONDONTWRITEBYTECODE="1",
        TUTELAGE_TEST_EVENTS=str(seen),
        TUTELAGE_TEST_FOLDER=str(folder.resolve()) + os.sep,
    )
    return outcome, seen.read_text().splitlines()


@pytest.fixture
def case(tmp_path: Path, tiny_model) -> Case:
    folder = tmp_path / "work"
    folder.mkdir()
    case = Case(folder, tiny_model("llama"), 9)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth", "cache.pkl", "cache.mdl"):
        (case.model / name).write_bytes(case.pickled())
    for name in ("modeling_llama.py", "own.py", "sitecustomize.py"):
        case.script(name)
    return case


def test_a_run_does_nothing_that_an_attack_would(case):
    tinyruns.write_recipe(case.folder / "recipe.yaml", case.values)
    outcome, seen = events(case.folder, "train", "recipe.yaml")
    assert outcome.code == 0, outcome.err
    assert (case.folder / "run" / "report.html").is_file()
    # The run, and the fresh process that loads what it saved.
    assert seen.count("watching") == 2
    assert [line for line in seen if line != "watching"] == []
    assert not case.canary.exists()


def test_the_watch_sees(tmp_path):
    """Each kind of event is seen where it happens, so that none is missed above."""
    folder = tmp_path / "work"
    (folder / "tutelage").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"x")
    (folder / "own.py").write_text("x = 1\n")
    (folder / "tutelage" / "__init__.py").write_text("")
    (folder / "tutelage" / "__main__.py").write_text(
        "import os, pickle, socket, subprocess\n"
        "os.system('true')\n"
        "subprocess.run('true', shell=True)\n"
        "open('weights.bin').close()\n"
        "exec(compile(open('own.py').read(), os.path.abspath('own.py'), 'exec'))\n"
        "pickle.loads(pickle.dumps(os.getcwd))\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "try:\n    s.connect(('192.0.2.1', 9))\nexcept OSError:\n    pass\n"
        "s.close()\n"
    )
    outcome, seen = events(folder)
    assert outcome.code == 0, outcome.err
    kinds = {line.split()[0] for line in seen}
    assert kinds == {"watching", "os.system", "shell", "open", "exec", "compile", "pickle.find_class", "socket.connect"}
    shutil.rmtree(folder)
