"""lm-eval on the folders that training leaves, and what it logs as results that are compared row by row."""

from __future__ import annotations

import json
import sys

import pytest

import tinyruns
from tutelage.errors import MachineError, RecipeError, SecurityError
from tutelage.evaluation import compare
from tutelage.evaluation.harness import run_harness
from tutelage.evaluation.logged import digest, lines
from tutelage.evaluation.subject import Saved

WRITTEN = """\
task: written
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_text: "Colour {{{{n}}}}?"
doc_to_target: "{{{{colour}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 6, do_sample: false}}
metric_list:
  - metric: exact_match
metadata: {{version: 1.0}}
"""
CHOSEN = """\
task: chosen
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Colour {{{{n}}}}?"
doc_to_target: "{{{{colour}}}}"
doc_to_choice: ["red", "green"]
metric_list:
  - metric: acc
  - metric: acc_norm
metadata: {{version: 2.0}}
"""


@pytest.fixture
def tasks(workdir, monkeypatch):
    """Two tasks of lm-eval over eight rows whose right answer is red; no network is asked."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(workdir / "cache"))
    data = tinyruns.write_rows(workdir / "colours.jsonl", [{"n": n, "colour": "red"} for n in range(40, 48)])
    for name, text in (("written", WRITTEN), ("chosen", CHOSEN)):
        (workdir / f"{name}.yaml").write_text(text.format(data=data))
    return ["written.yaml", "chosen.yaml"]


def saved(model) -> Saved:
    return Saved(str(model), device="cpu", in_flight=4)


@pytest.mark.filterwarnings("ignore")
def test_base_and_tuned_are_paired_row_by_row(tasks, workdir, learned_run):
    pytest.importorskip("lm_eval")
    base = run_harness(saved(learned_run.parent / "base"), tasks, workdir / "base")
    tuned = run_harness(saved(learned_run), tasks, workdir / "tuned")
    titles = ["lm-eval written exact_match", "lm-eval chosen acc", "lm-eval chosen acc_norm"]
    assert [one["task"] for one in tuned] == [one["task"] for one in base] == titles
    assert [(one["mean"], one["n"]) for one in tuned] == [(1.0, 8)] * 3
    assert base[0]["mean"] == 0.0
    found = compare([workdir / "base", workdir / "tuned"])
    table = {task["task"]: task for task in found["tasks"]}
    assert table[titles[0]]["verdict"] == "better"
    assert (len(table[titles[0]]["won"]), table[titles[0]]["test"]) == (8, "McNemar")
    assert {row["other"]["answer"] for row in table[titles[0]]["won"]} == {"red"}
    assert {row["reference"] for row in table[titles[0]]["won"]} == {"red"}
    # The rated option is the answer.
    rated = [json.loads(line) for line in (workdir / "tuned" / "lm-eval-chosen-acc.jsonl").read_text().splitlines()]
    assert [line["answer"] for line in rated] == ["red"] * 8
    with pytest.raises(RecipeError) as refused:
        run_harness(saved(learned_run), tasks, workdir / "tuned")
    assert refused.value.code == "usage/output-exists"
    fewer = run_harness(saved(learned_run), tasks[:1], workdir / "fewer", limit=3)
    assert fewer[0]["n"] == 3
    with pytest.raises(RecipeError) as refused:
        compare([workdir / "base", workdir / "fewer"])
    assert refused.value.code == "usage/not-paired"


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_is_its_merged_model(tasks, workdir, lora_run):
    pytest.importorskip("lm_eval")
    for name, model in (("adapter", lora_run), ("merged", lora_run / "merged")):
        run_harness(saved(model), tasks, workdir / name)
    for file in sorted((workdir / "adapter").glob("*.jsonl")):
        assert file.read_text() == (workdir / "merged" / file.name).read_text()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("doc_to_text: !function mine.text\n", "!function mine.text"),
        ("metric_list: [{metric: ./mine.py}]\n", "metric: ./mine.py"),
        ('metric_list: [{"m\\x65tric": ./mine.py}]\n', "metric: ./mine.py"),
        ("class: Mine\n", "class: Mine"),
        ("metric_list:\n  - metric: exact_match\n    hf_evaluate: True\n", "hf_evaluate: True"),
        ("include: [further]\n", "!function mine.text"),
    ],
)
def test_a_task_that_brings_code_is_refused(tasks, workdir, learned_run, change, told):
    pytest.importorskip("lm_eval")
    (workdir / "included").write_text(change)
    (workdir / "further").write_text("doc_to_target: !function mine.text\n")
    with (workdir / "chosen.yaml").open("a") as file:
        file.write("include: included\n")
    with pytest.raises(SecurityError) as refused:
        run_harness(saved(learned_run), tasks, workdir / "out")
    assert refused.value.code == "security/remote-code"
    assert told in refused.value.problems[0].found
    assert not (workdir / "out").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("task", "text", "told"),
    [
        ("none.yaml", None, "there is no such task file"),
        ("mine.yaml", "dataset_path: json\n", "does not say what the task is called"),
        ("mine.yaml", WRITTEN.format(data="none.jsonl").replace("task: written", "task: mine"), "cannot load the task"),
        ("gsm9k", None, "lm-eval has no task `gsm9k`"),
    ],
)
def test_what_cannot_be_asked_is_refused(workdir, learned_run, monkeypatch, task, text, told):
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    if text is not None:
        (workdir / task).write_text(text)
    with pytest.raises(RecipeError) as refused:
        run_harness(saved(learned_run), [task], workdir / "out")
    assert told in str(refused.value)
    assert not (workdir / "out").exists()


def test_without_the_package_it_is_named(workdir, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MachineError) as refused:
        run_harness(Saved("model"), ["gsm8k"], workdir / "out")
    assert refused.value.code == "machine/missing-package"
    assert refused.value.problems[0].fix == 'pip install "tutelage[lm-eval]"'
    assert not (workdir / "out").exists()


LOGGED = {
    "doc_id": 0,
    "target": "red",
    "arguments": [["<user>Colour 1?", {"until": ["\n"]}]],
    "filtered_resps": ["red"],
    "doc_hash": "abc",
    "target_hash": "def",
    "exact_match": 1.0,
}


def test_a_logged_row_goes_by_what_it_holds():
    other = {**LOGGED, "arguments": [["plain: Colour 1?", {}]], "doc_id": 5, "exact_match": 0.0}
    twice = [*lines("t", "exact_match", [LOGGED, LOGGED])]
    (there,) = lines("t", "exact_match", [other])
    assert [line["row"] for line in twice] == [there["row"], f"{there['row']}-2"]
    assert twice[0]["prompt"] == twice[1]["prompt"] == there["prompt"]  # Whatever template it was asked in.
    assert (twice[0]["score"], there["score"]) == (1.0, 0.0)
    assert there["origin"] == {"file": "t", "line": 6}


def test_the_digest_of_a_task_is_of_what_it_asks():
    config = {"task": "t", "doc_to_text": "Q", "metadata": {"config_source": "/a"}, "dataset_kwargs": {"f": "/a"}}
    moved = {**config, "metadata": {"config_source": "/b"}, "dataset_kwargs": {"f": "/b"}}
    assert digest(config) == digest(moved)
    assert digest(config) != digest({**config, "doc_to_text": "R"})
    assert digest({"f": "<function a at 0x7f01>"}) == digest({"f": "<function a at 0x9f02>"})
