"""Runs in the place of results, and a model folder in the place of a server."""

from __future__ import annotations

import json
import shutil

import pytest
from judging import Bench, judged, results

from tutelage.errors import RecipeError
from tutelage.evaluation.subject import Saved
from tutelage.judge.pairs import material
from tutelage.judge.wording import load

pytest.importorskip("httpx")


def test_a_run_against_itself_is_its_base_against_what_was_trained(learned_run, tmp_path):
    found = material(learned_run, learned_run)
    assert found.names == ("run before", "run after")
    lines = [json.loads(line) for line in (learned_run / "samples.jsonl").read_text().splitlines()]
    last = {model: max(one["step"] for one in lines if one["model"] == model) for model in ("base", "tuned")}
    said = {
        model: [one["answer"] for one in lines if one["model"] == model and one["step"] == last[model]]
        for model in last
    }
    assert [pair.a for pair in found.pairs] == said["base"]
    assert [pair.b for pair in found.pairs] == said["tuned"]
    assert all(pair.request and pair.reference and pair.task == "held-out answers" for pair in found.pairs)

    bench = Bench(lambda request, first, second: f"Verdict: {1 if first in said['tuned'] else 2}")
    try:
        judgement = judged(bench, learned_run, learned_run, out=tmp_path / "out")
    finally:
        bench.close()
    (task,) = judgement["tasks"]
    different = sum(not pair.identical for pair in found.pairs)
    assert (task["wins"], task["losses"], task["ties_by"]["identical"]) == (
        different,
        0,
        len(found.pairs) - different,
    )
    assert different > 0


def test_two_runs_are_paired_by_what_was_asked(learned_run, tmp_path):
    other = shutil.copytree(learned_run, tmp_path / "other")
    lines = [json.loads(line) for line in (other / "samples.jsonl").read_text().splitlines()]
    turned = [line | {"answer": f"{line['answer']} indeed"} for line in reversed(lines)]
    (other / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in turned))
    pairs = material(learned_run, other).pairs
    assert pairs
    assert all(pair.b == f"{pair.a} indeed" for pair in pairs)
    (other / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in turned[1:]))
    with pytest.raises(RecipeError) as refused:
        material(learned_run, other)
    assert refused.value.code == "usage/not-paired"
    (other / "samples.jsonl").write_text("")
    with pytest.raises(RecipeError) as refused:
        material(learned_run, other)
    assert refused.value.code == "usage/no-results"


def test_chosen_options_are_not_judged(tmp_path):
    a, b = results(tmp_path / "a", ["x"] * 6), results(tmp_path / "b", ["y"] * 6)
    for folder in (a, b):
        lines = [json.loads(line) | {"health": None} for line in (folder / "talk.jsonl").read_text().splitlines()]
        (folder / "talk.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(RecipeError) as refused:
        material(a, b)
    assert refused.value.code == "usage/not-paired"


def test_a_model_folder_judges_too(learned_run, tmp_path, one_thread):
    """It has learned to name a colour, and so it says no verdict; nothing is guessed from what it says."""
    from tutelage.judge import judge

    a, b = results(tmp_path / "a", ["x"] * 3), results(tmp_path / "b", ["y"] * 3)
    subject = Saved(str(learned_run), device="cpu")
    short = tmp_path / "short.yaml"
    short.write_text("{name: s, criteria: [x], user: '{request}{first}{second}{criteria}', again: 'Verdict?'}")
    found = judge(a, b, subject, load(short), tmp_path / "out", max_new_tokens=12)
    (task,) = found["tasks"]
    assert (task["verdict"], task["unparsable"], task["n"]) == ("not measured", 3, 0)
    assert found["tokens"]["prompt"] is None
    assert found["tokens"]["completion"] > 0
    assert found["settings"]["judge"]["sha256"] == subject.digest
    assert found["bias"]["unparsable"]["retried"] == 6
