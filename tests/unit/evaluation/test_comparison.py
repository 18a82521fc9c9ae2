"""Two sets of answers: paired by row, refused where they are not, and told from noise or not."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from answering import QUESTIONS, Scripted, asked, task

from tutelage.cli.evaluate import comparison_text
from tutelage.errors import RecipeError
from tutelage.evaluate.compare import paired_means
from tutelage.evaluate.statistics import mcnemar
from tutelage.evaluation import compare, crew, evaluate
from tutelage.evaluation.page import render
from tutelage.evaluation.results import labels
from tutelage.generate.sampling import Sampling
from tutelage.tasks.errand import errand, worded

make_run = runpy.run_path(str(Path(__file__).parents[1] / "report" / "madeup.py"))["make_run"]
WARM = Sampling(temperature=1.0, samples=3)


@pytest.fixture
def data(rows):
    return rows(QUESTIONS, "questions.jsonl")


@pytest.fixture
def base(data, tmp_path):
    asked(data, 60, tmp_path / "base")
    return tmp_path / "base"


def scores(folder, stem="next"):
    return [json.loads(line)["score"] for line in (folder / f"{stem}.jsonl").read_text().splitlines()]


def test_a_better_model_is_better_and_its_own_losses_are_listed(base, data, tmp_path):
    asked(data, 230, tmp_path / "tuned")
    found = compare([base, tmp_path / "tuned"])
    (one,) = found["tasks"]
    before, after = scores(base), scores(tmp_path / "tuned")
    won = sum(b < a for b, a in zip(before, after, strict=True))
    assert (len(one["won"]), len(one["lost"]), one["tied"]) == (won, 0, 24 - won)
    assert won > 10
    expected = paired_means(before, after, confidence=0.95)
    assert one["interval"] == list(expected.interval)
    assert (one["n"], one["difference"]) == (24, pytest.approx(np.mean(after) - np.mean(before)))
    assert (one["test"], one["chance"]) == ("McNemar", mcnemar(won, 0))
    assert one["verdict"] == one["verdict_together"] == "better"
    assert one["sentence"].startswith("next: tuned is better: ")
    assert f"n = 24; {won} won, 0 lost, {24 - won} the same" in one["sentence"]
    assert one["won"][0]["base"]["answer"] != one["won"][0]["other"]["answer"]
    assert one["health"]["base"]["stopped"] == 1.0
    assert found["many"] == ""
    turned = compare([tmp_path / "tuned", base])["tasks"][0]
    assert turned["verdict"] == "worse"
    assert turned["sentence"].startswith("next: base is worse: ")
    assert [row["row"] for row in turned["lost"]] == [row["row"] for row in one["won"]]
    assert any("lost: " + str(won) in line for line in comparison_text(compare([tmp_path / "tuned", base])))


def test_two_evaluations_that_were_broken_off_are_said_to_be(data, tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "FIRST", 8)
    for name, skill in (("x", 100), ("y", 200)):
        with pytest.raises(KeyboardInterrupt):
            evaluate(Scripted(skill, fails=8), [errand(task(data))], tmp_path / name)
    (one,) = compare([tmp_path / "x", tmp_path / "y"])["tasks"]
    assert one["n"] == 8
    assert one["notes"] == [
        "x and y did not come to an end: 8 of 24 rows are compared, those that were asked first and no sample of all"
    ]


@pytest.mark.parametrize(
    ("summary", "lacks"),
    [
        ({"task": "next"}, "better, status, settings.task, settings.sampling"),
        ({"task": "next", "better": "higher", "status": "done", "settings": {"task": {}}}, "settings.sampling"),
        ({"task": 3, "better": "higher", "status": "done", "settings": {"task": {}, "sampling": {}}}, "task"),
    ],
)
def test_a_damaged_summary_is_named(base, tmp_path, summary, lacks):
    (tmp_path / "other").mkdir()
    file = tmp_path / "other" / "next.json"
    file.write_text(json.dumps({"kind": "evaluation", **summary}))
    with pytest.raises(RecipeError) as refused:
        compare([base, file.parent])
    (problem,) = refused.value.problems
    assert (problem.code, problem.where, problem.found) == ("usage/no-results", str(file), f"it lacks {lacks}")


def test_the_same_model_is_no_other_one(base, rows, tmp_path):
    asked(rows(QUESTIONS[::-1], "turned.jsonl"), 60, tmp_path / "again")
    (one,) = compare([base, tmp_path / "again"])["tasks"]
    assert (one["difference"], one["chance"], one["verdict"]) == (0.0, 1.0, "no difference")
    assert "no difference that can be told from noise" in one["sentence"]
    assert one["detectable"] > 0
    assert "So many rows show a difference of" in one["sentence"]


def test_lower_can_be_better(data, tmp_path):
    for name, skill in (("base", 60), ("tuned", 230)):
        asked(data, skill, tmp_path / name, better="lower")
    (one,) = compare([tmp_path / "base", tmp_path / "tuned"])["tasks"]
    assert one["verdict"] == "worse"
    assert len(one["lost"]) > 10
    assert one["won"] == []


def test_answers_to_one_prompt_are_one_draw(rows, tmp_path):
    twice = rows([*QUESTIONS, *QUESTIONS[:6]], "twice.jsonl")
    for name, skill in (("base", 60), ("tuned", 200)):
        asked(twice, skill, tmp_path / name, WARM)
    (one,) = compare([tmp_path / "base", tmp_path / "tuned"])["tasks"]
    assert (one["answers"], one["n"], one["test"]) == (90, 24, "Student's t")
    assert one["notes"] == ["90 answers to 24 prompts; answers to one prompt count as one draw"]
    alone = paired_means(scores(tmp_path / "base"), scores(tmp_path / "tuned"), confidence=0.95)
    assert one["difference"] == pytest.approx(alone.difference)
    assert one["interval"] != list(alone.interval)


def test_several_tasks_are_judged_together(data, tmp_path):
    # Six of six rows won is a chance of 1/32 alone, and of 1/8 among four.
    for name, skill in (("base", 0), ("tuned", 256)):
        own = [errand(task(data, name=each)) for each in "abcd"]
        evaluate(Scripted(skill if name == "tuned" else 0), own, tmp_path / name, limit=6)
    found = compare([tmp_path / "base", tmp_path / "tuned"])
    assert [one["chance"] for one in found["tasks"]] == [1 / 32] * 4
    assert [one["chance_together"] for one in found["tasks"]] == [1 / 8] * 4
    assert [one["verdict_together"] for one in found["tasks"]] == ["no difference"] * 4
    assert "4 tasks are compared" in found["many"]
    assert "cannot be told from noise any more" in found["many"]
    assert found["many"] in list(comparison_text(found))


def test_three_models_are_two_comparisons(base, data, tmp_path):
    for name, skill in (("b", 230), ("c", 60)):
        asked(data, skill, tmp_path / name)
    found = compare([base, tmp_path / "b", tmp_path / "c"])
    assert [(one["other"], one["verdict"]) for one in found["tasks"]] == [("b", "better"), ("c", "no difference")]
    assert "next of b" in found["many"]


# ------------------------------------------------------------------------------------------------- refused


def test_other_rows_are_refused_with_the_counts(base, rows, tmp_path):
    asked(rows(QUESTIONS[4:], "fewer.jsonl"), 60, tmp_path / "fewer")
    with pytest.raises(RecipeError) as refused:
        compare([base, tmp_path / "fewer"])
    assert refused.value.code == "usage/not-paired"
    assert "base has 24 answers, fewer has 20; 20 are to the same rows in the same words" in str(refused.value)
    assert "the same task, --data and --limit" in str(refused.value)


def test_an_unfinished_evaluation_is_named(base, data, tmp_path, monkeypatch):
    from tutelage.evaluation import crew

    monkeypatch.setattr(crew, "FIRST", 8)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Scripted(fails=8), [errand(task(data))], tmp_path / "half")
    with pytest.raises(RecipeError, match="half did not come to an end: repeat its `tutelage eval`"):
        compare([base, tmp_path / "half"])


def test_other_words_are_refused(base, data, rows, tmp_path):
    pools = [rows([{"q": f"{word} {n}?", "a": n} for n in range(3)], f"{word}.jsonl") for word in ("First", "Other")]
    for name, pool in zip("ab", pools, strict=True):
        asked(data, 60, tmp_path / name, shots=1, shots_from=str(pool))
    with pytest.raises(
        RecipeError, match="0 are to the same rows in the same words, 24 to the same rows in other words"
    ):
        compare([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(RecipeError, match="shots: 0 and 1"):
        compare([base, tmp_path / "a"])


def test_other_scorers_are_refused_and_other_sampling_is_told(base, data, tmp_path):
    asked(data, 60, tmp_path / "exact", scorer={"kind": "exact"})
    with pytest.raises(RecipeError, match="is not the same task in both"):
        compare([base, tmp_path / "exact"])
    asked(data, 60, tmp_path / "warm", Sampling(temperature=0.5))
    (one,) = compare([base, tmp_path / "warm"])["tasks"]
    assert one["notes"] == ["sampled differently: temperature 0.0 and 0.5"]


def test_folders_without_results_are_refused(base, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, said in (("empty", "neither results nor a run"), ("missing", "no such folder")):
        with pytest.raises(RecipeError, match=said) as refused:
            compare([base, tmp_path / name])
        assert refused.value.code == "usage/no-results"


def test_nothing_in_common_is_refused_and_a_task_alone_is_told(base, data, tmp_path):
    evaluate(Scripted(), [errand(task(data, name="other"))], tmp_path / "other")
    with pytest.raises(RecipeError, match="no task in common"):
        compare([base, tmp_path / "other"])
    shutil.copytree(base, tmp_path / "both")
    evaluate(Scripted(), [errand(task(data, name="other"))], tmp_path / "both")
    found = compare([base, tmp_path / "both"])
    assert found["notes"] == ["not compared, because base does not have them: other"]


# ---------------------------------------------------------------------------------------------------- runs


def test_runs_are_compared_by_their_scored_answers(tmp_path):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    lines = [json.loads(line) for line in (two / "samples.jsonl").read_text().splitlines()]
    tuned = [line for line in lines if line["model"] == "tuned" and line["correct"] is not None]
    assert tuned
    for line in tuned:
        line["correct"] = not line["correct"]
    (two / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for run in (one, two):
        (run / "run.json").write_text("{}")
    found = compare([one, two])
    (task,) = found["tasks"]
    assert task["task"] == "held-out answers"
    assert len(task["won"]) + len(task["lost"]) == task["answers"] > 0
    assert [row["name"] for row in found["heldout"]] == ["one", "two"]
    assert any("one: it kept no held-out losses by row" in note for note in found["notes"])
    assert found["losses"] == []


def recorded_run(folder, tuned, rows=range(20)):
    """A made-up run that kept its held-out losses by row."""
    run = make_run(folder)
    (run / "run.json").write_text("{}")
    names, count = [f"row {n}" for n in rows], len(rows)
    facts = {name: [value] * count for name, value in {"tokens": 10, "bytes": 40, "weights": 10.0}.items()}
    (run / "heldout.json").write_text(json.dumps({"rows": names, **facts}))
    base = [30.0 + n for n in rows]
    lines = [{"step": 0, "model": "base", "sums": base}, {"step": 9, "model": "tuned", "sums": list(map(tuned, base))}]
    (run / "heldout.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_runs_are_compared_by_the_loss_of_each_row(tmp_path):
    one = recorded_run(tmp_path / "one", lambda loss: loss - 1)
    two = recorded_run(tmp_path / "two", lambda loss: 0.7 * loss, rows=range(5, 30))
    found = compare([one, two])
    (pair,) = found["losses"]
    assert (pair["base"], pair["other"], pair["n"], pair["rows"]) == ("one", "two", 15, {"base": 20, "other": 25})
    assert (pair["same_base"], pair["verdict"]) == (True, "better")
    before, after = [30.0 + n - 1 for n in range(5, 20)], [0.7 * (30.0 + n) for n in range(5, 20)]
    assert pair["difference"] == pytest.approx((sum(after) - sum(before)) / 150)
    assert not any("by row" in note for note in found["notes"])
    text = "\n".join(comparison_text(found))
    assert "better        two is better on held-out rows than one: held-out loss" in text
    assert "15 shared rows, of 20 and 25 that the two held out" in text
    assert "both began at 4.200 nats per token on these rows" in text
    assert "two is better on held-out rows than one" in render(found)
    other = compare([one, recorded_run(tmp_path / "three", lambda loss: loss, rows=range(50, 60))])
    assert other["losses"][0]["note"] == "no row was held out by both runs"
    assert "three against one is not compared: no row was held out by both runs" in "\n".join(comparison_text(other))
    assert "no row was held out by both runs" in render(other)


def test_tasks_that_were_asked_in_training_are_compared(tmp_path):
    runs = []
    for name, right in (("one", 5), ("two", 18)):
        run = recorded_run(tmp_path / name, lambda loss: loss)
        entry = {"metric": "exact", "better": "higher", "settings": {"name": "next"}, "health": {"tuned": {"n": 20}}}
        result = json.loads((run / "result.json").read_text())
        (run / "result.json").write_text(json.dumps({**result, "tasks": {"next": entry}}))
        line = {"sample": 0, "origin": {"file": "a", "line": 1}, "asked": [], "reference": "x", "answer": "y"}
        lines = [
            {"step": 9, "model": model, "task": "next", "row": f"r{n}", "prompt": f"p{n}", **line, "score": float(good)}
            for n in range(20)
            for model, good in (("base", False), ("tuned", n < right))
        ]
        (run / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        runs.append(run)
    (task,) = [one for one in compare(runs)["tasks"] if one["task"] == "next"]
    assert (task["n"], task["base_score"], task["score"], task["verdict"]) == (20, 0.25, 0.9, "better")
    assert (len(task["won"]), len(task["lost"])) == (13, 0)
    assert task["health"]["base"] == {"n": 20}


# ------------------------------------------------------------------------------------ clusters and wordings


def test_rows_of_one_document_are_one_draw(rows, tmp_path):
    data = rows([{**row, "doc": n // 6} for n, row in enumerate(QUESTIONS)], "documents.jsonl")
    for name, skill in (("base", 60), ("tuned", 200)):
        summary = asked(data, skill, tmp_path / name, cluster="doc")
    assert (summary["n"], summary["answers"]) == (24, 24)
    alone = asked(data, 200, tmp_path / "alone")
    assert summary["mean"] == alone["mean"]
    assert summary["interval"] != alone["interval"]
    (one,) = compare([tmp_path / "base", tmp_path / "tuned"])["tasks"]
    assert (one["n"], one["answers"], one["test"]) == (4, 24, "Student's t")
    assert one["notes"] == ["24 answers to 4 clusters; answers to one cluster count as one draw"]
    with pytest.raises(RecipeError, match="cluster: doc and None"):
        compare([tmp_path / "base", tmp_path / "alone"])


class Fickle(Scripted):
    """Knows the answer only where it is asked in the words that it was taught."""

    def _answer(self, prompt, sample):
        words = prompt.content[-1].content
        bare = re.search(r"What comes after number \d+\?", words)[0]
        found = super()._answer(replace(prompt, content=(replace(prompt.content[-1], content=bare),)), sample)
        return found if words == bare else replace(found, text="I do not know.")


def test_the_spread_over_wordings_stands_beside_the_difference(data, tmp_path):
    summaries = {}
    for name, skill in (("base", 200), ("tuned", 240)):
        (summaries[name], *others) = evaluate(Fickle(skill), worded(errand(task(data)), 4), tmp_path / name)
        assert [one["format"] for one in others] == [2, 3, 4]
    spread = summaries["base"]["formats"]
    means = [one["mean"] for one in spread["scores"]]
    assert (spread["n"], spread["rows"], len(means)) == (4, 24, 4)
    assert means[0] == summaries["base"]["mean"] == spread["highest"]
    assert spread["lowest"] == 0.0
    assert spread["spread"] == spread["highest"] - spread["lowest"]
    assert spread["mean"] == pytest.approx(sum(means) / 4)
    assert spread["interval"][0] < spread["mean"] < spread["interval"][1]
    assert len({one["prompt"] for one in spread["scores"]}) == 4
    found = compare([tmp_path / "base", tmp_path / "tuned"])
    (one,) = found["tasks"]  # Other wordings are no tasks of their own.
    assert one["formats"] == {"base": spread, "other": summaries["tuned"]["formats"]}
    assert any("the wording of the prompt alone changes the score by up to" in note for note in one["notes"])
    text = "\n".join(comparison_text(found))
    assert "wordings      base: 4 wordings of 24 rows: lowest 0.0 %" in text
    assert "The same rows in other wordings" in render(found)
    (tmp_path / "tuned" / "next.json").unlink()
    with pytest.raises(RecipeError, match="nothing to compare"):
        compare([tmp_path / "base", tmp_path / "tuned"])


def test_wordings_are_asked_once_and_go_on(data, tmp_path):
    own, out = worded(errand(task(data)), 3), tmp_path / "out"
    killed = Fickle(200, fails=50)
    with pytest.raises(KeyboardInterrupt):
        evaluate(killed, own, out)
    assert len(killed.asked) == 48
    second = Fickle(200)
    (summary, *_) = evaluate(second, own, out)
    assert len(second.asked) == 24
    (at_once, *_) = evaluate(Fickle(200), own, tmp_path / "at-once")
    assert summary["formats"] == at_once["formats"]
    # Asked without other wordings, what they came to is still there, as long as the rows are the same.
    (again,) = evaluate(Fickle(200), own[:1], out)
    assert again["formats"] == summary["formats"]
    names = [{json.loads(line)["row"] for line in file.read_text().splitlines()} for file in out.glob("*.jsonl")]
    assert len(names) == 3
    assert names[0] == names[1] == names[2]


def test_a_run_without_scores_says_why(tmp_path):
    runs = [make_run(tmp_path / name) for name in ("one", "two")]
    for run in runs:
        (run / "run.json").write_text("{}")
        lines = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
        (run / "samples.jsonl").write_text("".join(json.dumps({**line, "correct": None}) + "\n" for line in lines))
    found = compare(runs)
    assert found["tasks"] == []
    assert any("were not scored (evaluate.score: none)" in note for note in found["notes"])
    assert any(line.startswith("held-out loss of one: ") for line in comparison_text(found))


def test_short_names_tell_folders_apart(tmp_path):
    assert labels([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert labels([tmp_path / "x" / "a", tmp_path / "y" / "a"]) == ["x/a", "y/a"]
    assert len(set(labels([tmp_path, tmp_path]))) == 2
