"""What a checkpoint costs training: seconds that the loop waits, by how much steps are slower behind it, verification.

    python benchmarks/checkpoints.py [--kind full lora] [--every 50]

The same optimizer steps on SmolLM2-135M-Instruct are made in rounds: one round without a save, one with a save before
its first step, alternating. A save costs what it holds the loop up and what the round takes longer; spread over `every`
steps that is the share of training it takes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STEPS, ROUNDS = 3, 4


def main() -> None:
    """Print one JSON object a kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", nargs="+", default=["full", "lora"])
    parser.add_argument("--every", type=int, default=50)
    given = parser.parse_args()
    for kind in given.kind:
        print(json.dumps(measure(kind, given.every)), flush=True)


def measure(kind: str, every: int) -> dict[str, object]:
    """Of one kind of training."""
    from tutelage.checkpoints import Checkpoints, verify
    from tutelage.models.forward import prove
    from tutelage.models.load import load_model
    from tutelage.models.location import locate
    from tutelage.models.training import for_training
    from tutelage.objectives.nll import nll
    from tutelage.recipe import Full, Lora, TrainOptions
    from tutelage.train.guard import Guard
    from tutelage.train.loop import Group, steps
    from tutelage.train.memory import keep_freed_memory
    from tutelage.train.optimizer import build_optimizer
    from tutelage.train.saver import Saver
    from tutelage.train.state import Position, restore
    from tutelage.train.work import micro_batches_of
    from tutelage.types import Example, Origin

    keep_freed_memory()
    location = locate("smollm2-135m-instruct")
    forward = prove(load_model(location, device="cpu", dtype="float32"), max_length=1024)
    adapter = Full(kind="full") if kind == "full" else Lora(kind="lora")
    parameters, _ = for_training(
        forward, adapter, seed=0, base=location.name, checkpointing="none", compiled=False, revision=None
    )
    optimizer = build_optimizer(parameters, TrainOptions())
    draw = np.random.default_rng(0)
    rows = [
        Example(
            draw.integers(100, 40000, 128).astype(np.int32),
            np.r_[np.zeros(64), np.ones(64)].astype(np.float32),
            Origin("made", n),
            64,
        )
        for n in range(16)
    ]
    batches = micro_batches_of(rows, 2048, share=True)

    def make(first: int) -> list[float]:
        groups = (Group(first + n, batches, [row.origin for row in rows], 0) for n in range(STEPS))
        run = steps(
            forward,
            nll,
            groups,
            optimizer,
            parameters=parameters,
            rate=lambda step: 1e-6,
            max_grad_norm=1.0,
            guard=Guard(),
        )
        return [step.seconds for step in run]

    here = Path("build")  # On the disk of the project, and ignored by git also where this is interrupted.
    here.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="checkpoints-", dir=here))
    try:
        saver = Saver(
            Checkpoints(folder), "benchmark", parameters, optimizer, keep=1, wait_seconds=0, say=lambda text: None
        )
        make(2)
        without, behind, waits, commits = [], [], [], []
        for turn in range(ROUNDS):
            without += make(2)
            began = time.perf_counter()
            saver.save(Position(turn + 1), {"healthy": True})
            waits.append(time.perf_counter() - began)
            behind += make(2)
            saver.finish()
            commits.append(time.perf_counter() - began)
        checkpoint = saver.last
        assert checkpoint is not None
        began = time.perf_counter()
        verify(checkpoint)
        verified = time.perf_counter() - began
        began = time.perf_counter()
        restore(checkpoint, parameters, optimizer)
        restored = time.perf_counter() - began
    finally:
        shutil.rmtree(folder)
    step, slower = statistics.median(without), statistics.median(behind)
    wait = statistics.median(waits)
    cost = wait + STEPS * max(0.0, slower - step)
    return {
        "kind": kind,
        "bytes": checkpoint.bytes,
        "step_seconds": step,
        "step_seconds_behind_a_save": slower,
        "waited_seconds": wait,
        "cost_seconds": cost,
        "share_of_training": cost / (every * step),
        "every": every,
        "verified_mb_per_second": checkpoint.bytes / verified / 1e6,
        "restored_seconds": restored,
    }


if __name__ == "__main__":
    sys.exit(main())
