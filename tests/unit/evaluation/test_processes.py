"""What is written of a row depends on the row, the model and the sampling: on no batch, order, number or process."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import threading
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import SimpleNamespace

import pytest
from answering import QUESTIONS, Leisurely, Scripted, task

from tutelage.errors import DataError, RecipeError, WorkerError
from tutelage.evaluation import crew, evaluate
from tutelage.evaluation.answers import Answers
from tutelage.evaluation.crew import dealt
from tutelage.evaluation.subject import Saved
from tutelage.generate.sampling import GREEDY, Sampling
from tutelage.runs import Run
from tutelage.screen import Silent
from tutelage.tasks.errand import errand, errands

WARM = Sampling(temperature=1.3, samples=2)
ROWS = [*QUESTIONS[:13], QUESTIONS[0]]  # One row stands there twice.


def written(file):
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def told(file):
    """Each answer, without what depends on the place of its row, and with the sum of floats apart."""
    lines = {(line["row"], line["sample"]): {**line, "origin": None} for line in written(file)}
    return {key: line.pop("logprob") for key, line in lines.items()}, lines


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_scores_do_not_depend_on_batch_order_repetition_or_processes(tiny_model, rows, tmp_path, sampling):
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    orders = {"straight": str(rows(ROWS, "straight.jsonl")), "shuffled": str(rows(shuffled, "shuffled.jsonl"))}
    values = [{"question": f"Which, in case {n}?", "choices": ["red", "a green one"], "answer": 0} for n in range(7)]
    options = errands(["multiple-choice"], [str(rows(values, "choices.jsonl"))])
    found, weighed = [], []
    for name, order, in_flight, processes in (
        ("one", "straight", 1, 1),
        ("three", "shuffled", 3, 1),
        ("eight", "straight", 8, 1),
        ("again", "straight", 8, 1),
        ("two processes", *(("straight", 1) if sampling is GREEDY else ("shuffled", 8)), 2),
    ):
        model = Saved(str(tiny_model("llama")), device="cpu", in_flight=in_flight)
        own = errand(task(orders[order], max_new_tokens=6, shots=2))
        (summary, rated) = evaluate(model, [own, *options], tmp_path / name, sampling, processes=processes)
        assert (summary["status"], summary["n"]) == ("done", 14)
        assert summary["model"]["device"] == "cpu"
        # Whoever asked them: the lines stand in the order of the rows.
        asked = [row.name for row in own.rows for _ in range(sampling.samples)]
        assert [line["row"] for line in written(tmp_path / name / "next.jsonl")] == asked
        found.append(told(tmp_path / name / "next.jsonl"))
        weighed.append((rated["mean"], [line["found"] for line in written(tmp_path / name / "multiple-choice.jsonl")]))
    logprobs, lines = found[0]
    assert len({line["answer"] for line in lines.values()}) > 3
    for other_logprobs, other in found[1:]:
        assert other == lines
        assert other_logprobs == pytest.approx(logprobs, rel=1e-5)
    assert [one[0] for one in weighed] == [weighed[0][0]] * len(weighed)
    assert [one[1] for one in weighed] == [weighed[0][1]] * len(weighed)
    if sampling is GREEDY:  # One row at a time, it is the same to the last bit.
        one, two = ((tmp_path / name / "next.jsonl").read_bytes() for name in ("one", "two processes"))
        assert one == two


class Killing(Silent):
    """Kills the first worker after ten answers."""

    def __init__(self):
        self.answers = 0

    @contextmanager
    def stage(self, name, total):
        def advance(done=1, note=""):
            self.answers += done
            if self.answers == 10:
                victim = min(multiprocessing.active_children(), key=lambda child: child.pid)
                self.victim = victim.pid
                os.kill(victim.pid, signal.SIGKILL)

        yield advance


def test_a_worker_that_dies_is_named_and_its_rows_are_asked_again(tiny_model, rows, tmp_path):
    own, out = errand(task(str(rows(QUESTIONS)), max_new_tokens=4)), tmp_path / "out"
    model = Leisurely(str(tiny_model("llama")), device="cpu")
    screen = Killing()
    with pytest.raises(WorkerError) as failed:
        evaluate(model, [own], out, processes=2, screen=screen)
    assert failed.value.code == "worker/lost"
    (problem,) = failed.value.problems
    assert "of 2 of the evaluation died" in problem.what
    assert (problem.where, problem.found) == (f"process {screen.victim}", "it was ended by SIGKILL")
    assert multiprocessing.active_children() == []
    kept = (out / "next.jsonl").read_text().splitlines()
    assert 4 <= len(kept) < 24
    assert json.loads((out / "next.json").read_text())["status"] == "unfinished"
    (summary,) = evaluate(Saved(model.model, device="cpu"), [own], out)
    assert (summary["status"], summary["n"]) == ("done", 24)
    evaluate(Saved(model.model, device="cpu"), [own], tmp_path / "at-once")
    assert told(out / "next.jsonl")[1] == told(tmp_path / "at-once" / "next.jsonl")[1]
    assert set(kept) <= set((out / "next.jsonl").read_text().splitlines())
    assert [line["row"] for line in written(out / "next.jsonl")] == [row.name for row in own.rows]


MADE = []


class Thread(threading.Thread):
    """A worker without a process of its own."""

    exitcode, pid = 0, None

    def __init__(self, target, args):
        channel, *rest = args
        # Who starts a process closes its own copy of the other end.
        super().__init__(target=target, args=(Connection(os.dup(channel.fileno())), *rest))
        MADE.append(self)


def test_what_a_worker_cannot_do_is_told_as_ever(tiny_model, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "SPAWN", SimpleNamespace(Process=Thread, Pipe=multiprocessing.Pipe))
    long = rows([*QUESTIONS[:3], {"q": "word " * 2000, "a": "1"}], "long.jsonl")
    model = Saved(str(tiny_model("llama")), device="cpu")
    with pytest.raises(DataError, match="positions") as refused:
        evaluate(model, [errand(task(long))], tmp_path / "out", processes=2)
    assert refused.value.problems[0].where == f"{long}:4"
    for worker in MADE:
        worker.join()


def test_only_a_model_on_this_machine_is_asked_by_several(rows, tmp_path):
    own = errand(task(str(rows(QUESTIONS))))
    with pytest.raises(RecipeError, match="an endpoint is asked by one process"):
        evaluate(Scripted(), [own], tmp_path / "out", processes=2)
    assert not (tmp_path / "out").exists()


def test_nothing_is_started_where_nothing_is_left(tiny_model, rows, tmp_path, monkeypatch):
    own = errand(task(str(rows(QUESTIONS[:5])), max_new_tokens=4))
    model = Saved(str(tiny_model("llama")), device="cpu")
    (summary,) = evaluate(model, [own], tmp_path / "out")
    monkeypatch.setattr(crew, "SPAWN", None)
    (again,) = evaluate(model, [own], tmp_path / "out", processes=4)
    assert again == summary


def test_lines_are_put_into_order_whatever_they_hold(tmp_path):
    answers = Answers(Run(tmp_path), "next")
    Run(tmp_path).create()
    texts = {"a": "one\u2028two", "b": "three\x85four\r\n", "c": "é"}
    given = [{"row": row, "sample": n, "prompt": "p", "answer": texts[row]} for row in "bca" for n in (1, 0)]
    answers.add(given)
    answers.arrange(["a", "b"])
    found = list(answers.lines())
    assert [(line["row"], line["sample"]) for line in found] == [(row, n) for row in "abc" for n in (0, 1)]
    assert all(line["answer"] == texts[line["row"]] for line in found)
    before = (tmp_path / "next.jsonl").stat().st_mtime_ns
    answers.arrange(["a", "b"])
    assert (tmp_path / "next.jsonl").stat().st_mtime_ns == before


def test_rows_are_dealt_evenly_and_whatever_their_order(rows):
    named = list(errand(task(str(rows(QUESTIONS)))).rows)
    shares = dealt(named, 5)
    assert sorted(map(len, shares)) == [4, 5, 5, 5, 5]
    assert sorted(row.name for share in shares for row in share) == sorted(row.name for row in named)
    turned = dealt(named[::-1], 5)
    assert [{row.name for row in share} for share in turned] == [{row.name for row in share} for share in shares]
    assert [len(share) for share in dealt(named[:2], 4)] == [1, 1, 0, 0]
