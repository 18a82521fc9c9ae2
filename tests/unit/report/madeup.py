"""A made-up run folder, complete, with hostile rows and answers, for tests that need a run without training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SENTENCE = "Better: the tuned model predicts held-out answers with 0.41 nats per token less than the base model."
HOSTILE = (
    "<script>alert('row')</script></textarea></style><img src=x onerror=alert(1)> \u202etxt.exe\u202c "
    "\x00\x1b[31m \ud800 &amp; \"quoted\" 'single' ]]> {{ 7 * 7 }} {% raw %}"
)

RECIPE = """\
model:
  path: smollm2-135m-instruct
  adapter: {kind: lora, rank: 16}
data:
  train:
  - path: shop/orders.jsonl
  max_length: 1024
  over_long: drop
train:
  learning_rate: 0.0002
  epochs: 1
evaluate:
  confidence: 0.95
output: runs/orders
"""


def make_run(folder: Path, *, steps: int = 30, finished: bool = True) -> Path:
    """A run folder of `steps` steps; without `finished`, as it is when training is under way."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    write_json(folder / "origins.json", origins())
    write_json(folder / "environment.json", environment())
    write_json(folder / "data.json", data())
    write_json(folder / "plan.json", plan(steps))
    write_lines(folder / "metrics.jsonl", metrics(steps))
    held = [(0, 2.312), (steps // 2, 1.987), (steps, 1.902)] if finished else [(0, 2.312)]
    write_lines(
        folder / "evaluations.jsonl",
        ({"step": step, "nll": nll, "tokens": 4000, "examples": 50} for step, nll in held),
    )
    write_lines(folder / "samples.jsonl", samples(steps, finished=finished))
    write_lines(folder / "rows.jsonl", rows())
    if finished:
        write_json(folder / "result.json", result(steps))
    return folder


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def write_lines(path: Path, values: Iterable[Any]) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")


def origins() -> dict[str, str]:
    return {
        "model.path": "orders.yaml:2",
        "data.train": "orders.yaml:5",
        "data.over_long": "orders.yaml:8",
        "data.max_length": "default",
        "train.learning_rate": "command line",
        "train.epochs": "default",
        "output": "orders.yaml:14",
    }


def environment() -> dict[str, Any]:
    return {
        "tutelage": "0.1.0",
        "python": "3.11.9",
        "torch": "2.10.0",
        "transformers": "5.3.0",
        "platform": "Linux-6.1-x86_64",
        "device": "cpu",
        "threads": 2,
    }


def data() -> dict[str, Any]:
    over_long = [{"file": "shop/orders.jsonl", "line": 12 + 31 * i} for i in range(7)]
    empty = [{"file": "shop/<b>returns</b>.jsonl", "line": 4 + i} for i in range(3)]
    return {
        "ledger": {
            "rows": 1000,
            "trained": 940,
            "heldout": 50,
            "dropped": {"over-long": 7, "empty answer": 3},
            "examples": {"train": 962, "heldout": 51},
            "duplicates": 3,
            "notices": ["22 conversations were split: their later prompts do not begin with the earlier ones."],
            "origins": {"over-long": over_long, "empty answer": empty},
        },
        "tokens": {
            "train": 150_000,
            "supervised": 70_000,
            "longest": 812,
            "quantiles": {"50": 120, "90": 300, "99": 600, "100": 812},
        },
        "sources": [
            {
                "path": "shop/orders.jsonl",
                "format": "messages",
                "rows": 980,
                "bytes": 812_345,
                "sha256": "5f" * 32,
            },
            {
                "path": "shop/<b>returns</b>.jsonl",
                "format": "alpaca",
                "rows": 20,
                "bytes": 9_100,
                "sha256": "a7" * 32,
            },
        ],
        "template": {"name": "the tokenizer's own", "sha256": "c3" * 32},
        "stop_tokens": [{"id": 2, "text": "<|im_end|>"}],
    }


def plan(steps: int) -> dict[str, Any]:
    return {
        "steps": steps,
        "epochs": 1,
        "global_batch_size": 16,
        "tokens": 150_000,
        "trainable_parameters": 4_884_480,
        "parameters": 134_515_008,
        "memory_bytes": 2_900_000_000,
        "seconds": 190.0,
    }


def metrics(steps: int) -> Iterable[dict[str, Any]]:
    """A loss that falls with some noise; one step of it was skipped and has none."""
    for step in range(1, steps + 1):
        skipped = step == 7
        wave = math.sin(step * 2.7) * 0.09 + math.sin(step * 0.9) * 0.05
        yield {
            "step": step,
            "loss": None if skipped else 1.85 + 0.55 * math.exp(-6 * step / steps) + wave,
            "learning_rate": 2e-4 * min(1, step / 3) * 0.5 * (1 + math.cos(math.pi * step / steps)),
            "grad_norm": float("nan") if skipped else 0.6 + 2.5 * math.exp(-step / 4) + abs(wave) * 3,
            "tokens": 2500 + step * 37 % 800,
            "computed_tokens": 2400 + step * 37 % 800,
            "supervised_tokens": 1100 + step * 53 % 300,
            "seconds": 4.1 + wave * 3,
            "peak_memory_bytes": 2_700_000_000 + step * 1_000_000,
            "skipped": skipped,
        }


def samples(steps: int, *, finished: bool = True) -> Iterable[dict[str, Any]]:
    """Four prompts, base and tuned: a plain one, a hostile one, one far too long, one without messages."""
    question = "A customer writes: I would like two blue mugs and one tea towel, please. Write the order as JSON."
    order = '{"items": [{"name": "blue mug", "count": 2}, {"name": "tea towel", "count": 1}]}'
    system = {"role": "system", "content": "You turn messages into orders. Answer with JSON only."}
    prompts: list[dict[str, Any]] = [
        {"messages": [system, {"role": "user", "content": question}]},
        {"messages": [{"role": "user<script>", "content": HOSTILE}]},
        {"messages": [{"role": "user", "content": "Count.\n\n" + "long words " * 5000}]},
        {"prompt": "السلام عليكم، كم الساعة؟\nAnswer: "},
    ]
    references = [order, "I cannot read that.", "1 2 3", "Half past nine in the morning."]
    before = [f"Sure! Here is the order:\n\n{order[:28]}\n\nLet me know", HOSTILE, "9 " * 9000, "Nine."]
    after = [order, "I cannot read " + HOSTILE, "1 2 3", "Half past ten in the morning."]
    for number, prompt in enumerate(prompts):
        for model, answers, step in (("base", before, 0), ("tuned", after, steps)):
            if model == "base" or finished:
                yield {
                    "step": step,
                    "model": model,
                    "origin": {"file": "shop/orders.jsonl", "line": 90 + number},
                    **prompt,
                    "answer": answers[number],
                    "reference": references[number],
                    "stopped": model == "tuned",
                    "tokens": 38 if model == "tuned" else 128,
                    "decoding": {"method": "greedy", "max_new_tokens": 128},
                    "correct": {0: model == "tuned", 2: model == "tuned"}.get(number),
                }


def rows() -> Iterable[dict[str, Any]]:
    plain = [["<|im_start|>", 0.0], ["user", 0.0], ["\n", 0.0], ["Two", 0.0], [" mugs", 0.0], ["?", 0.0]]
    plain += [["<|im_end|>", 0.0], ["\n", 0.0], ["<|im_start|>", 0.0], ["assistant", 0.0], ["\n", 0.0]]
    answer = ["{", '"', "items", '":', " [", "\n", "\t", '"', "blue", " mug", '"', "]", "}", "<|im_end|>"]
    plain += [[token, 1.0] for token in answer] + [["\n", 0.0]]
    hostile = [["<script>", 0.0], ["alert", 0.5], ["(1)", 0.5], ["</script>", 1.0], ["\u202e", 1.0], ["\ud83d", 1.0]]
    long = [[f" word{i}", 0.0] for i in range(1500)] + [[" the", 1.0], [" end", 1.0], ["", 1.0]]
    for line, tokens in enumerate((plain, hostile, long), 1):
        yield {"origin": {"file": "shop/orders.jsonl", "line": line}, "split": "train", "tokens": tokens}


def result(steps: int) -> dict[str, Any]:
    return {
        "status": "done",
        "steps": steps,
        "ledger": {"rows": 1000, "trained": 940, "heldout": 50, "dropped": {"over-long": 7, "empty answer": 3}},
        "heldout": {
            "examples": 50,
            "tokens": 4000,
            "base_nll": 2.312,
            "tuned_nll": 1.902,
            "difference": -0.41,
            "interval": [-0.482, -0.338],
            "verdict": "better",
            "sentence": SENTENCE,
        },
        "tasks": {
            "orders": {
                "metric": "same JSON value",
                "base": 0.12,
                "tuned": 0.84,
                "difference": 0.72,
                "interval": [0.61, 0.82],
                "n": 50,
                "fields": {"items": {"base": 0.3, "tuned": 0.9}, "address": {"base": 0.1, "tuned": 0.86}},
            }
        },
        "tokens_per_second": 712.4,
        "supervised_tokens_per_second": 301.9,
        "peak_memory_bytes": 2_730_000_000,
        "seconds": 187.3,
        "model_folder": "model",
    }
