"""Rows to packed tokens, side by side with TRL: the same rows, tokenizer, length and packing, answers-only loss.

    python benchmarks/preparation.py ROWS.jsonl [--rows 10000] [--pairs 3]

Each side runs in a process of its own, in turns; the figure is the median of the ratios of the pairs. TRL is given
rows that are in memory and in its own prompt-completion form, since it does not read Alpaca's; ours reads the file,
cleans, looks for near-duplicates and writes a store. Each side has prepared eight rows before its time begins, so that
nothing is imported within it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m-instruct"
MAX_LENGTH = 1024


def alpaca(path: Path, count: int) -> list[dict[str, Any]]:
    """The first rows of a file of Alpaca rows."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(count), strict=False)]


def ours(path: Path, count: int, folder: Path) -> dict[str, float]:
    """Prepare with Tutelage into an empty store."""
    from tutelage import assemble, config
    from tutelage.data.plan import micro_batches

    values: dict[str, Any] = {
        "model": {"path": MODEL},
        "data": {
            "train": [{"path": str(path), "limit": count}],
            "heldout": 0,
            "max_length": MAX_LENGTH,
            "over_long": "drop",
            "store": str(folder / "store" / str(count)),
        },
        "output": str(folder / "run"),
    }
    recipe = config.resolve(values).recipe
    start = time.perf_counter()
    prepared = assemble.prepare_data(recipe)
    groups = micro_batches(prepared.train.lengths.tolist(), MAX_LENGTH)
    seconds = time.perf_counter() - start
    lengths = prepared.train.lengths
    return {"seconds": seconds, "tokens": int(lengths.sum()), "rows": len(lengths), "packs": len(groups)}


def trl(path: Path, count: int, folder: Path) -> dict[str, float]:
    """Prepare with TRL's SFTTrainer, which encodes and packs in its constructor."""
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    from tutelage.models.location import locate

    location = locate(MODEL, None)
    tokenizer = AutoTokenizer.from_pretrained(location.path)
    tiny = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=MAX_LENGTH,
    )
    rows = [
        {
            "prompt": [{"role": "user", "content": "\n\n".join(filter(None, (row["instruction"], row.get("input"))))}],
            "completion": [{"role": "assistant", "content": row["output"]}],
        }
        for row in alpaca(path, count)
    ]
    dataset = Dataset.from_list(rows)
    options = SFTConfig(
        output_dir=str(folder / "out"),
        max_length=MAX_LENGTH,
        packing=True,
        completion_only_loss=True,
        report_to=[],
        use_cpu=True,
        bf16=False,
    )
    model = LlamaForCausalLM(tiny)
    start = time.perf_counter()
    trainer = SFTTrainer(model=model, args=options, train_dataset=dataset, processing_class=tokenizer)
    seconds = time.perf_counter() - start
    packed = trainer.train_dataset
    return {"seconds": seconds, "tokens": sum(map(len, packed["input_ids"])), "rows": count, "packs": len(packed)}


SIDES = {"ours": ours, "trl": trl}


def measured(side: str, path: Path, count: int) -> dict[str, float]:
    """One side in a fresh process, with caches of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, str(path), "--rows", str(count), "--side", side, "--folder", folder]
        environment = {**os.environ, "HF_DATASETS_CACHE": folder, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            sys.exit(done.stderr)
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


def main() -> None:
    """Run pairs in turns and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.side:
        prepare = SIDES[given.side]
        prepare(given.path, 8, given.folder)
        print(json.dumps(prepare(given.path, given.rows, given.folder)))
        return
    ratios = []
    for pair in range(given.pairs):
        both = {side: measured(side, given.path, given.rows) for side in (SIDES if pair % 2 else reversed(SIDES))}
        rates = {side: found["rows"] / found["seconds"] for side, found in both.items()}
        ratios.append(rates["ours"] / rates["trl"])
        for side, found in both.items():
            print(f"{side:5}{rates[side]:9,.0f} rows/s  {found['tokens']:,} tokens in {found['packs']:,} packs")
    print(f"ratio of rates, median of {len(ratios)} pairs: {statistics.median(ratios):.2f}  {ratios}")


if __name__ == "__main__":
    main()
