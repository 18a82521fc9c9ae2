"""`tutelage data suspects RUN`: rows of a run that are worth a look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tutelage.cli.screen import Terminal, printable

CUT = 160
"""Characters of a prompt and of an answer on the screen."""


def suspects(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    top: Annotated[int, typer.Option(min=1, help="List this many at most.")] = 50,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the weights are written; RUN/adjust.jsonl otherwise.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """List the rows that look mislabelled, unlearnable, in conflict or memorised.

    Judged by what each row cost at each pass. The file of weights is what data.adjust of the next recipe reads.
    """
    from tutelage.suspects import find

    screen = Terminal()
    with screen.stage("reading the rows of the run", None) as advance:
        found = find(folder, top=top, progress=lambda stage, rows: advance(rows, note=stage), say=screen.say)
    path = found.write(folder, out)
    if as_json:
        print(json.dumps({**found.as_json(), "adjust": str(path)}, ensure_ascii=False, indent=2))
        return
    console = Console(highlight=False)
    if found.rows:
        console.print(_table(list(found.rows)))
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.found.items())
    _line(console, "rows", f"{found.trained:,} trained on, up to {found.passes:,} times each: {kinds}")
    for note in found.notes:
        _line(console, "note", note)
    if found.rows:
        _line(console, "weights", f"{path}; look through it, then train with data.adjust={path}")


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(show_lines=True)
    for name in ("kind", "score", "loss by pass"):
        table.add_column(name, justify="right" if name == "score" else "left", vertical="top")
    table.add_column("row", overflow="fold", ratio=1)
    for row in rows:
        text = Text(printable(row["origin"]) + "\n", style="cyan")
        text.append(printable(row["why"]) + "\n", style="default")
        text.append(_cut(row["prompt"]) + "\n", style="dim")
        text.append(_cut(row["answer"]), style="green")
        table.add_row(row["kind"], f"{row['score']:.1f}", _losses(row["losses"]), text)
    return table


def _losses(losses: list[float]) -> str:
    """The first and the last ones, where there are many."""
    shown = [f"{loss:.2f}" for loss in losses]
    return " ".join(shown if len(shown) <= 4 else [*shown[:2], "..", *shown[-2:]])


def _cut(text: str) -> str:
    one = printable(" ".join(text.split()))
    return one if len(one) <= CUT else one[: CUT - 4] + " ..."


def _line(console: Console, label: str, text: str) -> None:
    console.print(f"{label:<8}{text}", markup=False, soft_wrap=True)
