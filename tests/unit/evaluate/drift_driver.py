"""What the processes of a test do: `python drift_driver.py MODEL`; each prints one line of JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch

from tutelage.evaluate.drift import Reference, drift
from tutelage.evaluate.general import General
from tutelage.models.forward import Forward, prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.models.training import for_training
from tutelage.recipe import Full
from tutelage.train.meeting import start
from tutelage.train.ranks import ALONE, Ranks
from tutelage.train.sharding import divide
from tutelage.types import Example, Origin


def texts() -> General:
    """Seven texts of several lengths."""
    rng = np.random.default_rng(1)
    made = []
    for number in range(7):
        ids = rng.integers(5, 300, int(rng.integers(4, 50))).astype(np.int32)
        made.append(Example(ids, np.array([0.0] + [1.0] * (len(ids) - 1), np.float32), Origin("made", number), 1))
    return General(("general-1",), tuple(made), np.zeros(7, np.int64))


def measured(model: str, ranks: Ranks, *, sharded: bool) -> dict[str, Any]:
    """The base model, and one whose weights were changed, on the texts."""
    with torch.random.fork_rng(devices=[]):
        base, tuned = (_ready(model, ranks, sharded=sharded, by=by) for by in (0.0, 0.02))
    reference = Reference.measure(base, texts(), token_budget=60, ranks=ranks)
    found = drift(tuned, reference, token_budget=60, ranks=ranks)
    again = drift(tuned, reference, token_budget=60, ranks=ranks)
    assert (again.kl_sums == found.kl_sums).all()
    return {name: getattr(found, name).tolist() for name in ("base_sums", "sums", "kl_sums")}


def _ready(model: str, ranks: Ranks, *, sharded: bool, by: float) -> Forward:
    forward = prove(load_model(locate(model)), max_length=128)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in forward.model.parameters():
            parameter += by * torch.randn_like(parameter)
    for_training(forward, Full(), seed=0, base=model, compiled=False, checkpointing="none")
    return divide(forward, ranks)[0] if sharded else forward


def main() -> None:
    """One process by itself, replicas, and slices."""
    torch.set_num_threads(1)
    ranks = start()
    alone = measured(sys.argv[1], ALONE, sharded=False)
    ways = {name: measured(sys.argv[1], ranks, sharded=name == "sharded") for name in ("replicated", "sharded")}
    print(json.dumps({"alone": alone, **ways}), flush=True)
    ranks.part()


if __name__ == "__main__":
    main()
