"""A sweep with runs that are made up: who goes on, what is refused, what is tried again, what is said."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from madeuprun import finish, losses, measure

from tinyruns import Listening, demonstrations, recipe, write_recipe, write_rows
from tutelage.errors import DivergedError, RecipeError, StoppedError
from tutelage.runs import Run
from tutelage.screen import Silent
from tutelage.signals import SIGNALS, StopRequested
from tutelage.sweep import Sweep, process
from tutelage.sweep.field import trials as field_of_runs
from tutelage.sweep.halving import Rung
from tutelage.sweep.process import run_all
from tutelage.sweep.standing import Mark, gap
from tutelage.sweep.table import Entry
from tutelage.sweep.trial import Trial


@dataclass
class Job:
    """Over at once."""

    code: int
    error: str = ""
    asked: int = 0

    def poll(self) -> int | None:
        return self.code

    def stop(self) -> None:
        self.asked += 1

    def said(self) -> str:
        return self.error


@dataclass
class Track:
    """Begins made-up runs, and keeps who was asked to go how far."""

    begun: list[tuple[str, int]] = field(default_factory=list)
    broken: dict[str, tuple[int, str]] = field(default_factory=dict)
    """By learning rate: how a run ends."""
    noise: float = 0.02
    seeds_differ: float = 0.0

    def __call__(self, trial: Trial, step: int) -> Job:
        rate = trial.overrides[0].partition("=")[2]
        self.begun.append((rate, step))
        if rate in self.broken:
            return Job(*self.broken[rate])
        trial.folder.mkdir(parents=True, exist_ok=True)
        noise = self.noise
        if not (trial.folder / "heldout.jsonl").exists():
            measure(trial.folder, 0, [20.0] * 12, "base")
        offset = self.seeds_differ * (-1) ** trial.seed
        sums = [loss + offset for loss in losses(float(rate), step, trial.seed, noise=noise)]
        (trial.folder / "metrics.jsonl").write_text(json.dumps({"step": step}) + "\n")
        if step < trial.steps:
            measure(trial.folder, step, sums)
            return Job(75)
        finish(trial.folder, step, sums)
        return Job(0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOOK", 0.0)


@pytest.fixture
def file(tmp_path: Path, tiny_model: Callable[..., Path]) -> Path:
    rows = write_rows(tmp_path / "rows.jsonl", demonstrations())
    return write_recipe(
        tmp_path / "r.yaml", recipe(tiny_model(), rows, tmp_path / "runs" / "orders", train={"steps": 9})
    )


RATES = "train.learning_rate=1e-2,1e-3,1e-4,1e-5"


def test_the_better_part_goes_on_and_the_best_is_named(file, tmp_path):
    track, said = Track(), []
    sweep = Sweep(file, [RATES], halving=2, start=track, screen=Listening(said))
    found = sweep.run()
    # 9 steps with halves: to 2 (a quarter, rounded), 4, 9; half of four, then of two.
    assert track.begun == [
        *[(rate, 2) for rate in ("1e-2", "1e-3", "1e-4", "1e-5")],
        ("1e-3", 4),
        (track.begun[5][0], 4),
        ("1e-3", 9),
    ]
    assert found["sentence"].startswith("learning rate 1e-3 is best: held-out loss ")
    rows = {row["varied"]["train.learning_rate"]: row for row in found["settings"]}
    assert [row["status"] for row in found["settings"]] == ["done", "left behind", "left behind", "left behind"]
    assert [rows[rate]["step"] for rate in ("1e-3", "1e-5")] == [9, 2]
    worst = rows["1e-5"]["against_best"]
    # Compared with what the best one was at step 2, not with what it became.
    best, other = (sum(losses(rate, 2)) / 120 for rate in (1e-3, 1e-5))
    assert worst["best_nll"] == pytest.approx(best)
    assert worst["difference"] == pytest.approx(other - best)
    assert (worst["best_step"], worst["rows"], worst["told"]) == (2, 12, True)
    low, high = worst["interval"]
    assert low < other - best < high
    folder = tmp_path / "runs" / "sweep-orders"
    assert json.loads((folder / "sweep.json").read_text()) == json.loads(json.dumps(found))
    page = (folder / "sweep.html").read_text()
    assert found["sentence"] in page
    assert "<script" not in page
    assert sum(line.startswith("behind") for line in said) == 3


def test_what_cannot_be_told_is_said_with_the_rows_that_would(file):
    found = Sweep(file, ["train.learning_rate=1e-3,9.9e-4"], start=Track(noise=1.0)).run()
    other = found["settings"][1]["against_best"]
    assert not other["told"]
    assert other["interval"][0] < 0 < other["interval"][1]
    assert "it cannot be told from learning rate" in found["sentence"]
    assert "with 12 held-out rows" in found["sentence"]
    assert other["rows_needed"] > 12
    assert not any("that was tried" in note for note in found["notes"])
    assert f"about {other['rows_needed']:,} rows would tell it" in found["sentence"]


def test_a_difference_that_seeds_alone_make_is_not_told(file):
    """Every row says the same, so that rows alone would tell it; seeds differ by more."""
    rates = ["train.learning_rate=1e-3,5e-4"]
    alone = Sweep(file, rates, start=Track(noise=0.001), folder=file.with_name("a")).run()
    assert alone["settings"][1]["against_best"]["told"]
    track = Track(noise=0.001, seeds_differ=2.0)
    found = Sweep(file, rates, start=track, seeds=2, folder=file.with_name("b")).run()
    best, other = found["settings"]
    assert len(best["seeds"]) == len(other["seeds"]) == 2
    assert best["variance_over_seeds"] == pytest.approx((0.4**2) / 2, rel=0.05)  # seeds 0.4 nats per token apart
    assert not other["against_best"]["told"]
    assert other["against_best"]["chance_by_seeds"] > 0.5
    assert "more seeds would tell" in found["sentence"]
    assert len(track.begun) == 4


def test_a_run_that_fails_stops_no_other_and_is_not_tried_again(file):
    error = "error[train/diverged]: the loss is <script>not finite\n  where step 3"
    track, said = Track(broken={"1e-2": (6, error), "1e-4": (5, "error[machine/disk-full]: the disk is full")}), []
    found = Sweep(file, [RATES], halving=None, start=track, screen=Listening(said)).run()
    failed = {row["varied"]["train.learning_rate"]: row["error"] for row in found["settings"] if row["error"]}
    assert failed["1e-2"] == error
    assert set(failed) == {"1e-2", "1e-4"}
    assert "1e-3 is best" in found["sentence"]
    assert "Failed: learning rate 1e-2 and learning rate 1e-4." in found["notes"]
    assert "failed  learning rate 1e-2: error[train/diverged]: the loss is <script>not finite" in said
    page = (file.parent / "runs" / "sweep-orders" / "sweep.html").read_text()
    assert "&lt;script&gt;not finite" in page
    assert "<script" not in page
    again = Track()
    found = Sweep(file, [RATES], halving=None, start=again).run()
    assert again.begun == [("1e-4", 9)]  # There may be room now; numbers diverge again.
    assert [row["status"] for row in found["settings"]] == ["done", "done", "done", "failed"]


def test_where_every_run_fails_the_first_error_is_the_sweeps(file):
    broken = {rate: (6, "error[train/diverged]: the loss is not finite") for rate in ("1e-2", "1e-3")}
    with pytest.raises(DivergedError) as refused:
        Sweep(file, ["train.learning_rate=1e-2,1e-3"], start=Track(broken=broken)).run()
    assert "every run of the sweep failed" in str(refused.value)
    table = json.loads((file.parent / "runs" / "sweep-orders" / "sweep.json").read_text())
    assert [row["status"] for row in table["settings"]] == ["failed", "failed"]


def test_a_loss_that_is_not_finite_does_not_win(file):
    class Nan(Track):
        def __call__(self, trial: Trial, step: int) -> Job:
            job = super().__call__(trial, step)
            if trial.overrides[0].endswith("1e-3"):
                text = (trial.folder / "heldout.jsonl").read_text().splitlines()
                line = json.loads(text[-1])
                line["sums"][3] = None
                (trial.folder / "heldout.jsonl").write_text("\n".join([*text[:-1], json.dumps(line)]) + "\n")
            return job

    found = Sweep(file, ["train.learning_rate=1e-3,1e-4"], start=Nan()).run()
    assert "1e-4 is best" in found["sentence"]
    assert found["settings"][1]["error"] == "its held-out loss is not finite"


def test_a_run_that_ends_before_its_last_step_is_taken_as_it_ended(file):
    """As with `evaluate.patience`: what it gave is its result, whatever place is compared."""

    class Early(Track):
        def __call__(self, trial: Trial, step: int) -> Job:
            self.begun.append((trial.overrides[0], step))
            measure(trial.folder, 2, losses(1e-3, 2))
            finish(trial.folder, 2, losses(1e-3, 50))
            return Job(0)

    track = Early()
    found = Sweep(file, ["train.learning_rate=1e-3,1e-4,1e-5"], halving=3, start=track).run()
    assert len(track.begun) == 3
    assert found["settings"][0]["nll"] == pytest.approx(sum(losses(1e-3, 50)) / 120)


def test_the_same_command_goes_on_and_another_is_refused(file):
    class Stops(Track):
        def __call__(self, trial: Trial, step: int) -> Job:
            if len(self.begun) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                self.job = Job(75)
                return self.job
            return super().__call__(trial, step)

    SIGNALS.install()
    try:
        stops = Stops()
        with pytest.raises(StoppedError, match="the same command goes on"):
            Sweep(file, [RATES], halving=None, start=stops).run()
    finally:
        SIGNALS.remove()
    assert len(stops.begun) == 2
    folder = file.parent / "runs" / "sweep-orders"
    assert json.loads((folder / "sweep.json").read_text())["status"] == "stopped"
    assert not (folder / "sweep.html").exists()
    with pytest.raises(RecipeError, match="halving") as refused:
        Sweep(file, [RATES], halving=3)
    assert refused.value.code == "recipe/changed"
    with pytest.raises(RecipeError, match="arguments"):
        Sweep(file, [RATES + ",1e-6"], halving=None)
    kept = file.read_text()
    file.write_text(kept.replace('"steps": 9', '"steps": 12'))
    with pytest.raises(RecipeError, match=r"train\.steps") as refused:
        Sweep(file, [RATES], halving=None)
    assert "9 before, 12 now" in str(refused.value)
    file.write_text(kept)
    rest = Track()
    found = Sweep(file, [RATES], halving=None, start=rest, at_once=2).run()
    assert [rate for rate, _ in rest.begun] == ["1e-4", "1e-5"]
    assert found["status"] == "done"
    done = Track()
    assert Sweep(file, [RATES], halving=None, start=done).run() == found
    assert done.begun == []


def test_a_folder_that_holds_something_else_is_left_alone(file, tmp_path):
    other = tmp_path / "full"
    other.mkdir()
    (other / "thesis.txt").write_text("x")
    with pytest.raises(RecipeError) as refused:
        Sweep(file, [RATES], other)
    assert refused.value.code == "recipe/run-exists"
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


def test_without_held_out_rows_or_with_other_ones_there_is_nothing_to_choose_by(file):
    track = Track()
    with pytest.raises(RecipeError, match="no rows are held out"):
        Sweep(file, ["train.learning_rate=1e-3,1e-4", "data.heldout=0", "evaluate.score=none"], start=track).run()
    with pytest.raises(RecipeError, match=r"budget\.time"):
        Sweep(file, ["train.learning_rate=1e-3,1e-4", "budget.time=1h"], start=track).run()
    with pytest.raises(RecipeError, match="same rows"):
        Sweep(file, ["data.heldout=0.25,0.5"], start=track).run()
    assert track.begun == []


def test_a_winner_at_the_edge_and_a_winner_no_better_than_the_base_are_said(file):
    class Bad(Track):
        def __call__(self, trial: Trial, step: int) -> Job:
            measure(trial.folder, 0, [1.0 + row / 10 for row in range(12)], "base")
            return super().__call__(trial, step)

    found = Sweep(file, ["train.learning_rate=1e-3,1e-4,1e-5"], halving=None, start=Bad()).run()
    assert any("worse than the model before training" in note for note in found["notes"])
    assert "1e-3 is the largest train.learning_rate that was tried: larger ones may be better still." in found["notes"]


def test_seeds_of_one_setting_say_how_far_they_are_apart(file):
    found = Sweep(file, ["train.learning_rate=1e-3"], seeds=3, start=Track(seeds_differ=1.0)).run()
    sd = found["settings"][0]["variance_over_seeds"] ** 0.5
    assert f"{sd:.4f} apart (standard deviation over 3 seeds)" in found["sentence"]
    assert "best" not in found["sentence"]


def test_a_signal_between_two_runs_says_how_to_go_on(file, monkeypatch):
    def measured(entry: Entry, rung: Rung) -> None:
        raise StopRequested("SIGTERM")

    monkeypatch.setattr(Entry, "measure", measured)
    with pytest.raises(StoppedError, match=r"SIGTERM.*\n.*the same command goes on"):
        Sweep(file, [RATES], start=Track()).run()


def test_a_tiny_difference_is_not_counted_up_to(file):
    """The rows that would tell it are worked out, not tried one by one."""
    n = 400
    rng = np.random.default_rng(0)
    names = tuple((f"row {row}", 0) for row in range(n))
    one = rng.normal(20, 1, n)
    other = one + rng.normal(0, 1, n)
    other += 0.003 - (other - one).mean()
    best, second = (Mark(names, names, sums, np.full(n, 10.0), (1.0,)) for sums in (one, other))
    began = time.monotonic()
    found = gap(best, second, confidence=0.95)
    assert time.monotonic() - began < 5
    assert found.needed == pytest.approx((2.8016 / 0.003) ** 2, rel=0.15)
    third = Mark(names, names, other - 0.0029999, np.full(n, 10.0), (1.0,))
    assert gap(best, third, confidence=0.95).needed is None


def test_settings_are_paired_by_rows_and_not_by_their_order():
    names = tuple((f"row {row}", 0) for row in range(6))
    sums = np.arange(6.0) + 1
    one = Mark(names, names, sums, np.ones(6), (1.0,))
    order = [3, 1, 5, 0, 2, 4]
    other = Mark(tuple(names[at] for at in order), names, sums[order] + 0.5, np.ones(6), (1.0,))
    assert gap(one, other, confidence=0.95).rows.difference == pytest.approx(0.5)
    conversation = Mark(names, (("f", 1),) * 3 + (("f", 2),) * 3, sums, np.ones(6), (1.0,))
    assert gap(conversation, other, confidence=0.95).rows.n == 2
    foreign = Mark(tuple((f"other {row}", 0) for row in range(6)), names, sums, np.ones(6), (1.0,))
    assert gap(one, foreign, confidence=0.95) is None
    heavier = Mark(names, names, sums, np.array([1, 1, 1, 1, 1, 2.0]), (1.0,))
    assert gap(one, heavier, confidence=0.95).rows.n == 5


def test_a_run_that_another_process_works_on_is_waited_for(file):
    """A sweep that was killed leaves a process that goes on by itself."""
    sweep, track, said = Sweep(file, ["train.learning_rate=1e-3,1e-4"]), Track(), []
    runs = field_of_runs(sweep.settings, file.parent / "other", seeds=1, screen=Silent())
    held = Run(runs[0].folder)
    with held.locked():
        held.claim()
        (held.folder / "metrics.jsonl").touch()  # A folder that held nothing would be removed as the lock is let go.
        thread = threading.Thread(
            target=run_all,
            args=([(run, run.steps) for run in runs], track),
            kwargs={"at_once": 1, "screen": Listening(said), "name": "training"},
        )
        thread.start()
        until = time.monotonic() + 60
        while not track.begun and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.3)
        assert track.begun == [("1e-4", 9)]
    thread.join()
    assert track.begun == [("1e-4", 9), ("1e-3", 9)]
    assert sum("is waited for" in line for line in said) == 1
