"""`tutelage sweep`: a grid of runs, and which of them is best."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tutelage.cli.screen import Lasting, Terminal, printable

LONGEST = 60
"""Characters of a setting that are shown."""


def sweep(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file.")],
    varied: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE,VALUE...]...", help="As in train.learning_rate=1e-5,2e-5.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Train each setting so often, with other seeds.")] = 1,
    halving: Annotated[
        str, typer.Option(metavar="N|off", help="Of each stage, one setting in N goes on; off: all to the end.")
    ] = "3",
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the runs go; runs/sweep-NAME.")] = None,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Runs at once.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Train a recipe with every combination of values, and say which is best on held-out rows.

    The same command goes on where it was broken off.
    """
    from tutelage.signals import SIGNALS
    from tutelage.sweep import Sweep

    SIGNALS.install()
    try:
        told = Sweep(
            recipe, varied or (), out, seeds=seeds, halving=_parts(halving), at_once=jobs, screen=Terminal()
        ).run()
    finally:
        SIGNALS.remove()
    console = Console(file=Lasting(sys.stdout), highlight=False)
    if as_json:
        console.out(json.dumps(told, ensure_ascii=False, indent=2))
        return
    for line in table(told):
        console.print(printable(line), markup=False, soft_wrap=True)


def _parts(halving: str) -> int | None:
    from tutelage.errors import Problem, RecipeError

    if halving == "off":
        return None
    if halving.isascii() and halving.isdecimal() and int(halving) >= 2:
        return int(halving)
    what, fix = "--halving is neither a whole number from 2 on nor `off`", "--halving 3, or --halving off"
    raise RecipeError(Problem("recipe/bad-value", what, "command line", halving[:80], fix=fix))


def table(told: dict[str, Any]) -> Iterator[str]:
    """The settings, the best one first, and what can be said of them."""
    several = told["asked"]["seeds"] > 1
    heads = ["SETTING", "STEPS", "LOSS", *(["SD OF SEEDS"] if several else []), "TO THE BEST", "INTERVAL", ""]
    rows = [heads, *(list(_cells(row, several)) for row in told["settings"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
    yield told["sentence"]
    yield from (f"note    {note}" for note in told["notes"])
    for row in told["settings"]:
        if row["error"]:
            yield f"failed  {row['setting']}: {row['error']}"
    yield f"sweep   {os.path.join(told['folder'], 'sweep.html')}"


def _cells(row: dict[str, Any], several: bool) -> Iterator[str]:
    against = row["against_best"]
    label = row["setting"]
    yield label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"
    yield f"{row['step'] or 0:,} of {row['steps']:,}"
    yield "-" if row["nll"] is None else f"{row['nll']:.4f}"
    if several:
        variance = row["variance_over_seeds"]
        yield "-" if variance is None else f"{variance**0.5:.4f}"
    yield f"{against['difference']:+.4f}" if against else "-"
    yield "{:+.4f} to {:+.4f}".format(*against["interval"]) if against else "-"
    said = [] if row["status"] == "done" else [row["status"]]
    said += ["best"] if row["best"] else []
    said += [("worse" if against["told"] else "cannot be told") + f" at step {row['step']:,}"] if against else []
    yield ", ".join(said)
