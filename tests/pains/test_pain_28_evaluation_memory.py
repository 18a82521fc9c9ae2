"""Pain 28: out of memory at the first evaluation.

A micro-batch of held-out rows is reduced to sums at once, so that memory depends on the token budget alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tutelage.data.batch import pack
from tutelage.evaluate.heldout import heldout_loss
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.train.probe import _Live
from tutelage.types import Example, Origin

BUDGET = 256


def rows(count: int) -> list[Example]:
    """Tiny rows, four tokens each, two of them trained."""
    ids = np.random.default_rng(0).integers(5, 300, (count, 4)).astype(np.int32)
    weights = np.array([0, 0, 1, 1], dtype=np.float32)
    return [Example(row, weights, Origin("made", 1 + i), 2) for i, row in enumerate(ids)]


@pytest.fixture
def forward(tiny_model):
    return prove(load_model(locate(str(tiny_model("llama")))), max_length=64)


def held_while(run) -> int:
    run()  # Buffers that are used again come into being at the first use.
    with _Live() as live:
        run()
    return live.peak


def test_tensors_held_do_not_grow_with_the_rows(forward):
    few, many = (held_while(lambda n=n: heldout_loss(forward, rows(n), token_budget=BUDGET)) for n in (100, 3000))
    assert many == pytest.approx(few, rel=0.05)


def test_and_are_fewer_than_in_training(forward):
    forward.model.requires_grad_(True)
    evaluating = held_while(lambda: heldout_loss(forward, rows(200), token_budget=BUDGET))
    training = held_while(lambda: forward.nll(pack(rows(BUDGET // 4)))[0].backward())
    assert evaluating < training


def test_the_count_would_notice_rows_that_are_kept(forward):
    kept = []

    def evaluate(count: int):
        kept.clear()
        for start in range(0, count, 64):
            kept.append(forward.nll(pack(rows(count)[start : start + 64]))[0])

    few, many = (held_while(lambda n=n: evaluate(n)) for n in (100, 1000))
    assert many > 1.5 * few


SCRIPT = """
import json, sys
import test_pain_28_evaluation_memory as here
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.train.memory import keep_freed_memory, peak_memory_bytes
keep_freed_memory()
forward = prove(load_model(locate(sys.argv[1])), max_length=64)
given = here.rows(int(sys.argv[2]))
here.heldout_loss(forward, given, token_budget=here.BUDGET)
print(json.dumps(peak_memory_bytes(forward.device)))
"""


def test_the_process_does_not_grow_with_the_rows(tiny_model):
    """In fresh processes, as the system counts."""
    here = Path(__file__).parent
    peaks = []
    for count in ("100", "10000"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tiny_model("llama")), count],
            capture_output=True,
            text=True,
            check=False,
            cwd=here,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        peaks.append(json.loads(done.stdout.strip().splitlines()[-1]))
    assert peaks[1] == pytest.approx(peaks[0], rel=0.05)
