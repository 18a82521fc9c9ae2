"""`tutelage runs VERB`: what runs there are, whether one is whole, and how two differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="List runs, verify one, compare two.", no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
SECTIONS = ("recipe", "data", "model", "environment", "plan", "results")
LONGEST = 60
"""Characters of a value that are shown."""


@app.command("list", epilog="tutelage runs list runs")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List every run below a folder: how it stands, how far it came, what it can go on from."""
    from tutelage import history

    rows = history.listing(folder)
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    elif not rows:
        _print(f"no runs below {folder}")
    else:
        heads = ["RUN", "STATUS", "STEPS", "HELD-OUT", "CHECKPOINTS", "MODEL", "BEGUN", "SESSIONS"]
        table = [heads, *(list(_cells(row)) for row in rows)]
        widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
        for row in table:
            _print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command(epilog="tutelage runs verify runs/alpaca-lora")
def verify(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    as_json: Json = False,
) -> None:
    """Read everything that a run left, and say whether it is whole. Changes nothing.

    Checkpoints are compared with the SHA-256 of what was written. Exit code 1 when something is not whole.
    """
    from tutelage import history
    from tutelage.errors import CheckFailed, Problem

    found = history.verify(folder)
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        for line in _verified(found):
            _print(line)
    if found["problems"]:
        raise CheckFailed(
            *(
                Problem("check/not-whole", f"{one['file']} is not whole", str(folder), one["reason"], fix=one["fix"])
                for one in found["problems"]
            )
        )


@app.command(epilog="tutelage runs diff runs/first runs/second")
def diff(
    a: Annotated[Path, typer.Argument(help="A run folder.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
    as_json: Json = False,
) -> None:
    """Say how two runs differ: recipe, data, model, environment, plan, results, and the first step that differs."""
    from tutelage import history

    found = history.diff(a, b)
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        for line in _compared(found):
            _print(line)


def _cells(row: dict[str, Any]) -> Iterator[str]:
    steps, heldout, saved = row["steps"], row["heldout"], row["checkpoints"]
    yield row["name"]
    yield row["status"]
    yield f"{steps['made']:,} of {'?' if steps['planned'] is None else format(steps['planned'], ',')}"
    yield "-" if heldout is None else f"{heldout['difference']:+.3f} {heldout['verdict']}"
    newest = f"{saved['count']}, newest {saved['newest']:,}, {_size(saved['bytes'])}" if saved["count"] else "none"
    yield newest + (f", {saved['put_aside']} put aside" if saved["put_aside"] else "")
    yield "yes" if row["model"] else "no"
    yield (row["begun"] or "-")[:16].replace("T", " ")
    yield str(row["sessions"])


def _verified(found: dict[str, Any]) -> Iterator[str]:
    saved, model = found["checkpoints"], found["model"]
    yield f"run       {found['folder']}: {found['status']}, {found['steps']:,} steps written down"
    for one in saved["each"]:
        yield f"saved     step {one['step']:,}: " + (f"whole, {_size(one['bytes'])}" if one["whole"] else "not whole")
    if saved["bytes"]:
        yield f"          {_size(saved['bytes'])} read and hashed, {saved['mb_per_second']:,.0f} MB/s"
    if not saved["each"]:
        yield "saved     no checkpoint"
    for one in found["put_aside"]:
        yield f"aside     {one['folder']}: {one['reason']}"
    if model["bytes"]:
        speed = f"{_size(model['bytes'])}, {model['mb_per_second']:,.0f} MB/s"
        yield f"model     {model['tensors']:,} tensors looked through, {speed}"
    for note in found["notes"]:
        yield f"note      {note}"
    if not found["problems"]:
        yield "everything is whole"


def _compared(found: dict[str, Any]) -> Iterator[str]:
    yield f"A  {found['a']} ({found['status']['a']})"
    yield f"B  {found['b']} ({found['status']['b']})"
    for name in SECTIONS:
        for one in found[name]:
            yield f"{name:<12}{one['what']}: {_short(one['a'])} | {_short(one['b'])}"
    for what, step in found["steps"]["first_difference"].items():
        if step is not None:
            yield f"{'steps':<12}first other {what.replace('_', ' ')}: step {step:,}"
    weights = found["weights"]
    if weights is not None:
        same = "the same" if weights["same"] else f"{', '.join(weights['differ'])} differ"
        yield f"{'weights':<12}{weights['at']}: {same}"
    for letter in ("a", "b"):
        for file, reason in found["unreadable"][letter].items():
            yield f"{'note':<12}{letter.upper()}: {file} cannot be read: {reason}"
    yield found["sentence"]


def _size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _short(value: Any) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _print(line: str) -> None:
    from tutelage.cli.screen import printable

    print(printable(line))
