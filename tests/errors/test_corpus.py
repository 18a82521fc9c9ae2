"""Bad input of every kind: each case of tests/corpus, under limits of time and memory, watched.

Each case goes through `check` in a child process (see guarded.py), with both policies for bad rows; some go through
the command line as well.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guarded import Guard
from safetensors.numpy import save_file

import tinyruns
from conftest import TEMPLATES, make_template_tokenizer, make_tokenizer
from corpus import CORPUS, MAKERS, NUMBERS, POLICIES, Case, cases, differences
from tutelage.errors import CLASSES, CODES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the guard reads /proc")

CASES = cases()
MODELS = Callable[[Case], Path]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> MODELS:
    """The model folder of a case; only its tokenizer is ever read."""
    made: dict[str, Path] = {}

    def make(case: Case) -> Path:
        key = case.name if case.tokenizer else case.template
        if key not in made:
            folder = made[key] = tmp_path_factory.mktemp("model")
            _make_tokenizer(folder, case)
            (folder / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 1000000}')
            save_file({"x": np.zeros(1, np.float32)}, folder / "model.safetensors")
        return made[key]

    return make


def _make_tokenizer(folder: Path, case: Case) -> None:
    own = CORPUS / "templates" / f"{case.template}.jinja"
    if case.template and not own.is_file():
        make_template_tokenizer(folder, case.template)
    else:
        make_tokenizer(folder)
        if case.template:
            shutil.copy(own, folder / "chat_template.jinja")
    if case.tokenizer:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **case.tokenizer}), "utf-8")
        if not case.template:
            (folder / "chat_template.jinja").unlink()


@pytest.fixture(scope="module")
def guards(models: MODELS) -> Iterator[list[Guard]]:
    """The processes in whose children the cases run, one for each policy."""
    guards = [Guard(models(Case("", ""))) for _ in POLICIES]
    yield guards
    for guard in guards:
        guard.close()


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder with its kind and size; links are not followed."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            known = os.lstat(os.path.join(parent, name))
            found[os.path.relpath(os.path.join(parent, name), folder)] = stat.S_IFMT(known.st_mode), known.st_size
    return found


def run(guard: Guard, case: Case, policy: str, model: Path, base: Path) -> dict[str, Any]:
    """What came of a case, with nothing changed but the token store."""
    folder, output, store = base / "work", base / "output", base / "store"
    folder.mkdir(parents=True)
    output.mkdir()
    case.fill(folder)
    before = tree(folder)
    recipe = case.recipe(folder, model, policy, output=output / "run", store=store)
    limits = {"seconds": case.seconds, "megabytes": case.megabytes, "powerless": case.powerless}
    limits["rendering_seconds"] = case.rendering_seconds
    told = guard.check(folder, recipe, writable=[str(output), str(store)], **limits)
    assert "crashed" not in told, told["crashed"]
    assert told["kept_from"] == []
    assert told["seconds"] < case.seconds
    assert told["megabytes"] < case.megabytes
    assert tree(folder) == before
    assert tree(output) == {}
    left = [path for path in store.iterdir() if path.is_dir()] if store.is_dir() else []
    assert all((path / "store.json").is_file() for path in left), "part of a token store was left"
    return told


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_it_comes_to_what_is_expected(guards, models, case, tmp_path, request):
    if case.wrong:
        request.applymarker(pytest.mark.xfail(reason=case.wrong, strict=True))
    model = models(case)
    policies = POLICIES[:1] if case.once else POLICIES
    with ThreadPoolExecutor(len(policies)) as both:
        came = [
            both.submit(run, guard, case, policy, model, tmp_path / policy)
            for guard, policy in zip(guards, policies, strict=False)
        ]
    for policy, told in zip(policies, came, strict=True):
        assert differences(told.result(), case.expected(policy)) == [], f"with on_bad_row={policy}"


# ------------------------------------------------------------------------------------- through the command line

SPOKEN = {
    "D05-one-byte-jsonl": "train",
    "D43-pipe": "check",
    "D46-negative": "check",
    "T03-globals": "train",
}
"""One case of each family, and the verb that meets it."""


@pytest.fixture(scope="module")
def spoken(models: MODELS, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Any]]]:
    """What the command says of each, two at a time, with what lay in its folder before and after."""

    def say(name: str) -> tuple[tinyruns.Outcome, set[str], set[str]]:
        case, folder = CASES[name], folders[name]
        case.fill(folder)
        recipe = case.recipe(folder, made[name], "stop", output=folder / "run", store=folder / "store")
        tinyruns.write_recipe(folder / "recipe.yaml", recipe)
        before = set(tree(folder))
        return tinyruns.process(SPOKEN[name], "recipe.yaml", folder=folder), before, set(tree(folder))

    made = {name: models(CASES[name]) for name in SPOKEN}
    folders = {name: tmp_path_factory.mktemp(name) for name in SPOKEN}
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(say, name) for name in SPOKEN}


@pytest.mark.parametrize("name", SPOKEN)
def test_the_command_says_it_without_a_traceback_and_writes_nothing(spoken, name):
    outcome, before, after = spoken[name].result()
    expected = CASES[name].expected("stop")
    assert outcome.code == expected["exit"], outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    for problem in expected["problems"]:
        assert f"error[{problem['code']}]: " in outcome.err
        assert problem.get("at", "") in outcome.err
    assert {path for path in after if not path.startswith("store")} == before


# ------------------------------------------------------------------------------------- the corpus itself


def test_every_number_has_a_case():
    assert {case.number for case in CASES.values()} == set(NUMBERS)


@pytest.mark.parametrize("folder", ["rows", "templates"])
def test_every_file_has_a_case_and_every_case_its_file(folder):
    there = {path.name for path in (CORPUS / folder).iterdir()}
    if folder == "rows":
        named = {name for case in CASES.values() for name in case.files}
    else:
        named = {
            f"{case.template}.jinja" for case in CASES.values() if case.template and case.template not in TEMPLATES
        }
    assert named - there == set(), "cases without their file"
    assert there - named == set(), "files without a case"


def test_every_maker_has_a_case_and_every_case_its_maker():
    assert {case.made for case in CASES.values() if case.made} == set(MAKERS)


def test_nothing_else_lies_in_the_corpus():
    there = {path.name for path in CORPUS.iterdir() if path.name != "__pycache__"}
    assert there == {".gitattributes", "expected.yaml", "makers.py", "places.py", "rows", "tables.py", "templates"}
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 512 * 1024


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_every_case_says_for_both_policies_what_must_come_of_it(case):
    assert case.what
    assert (case.both is None) == (case.stop is not None) == (case.quarantine is not None)
    for policy in POLICIES:
        expected = case.expected(policy)
        if "trained" in expected:
            continue
        codes = [problem["code"] for problem in expected["problems"]]
        assert set(codes) <= set(CODES)
        assert CLASSES[codes[0].partition("/")[0]].exit_code == expected["exit"]


def test_a_case_without_an_expectation_fails():
    case = Case("D00", "what", stop={"trained": 1})
    with pytest.raises(AssertionError, match="on_bad_row=quarantine"):
        case.expected("quarantine")
    assert {field.name for field in fields(Case)} >= {"why", "wrong"}
