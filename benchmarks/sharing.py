"""What computing common prefixes once saves: the same step with and without, in turns, in one process.

    python benchmarks/sharing.py [--work documents pairs system] [--pairs 5]

| work | a step |
|---|---|
| documents | 8 questions (60 tokens with the answer) on one document of 1,500 tokens |
| pairs | 4 prompts of 400 tokens with two answers of 100 each |
| system | 16 rows of 180 tokens after one system prompt of 24 |

Ids are random; the full-precision step (forward and backward of the global batch) is timed, full fine-tuning. The
gradients of both ways are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import numpy as np
import torch

from tutelage.models.adapters import adapt, trainable
from tutelage.models.forward import Forward, prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.recipe import Full
from tutelage.train.memory import keep_freed_memory
from tutelage.train.work import micro_batches_of
from tutelage.types import Example, Origin

SHAPES = {"documents": (1, 1500, 8, 60, 40), "pairs": (4, 400, 2, 100, 100), "system": (1, 24, 16, 180, 130)}
"""Prefixes, tokens of each, rows on each, tokens of each row after it, trained tokens of each row."""


def rows(work: str) -> list[Example]:
    """The rows of a step."""
    rng = np.random.default_rng(0)
    prefixes, before, count, after, trained = SHAPES[work]
    made = []
    for _ in range(prefixes):
        prefix = rng.integers(20, 40_000, before)
        for _ in range(count):
            ids = np.concatenate([prefix, rng.integers(20, 40_000, after)]).astype(np.int32)
            weights = np.zeros(len(ids), np.float32)
            weights[-trained:] = 1
            made.append(Example(ids, weights, Origin("made", len(made) + 1), len(ids) - trained))
    return made


def step(forward: Forward, examples: list[Example], share: bool) -> tuple[float, dict[str, Any]]:
    """Seconds of a forward and backward pass over the global batch, and its gradients."""
    forward.model.zero_grad(set_to_none=True)
    start = time.perf_counter()
    for batch in micro_batches_of(examples, 2048, share=share):
        (forward.nll(batch)[0] / 1000).backward()
    return time.perf_counter() - start, {name: p.grad for name, p in trainable(forward.model).items()}


def main() -> None:
    """Pairs in turns; the median of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    keep_freed_memory()
    forward = prove(load_model(locate("smollm2-135m-instruct")), max_length=2048)
    adapt(forward.model, Full(), seed=0, base="")
    forward.model.train()
    for work in arguments.work:
        examples = rows(work)
        apart = compared(step(forward, examples, False)[1], step(forward, examples, True)[1])
        times = [(step(forward, examples, False)[0], step(forward, examples, True)[0]) for _ in range(arguments.pairs)]
        tokens = sum(map(len, examples))
        computed = sum(batch.computed_tokens for batch in micro_batches_of(examples, 2048, share=True))
        ratios = [apart / shared for apart, shared in times]
        print(
            f"{work}: {tokens:,} tokens, {computed:,} computed ({tokens / computed:.2f}x); "
            f"{statistics.median(ratios):.2f}x faster ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"{tokens / statistics.median(s for _, s in times):,.0f} tokens/s; gradients apart by {apart:.1e}",
            flush=True,
        )


def compared(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Length of the difference, as a share of the gradient's."""
    difference = sum(float((one[name].double() - other[name].double()).square().sum()) for name in one)
    return (difference / sum(float(g.double().square().sum()) for g in other.values())) ** 0.5


if __name__ == "__main__":
    main()
