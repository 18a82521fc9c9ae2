"""Tasks asked before and after training: the same rows of both models, paired, in the words of `result.json`."""

from __future__ import annotations

import json

import pytest

from conftest import make_encoder
from tutelage.errors import DataError, RecipeError
from tutelage.evaluate.asking import Examined, chosen, compared, examine
from tutelage.evaluate.compare import paired_means
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate

ROWS = [{"q": f"Colour {n}?", "a": "red", "doc": n // 4} for n in range(40)]
TASK = {"name": "colours", "prompt": "{q}", "reference": "a", "scorer": {"kind": "exact"}, "max_new_tokens": 5}


@pytest.fixture(scope="module")
def model(tiny_model):
    from transformers import AutoTokenizer

    folder = str(tiny_model("llama"))
    forward = prove(load_model(locate(folder)), max_length=64)
    return forward, make_encoder(AutoTokenizer.from_pretrained(folder))


@pytest.fixture
def task_file(rows, tmp_path):
    def write(name="colours", **options):
        file = tmp_path / f"{name}.yaml"
        file.write_text(json.dumps({**TASK, "name": name, "data": str(rows(ROWS, f"{name}.jsonl")), **options}))
        return str(file)

    return write


def told(scores, name="colours", **more):
    """A task as a made-up model answered it."""
    health = {"hit_limit": False, "empty": False, "loops": False, "broken_fence": False, "invalid_json": None}
    lines = [
        {
            "row": f"r{n}",
            "sample": 0,
            "prompt": f"p{n}",
            "score": score,
            "tokens": 3,
            "hinted": False,
            "health": {**health, "hit_limit": score == 0},
            "cut_at_text": False,
            "parts": {},
            **{key: values[n] for key, values in more.items()},
        }
        for n, score in enumerate(scores)
    ]
    return Examined(name, "exact", "higher", {"name": name}, lines)


def test_a_loaded_model_is_asked_the_same_rows_each_time(model, task_file, monkeypatch):
    forward, encoder = model
    errands = chosen([task_file()])
    (first,) = examine(forward, encoder, [2], errands, 10, name="base")
    monkeypatch.setattr("tutelage.evaluate.asking.PORTION", 3)
    (again,) = examine(forward, encoder, [2], errands, 10, name="tuned")
    kept = [{**line, "logprob": None} for line in first.lines]
    assert kept == [{**line, "logprob": None} for line in again.lines]
    names = [row.name for row in errands[0].rows]
    assert {line["row"] for line in kept} == {row.name for row in errands[0].chosen(10)} != set(names[:10])
    (more,) = examine(forward, encoder, [2], errands, 20)
    assert {line["row"] for line in kept} < {line["row"] for line in more.lines}
    assert first.lines[0]["asked"][0]["content"].startswith("Colour ")
    found = compared([first], [again])["colours"]
    assert (found["verdict"], found["difference"], found["n"], found["tied"]) == ("no difference", 0.0, 10, 10)
    assert found["health"]["base"] == found["health"]["tuned"]
    assert found["health"]["base"]["n"] == 10
    assert Examined(**json.loads(json.dumps(first.as_json()))) == first


def test_tasks_that_weigh_options_are_asked_too(model, rows):
    forward, encoder = model
    values = [{"question": f"Which, in case {n}?", "choices": ["red", "a green one"], "answer": 0} for n in range(6)]
    (found,) = examine(forward, encoder, [2], chosen([f"multiple-choice={rows(values)}"]), 100)
    assert (found.task, found.metric, len(found.lines)) == ("multiple-choice", "likelihood", 6)
    entry = compared([found], [found])["multiple-choice"]
    assert entry["health"] == {"base": None, "tuned": None}
    assert entry["n"] == 6


def test_the_entry_is_the_paired_difference():
    base = [0.0] * 30 + [1.0] * 10
    tuned = [1.0] * 25 + [0.0] * 5 + [1.0] * 9 + [0.0]
    found = compared([told(base)], [told(tuned)])["colours"]
    expected = paired_means(base, tuned, confidence=0.95)
    assert found["interval"] == list(expected.interval)
    assert (found["base"], found["tuned"], found["verdict"]) == (0.25, pytest.approx(0.85), "better")
    assert (len(found["won"]), found["lost"], found["tied"]) == (25, ["r39"], 14)
    assert found["test"] == "McNemar"
    assert found["sentence"].startswith("colours: the tuned model is better: 25.0 % -> 85.0 %")
    assert found["health"]["base"]["stopped"] == 0.25
    assert found["health"]["tuned"]["stopped"] == pytest.approx(0.85)
    low, high = found["base_interval"]
    assert low < 0.25 < high
    assert compared([told([])], [told([])]) == {}


def test_rows_of_a_cluster_are_one_draw():
    base, tuned = [0.0] * 40, [float(n % 8 < 4) for n in range(40)]
    alone = compared([told(base)], [told(tuned)])["colours"]
    documents = [str(n // 4) for n in range(40)]
    found = compared([told(base, cluster=documents)], [told(tuned, cluster=documents)])["colours"]
    assert (alone["n"], found["n"]) == (40, 10)
    assert found["difference"] == alone["difference"]
    widths = [one["interval"][1] - one["interval"][0] for one in (alone, found)]
    assert widths[1] > 1.3 * widths[0]


def test_what_is_wrong_with_a_task_is_known_before_a_model_is(task_file, tmp_path, rows):
    assert [one.task.name for one in chosen([task_file("a"), task_file("b")])] == ["a", "b"]
    assert chosen(["a.yaml"], tmp_path)[0].task.name == "a"
    with pytest.raises(RecipeError, match="names no rows"):
        chosen(["gsm8k"])
    with pytest.raises(RecipeError, match="did you mean gsm8k"):
        chosen(["gsm8kk"])
    with pytest.raises(RecipeError, match="two tasks go by one name") as refused:
        chosen([task_file("a"), task_file("a")])
    assert refused.value.problems[0].where == "evaluate.tasks"
    with pytest.raises(DataError, match="no field `doc2`"):
        chosen([task_file("c", cluster="doc2")])
    assert chosen([task_file("d", cluster="doc")])[0].rows[5].asked.cluster == "1"
