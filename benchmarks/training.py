"""Training on the CPU, side by side with TRL and `transformers.Trainer`: the same tokens, masks, batches and weights.

    python benchmarks/training.py ROWS.jsonl [--work full lora] [--steps 10] [--pairs 3]

Each side runs in a process of its own, in turns; a figure is the median of the ratios of the pairs. Speed counts real
tokens (no padding) after two steps of warm-up, memory is the peak of the process. All sides are handed token ids that
Tutelage encoded, in batches of eight rows in one order; their losses, step by step, must agree.

| work | peers |
|---|---|
| full | TRL's defaults (bfloat16 autocast, checkpointing, random batches) |
| | TRL at its best exact setting: float32, no checkpointing, batches of like lengths; `Trainer` likewise |
| lora | the same setting of TRL, rank 16 on all linear layers |
| bf16 | TRL's defaults against `precision.compute=bfloat16`, both approximate |
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m-instruct"
BATCH, WARM_UP, MAX_LENGTH = 8, 2, 1024
RATES = {"full": 2e-5, "lora": 2e-4}
# work: (peer, order of the batches, our side)
PAIRS = {
    "full": [("trl-best", "grouped", "ours"), ("trl-default", "shuffled", "ours"), ("trainer", "grouped", "ours")],
    "lora": [("trl-best", "grouped", "ours")],
    "bf16": [("trl-default", "shuffled", "ours-bf16")],
}


def examples(path: Path, folder: Path) -> list[Any]:
    """The rows as Tutelage encodes them."""
    from tutelage import assemble, config

    values: dict[str, Any] = {
        "model": {"path": MODEL},
        "data": {"train": [{"path": str(path)}], "heldout": 0, "max_length": MAX_LENGTH, "over_long": "drop"},
        "output": str(folder / "run"),
    }
    return list(assemble.prepare_data(config.resolve(values).recipe).train)


def batches(rows: Sequence[Any], order: str, steps: int) -> list[list[Any]]:
    """Batches of rows in random order; `grouped`: of like lengths, as Trainer groups them (windows of 50 batches)."""
    shuffled = random.Random(0).sample(list(rows), len(rows))
    if order == "grouped":
        window = 50 * BATCH
        parts = [shuffled[i : i + window] for i in range(0, len(shuffled), window)]
        shuffled = [row for part in parts for row in sorted(part, key=len, reverse=True)]
    cut = [shuffled[i : i + BATCH] for i in range(0, len(shuffled) - BATCH + 1, BATCH)]
    return random.Random(1).sample(cut, steps)


def ours(work: str, chosen: list[list[Any]], compute: str) -> list[dict[str, float]]:
    """Train with Tutelage's own loop."""
    import torch

    from tutelage.models.adapters import adapt, trainable
    from tutelage.models.forward import prove
    from tutelage.models.load import load_model
    from tutelage.models.location import locate
    from tutelage.models.precision import Precision, computing
    from tutelage.objectives.nll import nll
    from tutelage.recipe import Full, Lora, TrainOptions
    from tutelage.train.guard import Guard
    from tutelage.train.loop import Group, steps
    from tutelage.train.memory import keep_freed_memory
    from tutelage.train.optimizer import build_optimizer
    from tutelage.train.work import micro_batches_of

    keep_freed_memory()
    precision = Precision(compute=compute)
    forward = prove(load_model(locate(MODEL)), max_length=MAX_LENGTH)
    forward.model = adapt(forward.model, Full() if work == "full" else Lora(rank=16), seed=0, base=MODEL)
    parameters = trainable(forward.model)
    optimizer = build_optimizer(parameters, TrainOptions(weight_decay=0), precision)
    groups = (
        Group(number, micro_batches_of(rows, 2048, share=forward.share), [row.origin for row in rows], 0)
        for number, rows in enumerate(chosen, 1)
    )
    with computing(precision, torch.device("cpu")):
        run = steps(
            forward,
            nll,
            groups,
            optimizer,
            parameters=parameters,
            rate=lambda step: RATES[work],
            max_grad_norm=1.0,
            guard=Guard(),
        )
        return [{"seconds": step.seconds, "loss": step.loss} for step in run]


def peer(side: str, work: str, chosen: list[list[Any]], folder: Path) -> list[dict[str, float]]:
    """Train with TRL's SFTTrainer or with Trainer."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from tutelage.models.location import locate
    from tutelage.seeds import derive

    rows = [row for batch in chosen for row in batch]
    dataset = Dataset.from_list(
        [
            {"input_ids": row.input_ids.tolist(), "completion_mask": (row.weights > 0).astype(int).tolist()}
            for row in rows
        ]
    )
    found: list[dict[str, float]] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            found.append({"seconds": time.perf_counter() - self.start})

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                found[-1]["loss"] = logs["loss"]

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    options: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": len(chosen),
        "per_device_train_batch_size": BATCH,
        "learning_rate": RATES[work],
        "lr_scheduler_type": "constant",
        "max_length": MAX_LENGTH,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    if side == "trl-best":
        options |= {"bf16": False, "gradient_checkpointing": False}
    location = locate(MODEL)
    tokenizer = AutoTokenizer.from_pretrained(location.path)
    model = AutoModelForCausalLM.from_pretrained(location.path, dtype=torch.float32)
    if side == "trainer":
        return plain(model, tokenizer, chosen, options, Clock, Trainer, found)
    options["completion_only_loss"] = True  # It is found out only for rows that are not encoded yet.
    if work == "lora":
        from peft import LoraConfig, get_peft_model

        adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        torch.manual_seed(derive(0, "adapter"))  # The adapter starts where ours does, so that losses can be compared.
        model = get_peft_model(model, adapter)
    InOrder(
        model=model,
        args=SFTConfig(**options),
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[Clock()],
    ).train()
    return found


def plain(
    model: Any, tokenizer: Any, chosen: list[list[Any]], options: dict[str, Any], clock: Any, base: Any, found: Any
) -> list[dict[str, float]]:
    """Train with `transformers.Trainer` in float32, padding to the longest row of a batch."""
    import torch
    from transformers import DataCollatorForSeq2Seq, TrainingArguments

    class InOrder(base):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    rows = [
        {
            "input_ids": row.input_ids.tolist(),
            "attention_mask": [1] * len(row),
            "labels": [int(id) if weight else -100 for id, weight in zip(row.input_ids, row.weights, strict=True)],
        }
        for batch in chosen
        for row in batch
    ]
    arguments = TrainingArguments(**{name: value for name, value in options.items() if name != "max_length"})
    collate = DataCollatorForSeq2Seq(tokenizer)
    InOrder(model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[clock()]).train()
    return found


def one(arguments: argparse.Namespace) -> None:
    """One side, in this process; its figures as the last line."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        chosen = batches(examples(arguments.rows, Path(folder)), arguments.order, arguments.steps)
        if arguments.side.startswith("ours"):
            compute = "bfloat16" if arguments.side == "ours-bf16" else "float32"
            found = ours(arguments.work, chosen, compute)
        else:
            found = peer(arguments.side, arguments.work, chosen, Path(folder))
    tokens = [sum(map(len, batch)) for batch in chosen]
    seconds = sum(step["seconds"] for step in found[WARM_UP:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result = {
        "tokens_per_second": sum(tokens[WARM_UP:]) / seconds,
        "peak_gib": peak,
        "losses": [step["loss"] for step in found],
        "tokens": tokens,
        "supervised": [int(sum((row.weights > 0).sum() for row in batch)) for batch in chosen],
    }
    print(json.dumps(result))


def measured(path: Path, side: str, work: str, order: str, steps: int) -> dict[str, Any]:
    """One side in a fresh process."""
    command = [sys.executable, __file__, str(path), "--side", side, "--work", work, "--order", order]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "1"}
    done = subprocess.run([*command, "--steps", str(steps)], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


LAYERS, HEAD = 30, (576, 49152)
PROJECTIONS = {(576, 576): 2, (576, 192): 2, (576, 1536): 2, (1536, 576): 1}
"""(in, out) of a layer's products, and how many there are of each."""
TOKENS, BLOCK, RANK = 2048, 512, 16


def product_limit(work: str, supervised_share: float) -> float:
    """Tokens a second if the step were its matrix products alone: each by itself, into memory that is at hand.

    The fastest of several tries of each; attention is left out.
    """
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    seconds = 0.0
    for (wide, out), count in PROJECTIONS.items():
        seconds += LAYERS * count * products(TOKENS, wide, out, weight_gradient=work == "full")
        if work == "lora":
            small = products(TOKENS, wide, RANK) + products(TOKENS, RANK, out)
            seconds += LAYERS * count * small
    blocks = TOKENS * supervised_share / BLOCK
    seconds += blocks * products(BLOCK, *HEAD, weight_gradient=work == "full")
    return TOKENS / seconds


def products(rows: int, wide: int, out: int, *, weight_gradient: bool = True) -> float:
    """Seconds of x W', dy W and, where asked for, dy' x."""
    import torch

    x, w, dy = torch.randn(rows, wide), torch.randn(out, wide), torch.randn(rows, out)
    y, dx, dw = torch.empty(rows, out), torch.empty(rows, wide), torch.empty(wide, out)
    total = fastest(lambda: torch.mm(x, w.t(), out=y)) + fastest(lambda: torch.mm(dy, w, out=dx))
    return total + (fastest(lambda: torch.mm(x.t(), dy, out=dw)) if weight_gradient else 0.0)


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of seven tries."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Run pairs in turns and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--work", nargs="+", default=["full", "lora"], choices=list(PAIRS))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--peer", help="only pairs with this peer")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--order", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        arguments.work = arguments.work[0].replace("bf16", "full")
        one(arguments)
        return
    for work in arguments.work:
        for side, order, mine in PAIRS[work]:
            if arguments.peer in (None, side):
                compare(arguments, work, side, order, mine)


def compare(arguments: argparse.Namespace, work: str, side: str, order: str, mine: str) -> None:
    """Pairs of one work and one peer."""
    speed, memory, share = [], [], []
    for _ in range(arguments.pairs):
        theirs = measured(arguments.rows, side, work, order, arguments.steps)
        own = measured(arguments.rows, mine, work, order, arguments.steps)
        limit = product_limit("lora" if work == "lora" else "full", sum(own["supervised"]) / sum(own["tokens"]))
        speed.append(own["tokens_per_second"] / theirs["tokens_per_second"])
        memory.append(own["peak_gib"] / theirs["peak_gib"])
        share.append(own["tokens_per_second"] / limit)
        apart = max(abs(a - b) / b for a, b in zip(own["losses"], theirs["losses"], strict=True))
        print(
            f"{work:5} {mine} {own['tokens_per_second']:6.1f} tok/s {own['peak_gib']:5.2f} GiB | {side} "
            f"{theirs['tokens_per_second']:6.1f} tok/s {theirs['peak_gib']:5.2f} GiB | float32 products alone "
            f"{limit:.0f} tok/s, {share[-1]:.0%} of them | losses apart by {apart:.1e}",
            flush=True,
        )
    print(
        f"{work}: {mine} / {side}: speed {statistics.median(speed):.2f}x, memory {statistics.median(memory):.2f}x, "
        f"{statistics.median(share):.0%} of the products alone\n",
        flush=True,
    )


if __name__ == "__main__":
    main()
