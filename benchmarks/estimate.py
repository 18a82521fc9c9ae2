"""What `check` predicts against what a run takes: peak memory and seconds of a step, in six configurations.

    python benchmarks/estimate.py [--steps 3]

SmolLM2-135M on the demo's rows, each configuration in a process of its own; a step's global batch fills about one and a
half micro-batches. The peak is the process's, the seconds are the median of the steps after the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIGURATIONS = [
    ("full", 1024, "none"),
    ("full", 2048, "none"),
    ("full", 2048, "full"),
    ("lora", 1024, "none"),
    ("lora", 2048, "selective"),
    ("lora", 4096, "none"),
]
ROW_TOKENS = 154


def one(adapter: str, token_budget: int, checkpointing: str, steps: int) -> None:
    """A short run in this process; its figures as the last line."""
    from tutelage import commands
    from tutelage.demo import orders

    with tempfile.TemporaryDirectory() as folder:
        train, heldout = orders.write(Path(folder) / "data", train=240)
        run = Path(folder) / "run"
        recipe = {
            "model": {"path": "smollm2-135m-instruct", "adapter": {"kind": adapter}, "device": "cpu"},
            "data": {"train": [{"path": str(train)}], "heldout": {"path": str(heldout), "limit": 4}},
            "train": {
                "steps": steps,
                "global_batch_size": max(4, round(1.5 * token_budget / ROW_TOKENS)),
                "token_budget": token_budget,
                "checkpointing": checkpointing,
            },
            "evaluate": {"points": 0, "samples": 0},
            "output": str(run),
        }
        commands.train(recipe)
        plan = json.loads((run / "plan.json").read_text())
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    predicted = plan["predicted"]
    figures = {
        "peak": [predicted["peak_memory_bytes"], metrics[-1]["peak_memory_bytes"]],
        "step": [predicted["step_seconds"], statistics.median(line["seconds"] for line in metrics[1:])],
    }
    print(json.dumps(figures))


def main() -> None:
    """Each configuration in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        adapter, tokens, checkpointing = arguments.one
        one(adapter, int(tokens), checkpointing, arguments.steps)
        return
    for configuration in CONFIGURATIONS:
        command = [sys.executable, "-W", "ignore", __file__, "--steps", str(arguments.steps), "--one"]
        done = subprocess.run([*command, *map(str, configuration)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        (peak, taken), (step, seconds) = found["peak"], found["step"]
        adapter, tokens, kind = configuration
        print(
            f"{adapter} {tokens:5} {kind:9} peak {peak / 1e9:.2f} GB predicted, {taken / 1e9:.2f} measured "
            f"({peak / taken:.2f}); step {step:.1f} s predicted, {seconds:.1f} measured ({step / seconds:.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
