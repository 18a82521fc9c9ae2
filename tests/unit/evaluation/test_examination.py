"""Evaluation row by row: whatever order, company and number of tries, each row is written once and alike."""

from __future__ import annotations

import json
import random
import shutil

import pytest
from answering import QUESTIONS, Scripted, asked, task

from tutelage.errors import DataError, MachineError, ModelError, Problem, RecipeError
from tutelage.evaluation import crew, evaluate
from tutelage.evaluation.subject import Saved
from tutelage.generate.generation import Generation
from tutelage.generate.sampling import GREEDY, Sampling
from tutelage.screen import Silent
from tutelage.tasks.errand import errand, errands
from tutelage.tasks.resident import Resident

WARM = Sampling(temperature=1.3, samples=2)


@pytest.fixture
def data(rows):
    return rows(QUESTIONS, "questions.jsonl")


def lines(folder, stem="next"):
    return [json.loads(line) for line in (folder / f"{stem}.jsonl").read_text("utf-8").splitlines()]


def told(folder, stem="next"):
    """What is written about each answer, whatever the order and the place of its row."""
    return {(line["row"], line["sample"]): {**line, "origin": None} for line in lines(folder, stem)}


# --------------------------------------------------------------------------------------------- one row, one line


def test_a_line_holds_what_its_score_rests_on(data, tmp_path):
    summary = asked(data, 256, tmp_path / "out")
    first = lines(tmp_path / "out")[0]
    assert first["answer"] == "It is 1."
    assert first["found"] == first["reference"] == "1"
    assert (first["score"], first["stopped"], first["cut_at_text"]) == (1.0, True, False)
    assert first["tokens"] == len("It is 1.") + 1
    assert first["logprob"] == -0.5 * first["tokens"]
    assert first["origin"] == {"file": str(data), "line": 1}
    assert first["asked"] == [{"role": "user", "content": "What comes after number 0?"}]
    assert summary["mean"] == 1.0
    assert summary["interval"][0] == pytest.approx(0.862, abs=1e-3)  # Wilson's, for 24 of 24.
    assert summary["interval"][1] == 1.0
    assert (summary["n"], summary["status"], summary["unanswered"]) == (24, "done", 0)
    assert json.loads((tmp_path / "out" / "next.json").read_text()) == summary
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["next.json", "next.jsonl"]


@pytest.fixture(scope="module")
def saved(tiny_model):
    model = Saved(str(tiny_model("llama")), device="cpu")
    assert model.writer().encoder.template is not None
    return model


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_lines_do_not_depend_on_company_or_order(saved, rows, tmp_path, sampling, monkeypatch):
    values = [*QUESTIONS[:10], QUESTIONS[0]]  # One row stands there twice.
    shuffled = random.Random(1).sample(values, len(values))
    found = []
    for name, order, in_flight, portion in (
        ("alone", values, 1, 3),
        ("three", shuffled, 3, 64),
        ("many", values, 32, 64),
        ("again", shuffled, 32, 5),
    ):
        monkeypatch.setattr(crew, "FIRST", portion)
        saved.writer().in_flight = in_flight
        own = errand(task(rows(order, f"{name}.jsonl"), max_new_tokens=6, shots=2))
        evaluate(saved, [own], tmp_path / name, sampling)
        found.append(told(tmp_path / name))
    assert len(found[0]) == 11 * sampling.samples
    assert len({line["answer"] for line in found[0].values()}) > 3
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for key, line in found[0].items():
            # Sums in another order differ in the last bits; everything else is the same.
            assert other[key].pop("logprob") == pytest.approx(line["logprob"], rel=1e-5)
            assert other[key] == {name: value for name, value in line.items() if name != "logprob"}


def test_options_are_rated_after_the_prompt(saved, rows, tmp_path):
    values = [{"question": f"Which, in case {n}?", "choices": ["red", "a green one"], "answer": 0} for n in range(4)]
    own = errands(["multiple-choice"], [str(rows(values))])
    (summary,) = evaluate(saved, own, tmp_path / "out")
    found = lines(tmp_path / "out", "multiple-choice")
    tokenizer = saved.writer().encoder.tokenizer
    assert saved.continuations(own[0].rows[0].asked)[0] == tuple(tokenizer.encode_text("red"))
    plain = Resident(saved.writer().forward, saved.writer().encoder, stop_ids=[], plain=True)
    assert plain.continuations(own[0].rows[0].asked)[0] == tuple(tokenizer.encode_text(" red"))
    assert summary["health"] is None
    assert summary["mean"] == sum(line["score"] for line in found) / 4
    for line in found:
        assert line["answer"] == max(line["parts"], key=line["parts"].get)
        assert line["score"] == float(line["answer"] == "red")


def test_what_an_endpoint_serves_cannot_be_rated(rows, tmp_path):
    from tutelage.evaluation.subject import Served

    own = errands(["multiple-choice"], [str(rows([{"question": "q", "choices": ["a", "b"], "answer": 0}]))])
    with pytest.raises(RecipeError, match="by likelihood"):
        evaluate(Served("http://127.0.0.1:1/v1", "m"), own, tmp_path / "out")


# --------------------------------------------------------------------------------------------------- broken off


def test_what_is_answered_is_not_asked_again(data, tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "FIRST", 4)
    own, out = errand(task(data)), tmp_path / "out"
    killed = Scripted(fails=12)
    with pytest.raises(KeyboardInterrupt):
        evaluate(killed, [own], out)
    assert len(lines(out)) == len(killed.asked) == 12
    assert json.loads((out / "next.json").read_text())["status"] == "unfinished"
    # A process that dies while it writes leaves a part of a line.
    whole = (out / "next.jsonl").read_bytes()
    (out / "next.jsonl").write_bytes(whole[:-30])
    second = Scripted()
    (summary,) = evaluate(second, [own], out)
    assert len(second.asked) == 13
    assert set(second.asked).isdisjoint(killed.asked[:11])
    assert (summary["status"], summary["n"]) == ("done", 24)
    asked(data, 128, tmp_path / "at-once")
    assert told(out) == told(tmp_path / "at-once")
    third = Scripted()
    (again,) = evaluate(third, [own], out)
    assert third.asked == []
    assert again == summary


def test_a_row_of_which_one_sample_is_missing_is_asked_whole(data, tmp_path):
    own, out = errand(task(data)), tmp_path / "out"
    evaluate(Scripted(), [own], out, WARM)
    kept = (out / "next.jsonl").read_text().splitlines(keepends=True)
    assert len(kept) == 48
    (out / "next.jsonl").write_text("".join(kept[:-1]))
    second = Scripted()
    (summary,) = evaluate(second, [own], out, WARM)
    assert len(second.asked) == 1
    assert (summary["n"], summary["answers"]) == (24, 48)
    assert [(line["row"], line["sample"]) for line in lines(out)].count((second.asked[0], 0)) == 1


def test_a_higher_limit_only_adds_rows(data, tmp_path):
    own, out = errand(task(data)), tmp_path / "out"
    few, more = Scripted(), Scripted()
    evaluate(few, [own], out, limit=5)
    (summary,) = evaluate(more, [own], out, limit=9)
    assert (len(few.asked), len(more.asked), summary["n"]) == (5, 4, 9)
    assert {row.name for row in own.chosen(9)} == {*few.asked, *more.asked}


def test_a_lower_limit_says_that_all_answers_are_counted(data, tmp_path):
    own, out = errand(task(data)), tmp_path / "out"
    evaluate(Scripted(), [own], out)
    said, screen = [], Silent()
    screen.say = said.append
    (summary,) = evaluate(Scripted(), [own], out, limit=5, screen=screen)
    more = "19 more rows are answered in the folder than are asked for now; all are counted"
    assert (summary["asked"], summary["n"], summary["note"]) == (24, 24, more)
    assert f"note    next: {more}" in said
    (summary,) = evaluate(Scripted(), [own], out)
    assert (summary["asked"], summary["note"]) == (24, "")


def test_a_process_killed_before_its_summary_does_not_hide_what_answered(data, tmp_path):
    own, out = errand(task(data)), tmp_path / "out"
    (whole,) = evaluate(Scripted(), [own], out)
    left = {**json.loads((out / "next.json").read_text()), "status": "unfinished", "model": {}}
    (out / "next.json").write_text(json.dumps(left))
    (summary,) = evaluate(Scripted(), [own], out)
    assert summary["model"] == whole["model"] == {"asked_as": "chat"}
    assert summary["status"] == "done"


def test_a_damaged_line_is_named(data, tmp_path):
    own, out = errand(task(data)), tmp_path / "out"
    evaluate(Scripted(), [own], out)
    kept = (out / "next.jsonl").read_text().splitlines(keepends=True)
    (out / "next.jsonl").write_text("".join([*kept[:2], "{]\n", *kept[3:]]))
    with pytest.raises(DataError, match=r"next\.jsonl:3") as refused:
        evaluate(Scripted(), [own], out)
    assert refused.value.code == "data/bad-json"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sampling": Sampling(seed=3)}, "sampling.seed: 0 there, 3 now"),
        ({"skill": 7}, "model.skill: 128 there, 7 now"),
        ({"task": {"version": 2}}, "task.version: 1 there, 2 now"),
        ({"task": {"prompt": "Please: {q}"}}, "task.wording"),
        ({"rows": QUESTIONS[5:]}, "5 answers to rows that are not among those asked now"),
        ({"task": {"shots": 1}}, "task.shots: 0 there, 1 now"),
    ],
    ids=["sampling", "model", "version", "wording", "rows", "shots"],
)
def test_other_settings_are_never_mixed(data, rows, tmp_path, change, said):
    evaluate(Scripted(), [errand(task(data))], tmp_path / "out")
    before = told(tmp_path / "out")
    other = task(rows(change["rows"]) if "rows" in change else data, **change.get("task", {}))
    model = Scripted(change.get("skill", 128))
    with pytest.raises(RecipeError) as refused:
        evaluate(model, [errand(other)], tmp_path / "out", change.get("sampling", GREEDY))
    assert refused.value.code == "usage/other-settings"
    assert said in str(refused.value)
    assert model.asked == []
    assert told(tmp_path / "out") == before


def test_other_shots_for_a_row_are_other_words(data, rows, tmp_path):
    pools = [rows([{"q": f"{word} {n}?", "a": n} for n in range(3)], f"{word}.jsonl") for word in ("First", "Other")]
    for place, pool in enumerate(pools):
        own = errand(task(data, shots=1, shots_from=str(pool)))
        if place == 0:
            evaluate(Scripted(), [own], tmp_path / "out")
            continue
        with pytest.raises(RecipeError, match="24 answers to rows that were asked in other words"):
            evaluate(Scripted(), [own], tmp_path / "out")


def test_answers_without_their_settings_are_left_alone(data, tmp_path):
    own, out = errand(task(data)), tmp_path / "out"
    evaluate(Scripted(), [own], out)
    (out / "next.json").unlink()
    with pytest.raises(RecipeError, match="not the settings"):
        evaluate(Scripted(), [own], out)
    (out / "next.json").write_text('{"mine": 1}')
    with pytest.raises(RecipeError) as refused:
        evaluate(Scripted(), [own], out)
    assert refused.value.code == "usage/output-exists"
    (out / "next.json").write_text("{")
    with pytest.raises(ModelError):
        evaluate(Scripted(), [own], out)


def test_results_do_not_go_into_a_run(data, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RecipeError, match="holds a run"):
        evaluate(Scripted(), [errand(task(data))], tmp_path)


# ----------------------------------------------------------------------------------------- what cannot be done


class Refusing(Scripted):
    """Its endpoint does not answer one question, and withholds another answer."""

    def write(self, prompts, sampling, **options):
        found = super().write(prompts, sampling, **options)
        down = Problem("machine/endpoint-failed", "the endpoint did not answer", where="http://here")
        kept = Problem("machine/endpoint-refused", "the endpoint's filter withheld the answer")
        return [Generation((), False, problem=down), Generation((), False, text="", problem=kept), *found[2:]]


def test_rows_without_an_answer_are_asked_again(data, tmp_path):
    own, out = errand(task(data)), tmp_path / "out"
    with pytest.raises(MachineError, match="1 rows were not answered") as failed:
        evaluate(Refusing(256), [own], out)
    assert failed.value.code == "machine/endpoint-failed"
    summary = json.loads((out / "next.json").read_text())
    assert (summary["status"], summary["n"], summary["unanswered"]) == ("unfinished", 23, 1)
    (withheld,) = [line for line in lines(out) if line["score"] == 0]
    assert withheld["why"] == "the endpoint's filter withheld the answer"
    second = Scripted(256)
    (summary,) = evaluate(second, [own], out)
    assert (len(second.asked), summary["status"], summary["n"]) == (1, "done", 24)


def test_a_scorer_that_cannot_work_is_found_before_anything_is_asked(data, tmp_path, monkeypatch):
    own = errand(task(data))
    missing = MachineError(Problem("machine/missing-package", "not there"))

    def refuse(*_):
        raise missing

    monkeypatch.setattr(type(own.task.scorer), "mark", refuse)
    model = Scripted()
    with pytest.raises(MachineError) as failed:
        evaluate(model, [own], tmp_path / "out")
    assert failed.value is missing
    assert model.asked == []
    assert not (tmp_path / "out").exists()


def test_a_prompt_that_is_too_long_is_named_by_its_place(saved, rows, tmp_path):
    long = rows([*QUESTIONS[:3], {"q": "word " * 2000, "a": "1"}], "long.jsonl")
    with pytest.raises(DataError, match="positions") as refused:
        evaluate(saved, [errand(task(long))], tmp_path / "out")
    assert refused.value.problems[0].where == f"{long}:4"


def test_a_reference_inside_the_prompt_is_told(rows, tmp_path):
    data = rows([{"q": "The capital of France is Paris, is it not 1?", "a": "is Paris"}, *QUESTIONS[:3]])
    said = []
    screen = Silent()
    screen.say = said.append
    (summary,) = evaluate(Scripted(), [errand(task(data, scorer={"kind": "exact"}))], tmp_path / "out", screen=screen)
    assert said == [f"note    next: in 1 of 4 rows the prompt holds the reference answer: {data}:1"]
    assert summary["answer_in_prompt"] == 1
    assert [line["hinted"] for line in lines(tmp_path / "out")] == [True, False, False, False]


def test_the_model_itself_is_known_by_its_files(tmp_path, tiny_model):
    one = Saved(str(shutil.copytree(tiny_model("llama"), tmp_path / "runs" / "one" / "model")))
    assert one.name == Saved(str(tmp_path / "runs" / "one")).name == "one"
    assert one.digest == Saved(str(tmp_path / "runs" / "one")).digest == Saved(str(tiny_model("llama"))).digest
    for file in ("tokenizer.json", "generation_config.json", "model.safetensors"):
        other = shutil.copytree(tiny_model("llama"), tmp_path / file)
        before = (other / file).read_bytes()
        (other / file).write_bytes(before[:-1] + bytes([before[-1] ^ 1]) if file.endswith("tensors") else before + b" ")
        assert Saved(str(other)).digest != one.digest, file


def test_tasks_and_rows_that_do_not_fit_are_refused(data, rows, tmp_path):
    with pytest.raises(RecipeError, match="no task is named"):
        errands([])
    with pytest.raises(RecipeError, match="there is no task"):
        errands(["gsm8kk"])
    with pytest.raises(RecipeError, match="names no rows"):
        errands(["gsm8k"])
    with pytest.raises(RecipeError, match="not clear which task") as refused:
        errands(["gsm8k,json"], [str(data)])
    assert f"--data gsm8k={data}" in str(refused.value)
    with pytest.raises(RecipeError, match="go by one name"):
        errands(["json", "json"], [str(data)])
    choices = rows([{"question": "q", "choices": ["a", " "], "answer": 0}], "c.jsonl")
    with pytest.raises(DataError, match="option that says nothing"):
        errands(["multiple-choice"], [str(choices)])
    made = rows([{"prompt": "Say {", "answer": "{}"}], "j.jsonl")
    taken = errands(["json,letter"], [f"json={made}", str(choices)])
    assert [one.data for one in taken] == [str(made), str(choices)]
