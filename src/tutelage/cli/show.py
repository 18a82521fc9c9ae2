"""Results as text: a check, a preview with trained tokens coloured, and the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tutelage.cli.screen import printable
from tutelage.data.show import PreviewRow
from tutelage.runs import Run

TRAINED = "bold green"
NOT_TRAINED = "dim"


def check(console: Console, result: dict[str, Any]) -> None:
    """What would be trained."""
    ledger, tokens = result["ledger"], result["tokens"]
    dropped = "".join(f" + {n:,} dropped ({reason})" for reason, n in ledger["dropped"].items())
    lengths = tokens["quantiles"]
    template = result["template"]
    stops = ", ".join(stop["text"] for stop in result["stop_tokens"])
    sources = [f"{s['path']} ({s['format']}, {s['rows']:,} rows)" for s in result["sources"]]
    share = tokens["supervised"] / max(1, tokens["train"])
    epochs = result["plan"]["epochs"]
    lines = [
        ("model", f"{result['model']}  {result['adapter']['kind']}, learning rate {result['learning_rate']:g}"),
        ("data", "; ".join(sources)),
        ("rows", f"{ledger['rows']:,} = {ledger['trained']:,} trained + {ledger['heldout']:,} held out{dropped}"),
        *(("note", notice) for notice in ledger["notices"]),
        *(("clean", f"{rule.replace('_', ' ')}: {_counted(counts)}") for rule, counts in ledger["cleaned"].items()),
        *(
            [("note", f"{ledger['duplicates']:,} rows repeat a prompt; equal prompts share a side")]
            if ledger["duplicates"]
            else []
        ),
        ("tokens", f"{tokens['train']:,} to train on, {tokens['supervised']:,} of them trained ({share:.0%})"),
        (
            "length",
            f"half up to {lengths['50']:,}, 99 % up to {lengths['99']:,}, the longest {lengths['100']:,} tokens",
        ),
        ("prompt", f"template: {template['name'] if template else 'none (plain text)'}; answers end with {stops}"),
        (
            "plan",
            f"{result['plan']['steps']:,} steps" + (f", {epochs} epoch{'s' if epochs > 1 else ''}" if epochs else ""),
        ),
        *(
            ("mix", f"{m['source']}: {m['taken']:,} of {m['examples']:,} examples an epoch, {m['epochs']:g} passes")
            for m in result["plan"]["mixture"]
            if len(result["plan"]["mixture"]) > 1 or m["taken"] != m["examples"]
        ),
        *(("needs", line) for line in result["needs"]),
        *(("set", f"{option}  ({origin})") for option, origin in result["set"].items() if origin == "command line"),
    ]
    for label, text in lines:
        console.print(f"{label:<8}{text}", markup=False, soft_wrap=True)
    console.print("nothing is wrong; nothing was written", markup=False)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {action}" for action, count in counts.items())


def preview(console: Console, row: PreviewRow) -> None:
    """One example: its origin, and its tokens with the trained ones coloured."""
    example = row.example
    header = f"{example.origin}  {row.split}, {len(example):,} tokens, {example.supervised:,} trained"
    console.print(header, style="cyan", markup=False, soft_wrap=True)
    text = Text()
    marks = not console.is_terminal
    inside = False
    for piece, weight in zip(row.pieces, example.weights, strict=True):
        if marks and (weight > 0) != inside:
            text.append("«" if weight > 0 else "»")
            inside = bool(weight > 0)
        text.append(printable(piece), style=TRAINED if weight > 0 else NOT_TRAINED)
    if inside:
        text.append("»")
    console.print(text, soft_wrap=True)
    console.print()


def result(console: Console, result: dict[str, Any], folder: str) -> None:
    """The answer, and what to do next."""
    heldout, verdict = result["heldout"], result["verdict"]
    console.print()
    console.print(verdict["word"].capitalize(), style="bold", markup=False)
    console.print(verdict["sentence"], markup=False, soft_wrap=True)
    for remark in verdict["remarks"]:
        console.print(f"note    {remark}", markup=False, soft_wrap=True)
    for name, one in (heldout or {}).get("renderings", {}).items():
        console.print(
            f"  {name:<20}{one['base_nll']:.3f} -> {one['tuned_nll']:.3f} ({one['difference']:+.3f})", markup=False
        )
    for name, task in result["tasks"].items():
        if "sentence" not in task:  # Otherwise the verdict says it.
            low, high = task["interval"]
            console.print(
                f"{name}: {task['base']:.1%} -> {task['tuned']:.1%} of {task['n']:,} held-out rows "
                f"({task['difference']:+.1%}, {heldout['confidence']:.0%} interval {low:+.1%} to {high:+.1%})",
                style="bold",
                markup=False,
                soft_wrap=True,
            )
        for field, shares in task["fields"].items():
            console.print(f"  {field:<12}{shares.get('base', 0):7.1%} -> {shares.get('tuned', 0):.1%}", markup=False)
    console.print(
        f"{result['steps']:,} steps in {result['training_seconds']:.0f} s, "
        f"{result['tokens_per_second']:,.0f} tokens/s, {result['peak_memory_bytes'] / 2**30:.1f} GiB; "
        f"{result['seconds']:.0f} s in all",
        markup=False,
    )
    console.print(f"report  {folder}/report.html", markup=False, soft_wrap=True)
    console.print(f"try it  tutelage chat {folder}", markup=False, soft_wrap=True)


def samples(console: Console, folder: Path, count: int = 2) -> None:
    """A few held-out prompts with the answers before and after."""
    rows = list(Run(folder).read_lines("samples.jsonl"))
    for model in ("base", "tuned"):
        assert any(row["model"] == model for row in rows), f"bug: no samples of {model}"
    base = [row for row in rows if row["model"] == "base"][:count]
    tuned = [row for row in rows if row["model"] == "tuned"][:count]
    for before, after in zip(base, tuned, strict=True):
        console.print()
        for label, text in (
            ("asked", before["messages"][-1]["content"]),
            ("before", _one_line(before["answer"])),
            ("after", _one_line(after["answer"])),
        ):
            console.print(f"{label:<8}{text}", markup=False, soft_wrap=True)


def _one_line(text: str, width: int = 240) -> str:
    joined = printable(" ".join(text.split()))
    return joined if len(joined) <= width else joined[:width] + " ..."
