"""What the processes of tests do: `python rank_driver.py CASE [ARGUMENT]`; each prints one line of JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tutelage.data.share import micro_batches_of_rank
from tutelage.errors import MachineError, Problem, TutelageError
from tutelage.models.forward import Forward, prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.models.training import for_training
from tutelage.recipe import Full, Lora, TrainOptions
from tutelage.seeds import derive
from tutelage.train import pulse, watchdog
from tutelage.train.meeting import start
from tutelage.train.optimizer import build_optimizer
from tutelage.train.ranks import ALONE, Ranks
from tutelage.train.sharding import Replicas, divide
from tutelage.train.watchdog import watched
from tutelage.types import Example, Origin


def meet(ranks: Ranks) -> dict[str, Any]:
    """Everything that processes say to each other."""
    a, b, unused = (nn.Parameter(torch.zeros(3)) for _ in range(3))
    c = nn.Parameter(torch.zeros(3).double())
    big = nn.Parameter(torch.zeros(1 << 21))
    a.grad = torch.full((3,), 1.0 + ranks.rank)
    b.grad = torch.ones(3) if ranks.rank == 1 else None
    c.grad = torch.ones(3).double() if ranks.first else torch.full((3,), 2.0).double()
    big.grad = torch.full((1 << 21,), 0.5)
    ranks.sum_gradients([a, b, big, c, unused])

    def fail() -> None:
        if ranks.rank == 1:
            raise MachineError(Problem("machine/disk-full", "the disk is full", where="/there"))

    try:
        ranks.together(fail)
        raised = ""
    except TutelageError as error:
        raised = f"{type(error).__name__} {error.code} {error.problems[0].where}"

    def stumble() -> None:
        if ranks.first:
            raise ZeroDivisionError("a bug")

    try:
        ranks.together(stumble)
        stumbled = ""
    except Exception as error:
        stumbled = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    order: list[float] = ranks.in_turn(lambda: [time.monotonic()])
    turns = ranks.gather(order[0])
    return {
        "gradients": [a.grad.tolist(), b.grad.tolist(), c.grad.tolist(), float(big.grad.sum()), unused.grad is None],
        "agree": ranks.agree({"stop": ranks.rank == 1, "full": False, "both": True}),
        "gather": ranks.gather({"rank": ranks.rank, "text": "é" * (1 + 50 * ranks.rank)}),
        "broadcast": ranks.broadcast({"n": 7} if ranks.first else None),
        "by_first": ranks.by_first(lambda: os.environ["RANK"]),
        "only_first": ranks.only_first(lambda: 5),
        "largest": ranks.largest(3 * ranks.rank),
        "add": ranks.add([(1, 2, 3), (1, 0, 0)]),
        "raised": raised,
        "stumbled": stumbled,
        "in_turn": turns == sorted(turns),
        "loopback": os.environ.get("GLOO_SOCKET_IFNAME", "").startswith("lo"),
    }


def examples_of(step: int) -> list[Example]:
    """A global batch with a common beginning, weights of several sizes, and one long example."""
    rng = np.random.default_rng(step)
    made = []
    for number in range(7):
        ids = rng.integers(0, 300, 60 if number == 0 else int(rng.integers(5, 40))).astype(np.int32)
        ids[:4] = (1, 2, 3, 4) if number % 2 else ids[:4]
        weights = (np.arange(len(ids)) > 3).astype(np.float32) * float(rng.uniform(0.5, 2))
        made.append(Example(ids, weights, Origin("made", number), 4))
    return made


def learn(model: str, adapter: Lora | Full, ranks: Ranks, kind: str, **options: Any) -> dict[str, Any]:
    """Four steps; losses, gradient norms, and the weights after them."""
    forward: Forward = prove(load_model(locate(model, None)), max_length=128)
    parameters, _ = for_training(forward, adapter, seed=0, base=model, compiled=False, **options)
    gathering: Any = None if ranks.alone else Replicas(ranks, parameters)
    if kind == "sharded":
        forward, gathering = divide(forward, ranks)
        parameters = gathering.parameters
    optimizer = build_optimizer(parameters, TrainOptions())
    optimizer.gathering = gathering
    losses, norms = [], []
    forward.model.train()
    for step in range(1, 5):
        examples = examples_of(step)
        total = sum(float(example.weights.sum(dtype=np.float64)) for example in examples)
        budget = 1 if kind == "sharded" and not forward.packed else 100
        batches = micro_batches_of_rank(
            examples, budget, share=forward.share, rank=ranks.rank, world=ranks.world, lockstep=kind == "sharded"
        )
        optimizer.zero_grad()
        assert forward.draw is not None
        forward.draw.seed = derive(0, "dropout", step)
        found = []
        for batch in batches:
            loss, _ = forward.nll(batch)
            (loss / total).backward()
            found.append(loss.detach())
        optimizer.gather()
        norm = optimizer.norm()
        losses.append(sum(loss.item() for loss in ranks.each(found)) / total)
        norms.append(float(norm))
        # A large eps, so that a weight moves by its gradient and not by the gradient's sign.
        optimizer._eps = 1e-2
        optimizer.step(1e-2, norm=norm, clip=1.0, sound=torch.tensor(True))
    held = dict(gathering.whole_tensors()) if kind == "sharded" else parameters
    return {"losses": losses, "norms": norms, "weights": {name: p.detach().clone() for name, p in held.items()}}


def shard(ranks: Ranks, model: str) -> dict[str, Any]:
    """One process, replicas and slices, full and LoRA with dropout, and with layers computed again."""
    report = {}
    for name, adapter, kind in (("full", Full(), "none"), ("lora", Lora(rank=4, dropout=0.1), "full")):
        one = learn(model, adapter, ALONE, "alone", checkpointing=kind)
        for way in ("replicated", "sharded"):
            many = learn(model, adapter, ranks, way, checkpointing=kind)
            assert many["weights"].keys() == one["weights"].keys()
            report[f"{name} {way}"] = [
                max(abs(x - y) for x, y in zip(one["losses"], many["losses"], strict=True)),
                max(abs(x - y) / x for x, y in zip(one["norms"], many["norms"], strict=True)),
                max(float((one["weights"][n] - w).abs().max()) for n, w in many["weights"].items()),
                one["losses"][0] - one["losses"][-1],
            ]
    return report


def watch(ranks: Ranks, fault: str) -> dict[str, Any]:
    """Meet for ever; rank 1 dies, fails, or goes round in circles."""
    pulse.LIMITS["testing"] = 8.0
    folder = Path(os.environ["STACKS"])
    if fault == "hangs" and ranks.first:
        watchdog.EVERY = 2.5  # The other sees it first, and must not end before this one has written its stacks.
    with watched(ranks, folder), ranks.pulse.during("testing"):
        for number in range(10_000):
            ranks.sum(torch.ones(1))
            if number == 20 and ranks.rank == 1:
                if fault == "dies":
                    os.kill(os.getpid(), 9)
                if fault == "fails":
                    raise MachineError(Problem("machine/disk-full", "the disk is full"))
                while fault == "hangs":
                    time.sleep(0.1)
            if number == 200 and fault == "nothing":
                break
            time.sleep(0.01)
    return {"done": ranks.rank}


def main() -> None:
    """Run the case that the command line names."""
    torch.set_num_threads(1)
    ranks = start()
    try:
        print(json.dumps({"meet": meet, "shard": shard, "watch": watch}[sys.argv[1]](ranks, *sys.argv[2:])), flush=True)
    except TutelageError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(error.exit_code)
    ranks.part()


if __name__ == "__main__":
    main()
