"""The page of the fault matrix: `python tests/faults/report.py RESULTS.json [NOTE …] > docs/reliability.md`."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MUST: dict[str, tuple[str, str]] = {
    "F1": (
        "the process is killed without warning",
        "the same command goes on from the newest committed checkpoint; weights, optimizer, row order, metrics, "
        "evaluations and answers are those of the unbroken run, bit for bit; at most an interval is made again, plus "
        "the steps made while a save was being written; nothing is left behind",
    ),
    "F2": (
        "the process ends at a file operation",
        "as F1; no checkpoint ever verifies and differs from the unbroken run's",
    ),
    "F3": (
        "the power goes; what was not synced is lost, zeros, half or there",
        "one of the last two checkpoints verifies, and the last one that was reported does; the journals reach it",
    ),
    "F4": ("the order of syncs and renames", "files, then the manifest, then the name, then the folder"),
    "F5": (
        "a checkpoint is damaged on the disk",
        "found before the first step, named, put aside and not deleted; the one before is used; without one the run "
        "stops and says so",
    ),
    "F6": ("the disk is full or cannot be written", "older checkpoints untouched, a clear error, exact resume"),
    "F7": ("signals", "saved at the next step, exit code 75, exact resume; a second signal ends it at once"),
    "F8": ("suspended and woken up", "goes on; nothing counts as hung"),
    "F9": ("one of several processes is killed", "named by the others, which stop with exit code 8; exact resume"),
    "F10": ("one of several processes hangs", "found in time, every stack written, exit code 8"),
    "F11": ("only one of several processes sees the fault", "all decide the same at the same step"),
    "F12": ("a loader process dies", "-"),
    "F13": ("a data file is damaged or changes while it is read", "found when it is opened, with file and row"),
    "F14": ("the rows change between two sessions", "refused with both digests, or recorded when it was allowed"),
    "F15": ("the recipe changes between two sessions", "refused with both values, or recorded, by each option's class"),
    "F16": ("tokenizer, template, weights or environment change", "refused, or noted where only rounding may differ"),
    "F17": ("a tracker raises, hangs, or loses its network", "same weights, same speed, one warning"),
    "F18": ("values that are not finite", "seen on their step, before the update, by each policy; never saved"),
    "F19": ("a loss that jumps", "as the policy says; what it is compared with is in the checkpoint"),
    "F20": ("the clock jumps", "no effect"),
    "F21": ("two processes on one run", "the second is refused and told who holds it"),
    "F22": ("the run folder vanishes or cannot be written", "a clear error; nothing is written elsewhere"),
    "F23": ("memory runs out", "the step is made again in smaller pieces, with the same result"),
    "F24": ("retention, broken at any operation", "the newest, the best and the last sound one are there at all times"),
    "F25": ("closed output, no terminal, LANG=C", "training is not touched"),
    "F26": ("the export ends at a file operation", "the model is absent, or whole; the same command makes it"),
    "F27": ("resumed far into an epoch", "the first step comes as soon as from the beginning"),
    "F28": ("other numbers of processes", "same rows, losses within rounding"),
    "F29": ("each protection taken away", "the check that is there for it fails"),
}
"""What is done, and what must hold."""
ELSEWHERE = {
    "F12": "There are no loader processes: encoded rows are mapped into memory.",
    "F13": "Rows are read once and encoded into a store that is checked by hash; tests/unit/data tests its damage.",
    "F23": "tests/unit/train/test_redone_step.py and test_memory.py.",
    "F27": "The position is one number and order is a function of it; tests/unit/data/test_plan.py.",
    "F28": "tests/runs, with several processes.",
}
"""Where no line was recorded here, and why."""


def page(results: list[dict[str, Any]], notes: list[str]) -> str:
    """The page, as Markdown; notes stand beside how it was made."""
    trials, passed = sum(one["trials"] for one in results), sum(one["passed"] for one in results)
    lines = [
        "# Reliability: what was broken, and what held",
        "",
        "Made from what `make faults` records: real runs are broken, and what they leave is compared with an unbroken "
        "one, byte for byte. Do not edit.",
        "",
        f"{trials:,} trials, {passed:,} passed; {_hours(sum(one['seconds'] for one in results))}.",
        "",
        *(f"- {line}" for line in [*made_with(), *(notes or ["command: `make faults`"])]),
        "",
        "## The run",
        "",
        "R60: a model of a million parameters, two epochs of ragged rows with a ragged last batch, 60 optimizer steps "
        "of several micro-batches, dropout, a checkpoint every 5 steps of which 2 are kept, held-out loss in between. "
        "`full` trains every weight of a GPT-2 shape, `lora` an adapter of a Llama shape, `ranks2` is two processes.",
        "",
        "No failure in n trials bounds the rate of failure by 3/n with 95 % confidence. Ends at random times are "
        "therefore joined by ends at every file operation (F2), which random times hardly meet.",
        "",
        "## The matrix",
        "",
        "| | what was done | run | passed | seconds | seen |",
        "|---|---|---|--:|--:|---|",
    ]
    for one in sorted(results, key=lambda one: int(one["id"][1:])):
        held = f"{one['passed']:,} of {one['trials']:,}"
        bold = held if one["passed"] == one["trials"] else f"**{held}**"
        note = one["note"].replace("|", "/")
        lines.append(f"| {one['id']} | {one['fault']} | {one['variant']} | {bold} | {one['seconds']:.0f} | {note} |")
    lines += ["", "## What must hold", "", "| | fault | must hold |", "|---|---|---|"]
    lines += [f"| {id} | {what} | {must} |" for id, (what, must) in MUST.items()]
    missing = [id for id in MUST if id not in {one["id"] for one in results}]
    lines += ["", "## Not in this matrix", ""]
    lines += [f"- {id}, {MUST[id][0]}: {ELSEWHERE.get(id, 'no result was recorded.')}" for id in missing] or [
        "Nothing."
    ]
    return "\n".join([*lines, ""])


def made_with() -> list[str]:
    """When, of what, where, how."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = os.cpu_count()
    return [
        f"date: {time.strftime('%Y-%m-%d')}",
        f"commit: {commit()}",
        f"machine: {platform.system()} {platform.machine()}, {cores} cores, {memory:.0f} GiB, one thread a process",
        f"Python {platform.python_version()}, torch {torch.__version__}",
    ]


def commit() -> str:
    """What is checked out, and whether it was changed since."""

    def git(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=here, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", ":/src", ":/tests")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (", with changes" if changed else "")


def _hours(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


if __name__ == "__main__":
    print(page(json.loads(Path(sys.argv[1]).read_text("utf-8")), sys.argv[2:]), end="")
