"""What is sent: finite numbers, named after their file."""

from __future__ import annotations

import json

from tutelage.runs import Run
from tutelage.track.points import Point, outcome, streams


def test_numbers_by_stream_and_step(tmp_path):
    lines = [
        {"step": 1, "loss": 0.5, "skipped": False, "token_budget": None, "note": "text"},
        {"step": 2, "loss": None, "grad_norm": 3, "skipped": True},
        {"loss": 1.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "evaluations.jsonl").write_text('{"step": 0, "nll": 2.5, "tokens": 7}\n')
    train, heldout = (list(stream.new()) for stream in streams(Run(tmp_path)))
    assert train == [
        Point("train", 1, {"train/loss": 0.5, "train/skipped": 0.0}),
        Point("train", 2, {"train/grad_norm": 3.0, "train/skipped": 1.0}),
    ]
    assert heldout == [Point("heldout", 0, {"heldout/nll": 2.5, "heldout/tokens": 7.0})]


def test_what_is_not_finite_is_left_out_and_never_made_up(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "a": NaN, "b": 1e999, "c": -Infinity, "d": null, "e": 0}\n')
    ((point,), _) = (list(stream.new()) for stream in streams(Run(tmp_path)))
    assert point.values == {"train/e": 0.0}


def test_the_outcome_of_a_run_that_is_done():
    result = {"status": "done", "steps": 9, "heldout": {"tuned_nll": 0.5, "verdict": "better"}, "seconds": 2}
    values = {"result/steps": 9.0, "result/heldout/tuned_nll": 0.5, "result/seconds": 2.0}
    assert outcome(result) == Point("result", 9, values)
    assert outcome({"status": "failed", "steps": 3}) is None
    assert outcome({}) is None


def test_a_point_beyond_what_is_held():
    point = Point("train", 5, {"train/a": 1.0, "train/b": 2.0})
    assert point.beyond({}) == point
    assert point.beyond({"train": 4, "train/a": 4}) == point
    assert point.beyond({"train/a": 5}).values == {"train/b": 2.0}
    assert point.beyond({"train": 5}).values == {}
