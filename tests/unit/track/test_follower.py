"""Each point arrives once, whatever breaks: the tracker, the follower, or the run itself."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter

import pytest
from filelock import FileLock, Timeout

from tutelage.runs import Run
from tutelage.track import follower as module
from tutelage.track.follower import Follower, stamp
from tutelage.track.note import Note


class Killed(BaseException):
    """As SIGKILL: nothing of the follower runs any more."""


class Server:
    """What a tracker holds, and the tracker that speaks to it; breaks as told."""

    def __init__(self, *, durable: bool, breaks=lambda where: None) -> None:
        self.durable = durable
        self.breaks = breaks
        self.remote = None
        self.points: Counter = Counter()
        self.statuses: list = []
        self.waiting: list = []
        self.opened = 0

    def open(self, name, told, remote):
        self.breaks("open")
        self.opened += 1
        self.waiting = []
        return self

    def held(self):
        self.breaks("held")
        held: dict = {}
        for name, step in self.points:
            held[name] = max(step, held.get(name, -1))
        return held

    def send(self, points):
        self.breaks("before sending")
        for point in points:
            self.waiting += [(name, point.step) for name in point.values]
        if self.durable:
            self.arrive(len(self.waiting))
        self.breaks("after sending")

    def close(self, status):
        self.breaks("close")
        self.arrive(len(self.waiting))
        self.statuses.append(status)

    def arrive(self, count):
        for _ in range(min(count, len(self.waiting))):
            self.points[self.waiting.pop(0)] += 1


@pytest.fixture
def run(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("model: {path: m}\noutput: run\n")
    sleeps = itertools.count()
    monkeypatch.setattr(module.time, "sleep", lambda seconds: next(sleeps) < 1000 or _never_ends())
    return Run(folder)


def _never_ends():
    raise Killed("a follower that never ends")


def metrics(run, steps, *, note="", mode="w"):
    with (run.folder / "metrics.jsonl").open(mode) as file:
        file.writelines(json.dumps({"step": step, "loss": 1 / step, "note": note}) + "\n" for step in steps)


def evaluations(run, steps):
    lines = (json.dumps({"step": step, "nll": 1.0, "tokens": 5}) + "\n" for step in steps)
    (run.folder / "evaluations.jsonl").write_text("".join(lines))


def serve(monkeypatch, server):
    monkeypatch.setattr(module, "open_tracker", server.open)
    return server


def test_what_is_new_is_sent_once(run, monkeypatch):
    server = serve(monkeypatch, Server(durable=True))
    metrics(run, range(1, 4))
    assert Follower(run, "t").follow()
    assert Follower(run, "t").follow()
    assert server.points == {("train/loss", step): 1 for step in (1, 2, 3)}
    assert server.opened == 1  # There was nothing to open it for.
    metrics(run, range(4, 6), mode="a")
    evaluations(run, [0, 5])
    run.write_json("result.json", {"status": "done", "steps": 5, "seconds": 1.0})
    assert Follower(run, "t").follow()
    assert {key for key in server.points if key[0].startswith("result")} == {("result/steps", 5), ("result/seconds", 5)}
    assert set(server.points.values()) == {1}
    assert len(server.points) == 5 + 4 + 2
    assert server.statuses == [None, "done"]
    note = Note.read(run, "t")
    assert (note.sent, note.status, note.error) == ({"train": 5, "heldout": 5, "result": 5}, "done", None)
    assert note.follower is None


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("seed", range(60))
def test_exactly_once_whatever_breaks(run, monkeypatch, durable, seed):
    """Errors and kills at random places, the journal cut back and written on, batches of a few points."""
    chance = random.Random(seed)
    monkeypatch.setattr(module, "AT_ONCE", 3)

    def breaks(where):
        if calm[0]:
            return
        kind = chance.random()
        if kind < 0.12:
            raise ConnectionError(where)
        if kind < 0.2:
            server.arrive(0 if server.durable else chance.randrange(99))  # W&B's process goes on for a moment.
            raise Killed

    calm = [False]
    server = serve(monkeypatch, Server(durable=durable, breaks=breaks))
    step, longest = 0, 0
    for episode in range(8):
        if chance.random() < 0.4 and step:  # The run is resumed from a checkpoint.
            step = chance.randrange(step)
            metrics(run, range(1, step + 1))
        grown = step + chance.randrange(1, 9)
        metrics(run, range(step + 1, grown + 1), note=str(episode), mode="a")
        step, longest = grown, max(longest, grown)
        evaluations(run, range(0, step + 1, 3))
        calm[0] = episode == 7
        if calm[0]:
            metrics(run, range(1, longest + 1), note="at last")
            run.write_json("result.json", {"status": "done", "steps": longest})
        try:
            done = Follower(run, "t").follow()
        except Killed:
            done = False
    assert done
    expected = {("train/loss", n) for n in range(1, longest + 1)} | {("result/steps", longest)}
    assert {key for key in server.points if key[0] in ("train/loss", "result/steps")} == expected
    assert set(server.points.values()) == {1}
    assert server.statuses[-1] == "done"


def test_a_tracker_that_never_answers_is_given_up(run, monkeypatch):
    tried = []

    def breaks(where):
        tried.append(where)
        raise ConnectionError("no route to tracker.example, key abcdef-123456")

    monkeypatch.setenv("SOME_API_KEY", "abcdef-123456")
    serve(monkeypatch, Server(durable=True, breaks=breaks))
    metrics(run, [1])
    assert not Follower(run, "t", lives=lambda: True, patience=30).follow()
    assert len(tried) == module.TRIES
    assert Note.read(run, "t").error == "ConnectionError: no route to tracker.example, key (not shown)"


def test_an_outage_is_sat_out_while_the_trainer_lives(run, monkeypatch):
    calls = []

    def breaks(where):
        calls.append(where)
        if 4 < len(calls) < 60:
            raise ConnectionError("outage")

    def look(seconds):
        if len(calls) == 4:
            metrics(run, [2], mode="a")
        if len(calls) > 200:
            _never_ends()
        if Note.read(run, "t").sent == {"train": 2}:
            run.write_json("result.json", {"status": "stopped"})

    server = serve(monkeypatch, Server(durable=True, breaks=breaks))
    monkeypatch.setattr(module.time, "sleep", look)
    metrics(run, [1])
    assert Follower(run, "t", lives=lambda: True, patience=30).follow()
    assert server.points == {("train/loss", 1): 1, ("train/loss", 2): 1}
    assert server.statuses == ["stopped"]


def test_an_earlier_end_is_not_the_end_of_a_resumed_run(run, monkeypatch):
    server = serve(monkeypatch, Server(durable=True))
    metrics(run, [1])
    run.write_json("result.json", {"status": "failed", "steps": 1})
    looks = []

    def look(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            metrics(run, [2], mode="a")
            run.write_json("result.json", {"status": "done", "steps": 2})

    monkeypatch.setattr(module.time, "sleep", look)
    assert Follower(run, "t", lives=lambda: True, patience=30, earlier=stamp(run)).follow()
    assert len(looks) == 3
    assert server.statuses == ["done"]
    assert server.points[("train/loss", 2)] == 1


def test_a_follower_ends_some_time_after_its_trainer(run, monkeypatch):
    server = serve(monkeypatch, Server(durable=True))
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    metrics(run, [1])
    assert Follower(run, "t", lives=lambda: now[0] < 5, patience=30, _news=0.0).follow()
    assert now[0] == pytest.approx(30, abs=1)
    assert server.points == {("train/loss", 1): 1}
    assert server.statuses == [None]  # Nobody knows how the run ended.


def test_one_follower_at_a_time(run, monkeypatch):
    monkeypatch.undo()  # The lock is waited for.
    (run.folder / "track").mkdir()
    with FileLock(run.folder / "track" / "t.lock"), pytest.raises(Timeout):
        Follower(run, "t").follow(wait=0.05)
