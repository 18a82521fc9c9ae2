"""A million made dialogues into a token store: rows per second by decile, peak memory, disk, and the second start.

python benchmarks/million.py [--dialogues 1000000] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = "smollm2-135m-instruct"
TEXT = """
the of and to in is that it was for on are with as they be at one have this from by hot word but what
some we can out other were all there when up use your how said an each she which do their time if will
way about many then them write would like so these her long make thing see him two has look more day
could go come did number sound no most people my over know water than call first who may down side been
now find any new work part take get
"""
WORDS = TEXT.split()


def write(path: Path, count: int) -> None:
    """Write dialogues of two or four turns, each other than the rest."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            turns = []
            for _ in range(draw.choice((1, 1, 2))):
                asked = " ".join(draw.choices(WORDS, k=draw.randint(5, 60)))
                said = " ".join(draw.choices(WORDS, k=draw.randint(5, 120)))
                turns.append({"role": "user", "content": f"{number}: {asked}?"})
                turns.append({"role": "assistant", "content": f"{said}."})
            file.write(json.dumps({"messages": turns}) + "\n")


def prepare(path: Path, folder: Path) -> dict[str, object]:
    """Fill, or find, the store of these dialogues."""
    import transformers.models.auto.tokenization_auto  # noqa: F401

    import tutelage.models.tokenizer  # noqa: F401
    from tutelage import assemble, config

    values = {
        "model": {"path": MODEL},
        "data": {"train": [{"path": str(path)}], "store": str(folder / "store")},
        "output": str(folder / "run"),
    }
    times: list[float] = []

    def progress(stage: str, rows: int) -> None:
        if stage == "encoding":
            times.append(time.perf_counter())

    start = time.perf_counter()
    prepared = assemble.prepare_data(config.resolve(values).recipe, progress)
    first = prepared.train[prepared.mixture.order(0)[0][0]]
    seconds = time.perf_counter() - start
    rows = len(times)
    edges = [times[rows * k // 10 - (k > 0)] for k in range(11)] if rows >= 10 else []
    store = prepared.dataset.store
    return {
        "seconds": seconds,
        "rows": len(store.rows),
        "tokens": int(store.lengths.sum()),
        "store_bytes": store.bytes_on_disk(),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "rows_per_second_by_decile": [rows / 10 / (b - a) for a, b in itertools.pairwise(edges)],
        "first_example_tokens": len(first),
    }


def main() -> None:
    """Write the dialogues, prepare them twice in processes of their own, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.prepare:
        print(json.dumps(prepare(given.prepare, given.folder)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "dialogues.jsonl"
        write(path, given.dialogues)
        for name in ("built", "found"):
            command = [sys.executable, __file__, "--prepare", str(path), "--folder", folder]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            found = json.loads(done.stdout.splitlines()[-1])
            deciles = " ".join(f"{rate:,.0f}" for rate in found["rows_per_second_by_decile"])
            print(
                f"{name}: {found['rows']:,} rows, {found['tokens']:,} tokens in {found['seconds']:.1f} s; "
                f"peak memory {found['peak_memory_bytes'] / 2**30:.2f} GiB; "
                f"disk {found['store_bytes'] / (2 * found['tokens']):.3f} x two bytes a token"
                + (f"; rows/s by decile {deciles}" if deciles else "")
            )


if __name__ == "__main__":
    main()
