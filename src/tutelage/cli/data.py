"""`tutelage data VERB`: looks at rows, or writes rows that `train` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tutelage.cli.screen import Terminal

app = typer.Typer(help="Look at data, clean it, split it, mix it.", no_args_is_help=True, rich_markup_mode=None)

What = Annotated[
    list[str], typer.Argument(metavar="RECIPE|FILE... [KEY=VALUE]...", help="A recipe, or data files, and options.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Where to write.")]
AsAlpaca = Annotated[bool, typer.Option("--alpaca", help="Write instruction, input and output instead of messages.")]


def _parted(words: list[str]) -> tuple[list[str], list[str]]:
    """Files and overrides, which have the form section.option=value."""
    overrides = [word for word in words if word.startswith(("data.", "model.")) and "=" in word]
    return [word for word in words if word not in overrides], overrides


@app.command(epilog="tutelage data stats rows.jsonl --html rows.html")
def stats(
    what: What,
    as_json: Json = False,
    html: Annotated[Path | None, typer.Option(help="Write a page, too.")] = None,
) -> None:
    """Count: lengths, roles, scripts, repeats, what was dropped and why; tokens, where a recipe names the model."""
    from tutelage import curate
    from tutelage.cli import show_data

    files, overrides = _parted(what)
    facts = curate.stats(files, overrides, Terminal())
    if html is not None:
        curate.write_page(facts, html)
    if as_json:
        print(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        for line in show_data.data_text(facts):
            Console(highlight=False).print(line, markup=False, soft_wrap=True)
        if html is not None:
            print(f"page    {html}")


@app.command(epilog="tutelage data show rows.jsonl --limit 3")
def show(
    what: What,
    as_json: Json = False,
    limit: Annotated[int | None, typer.Option(help="Show this many; 5 as text, all as JSON.")] = None,
) -> None:
    """Show rows as they are read, with what cleaning found."""
    from tutelage import curate
    from tutelage.cli.show_rows import row_text

    files, overrides = _parted(what)
    chosen = limit if as_json or limit is not None else 5
    console = Console(highlight=False)
    for row in curate.show(files, overrides, limit=chosen):
        if as_json:
            print(json.dumps(row, ensure_ascii=False))
        else:
            console.print(row_text(row), soft_wrap=True)


@app.command(epilog="tutelage data clean raw.jsonl -o rows.jsonl data.clean.refusals=drop data.duplicates.near=drop")
def clean(what: What, output: Output, alpaca: AsAlpaca = False, as_json: Json = False) -> None:
    """Write the rows that stay; those that leave go to a second file, with reasons."""
    from tutelage import curate

    files, overrides = _parted(what)
    _told(curate.clean(files, output, overrides, Terminal(), form="alpaca" if alpaca else "messages"), as_json)


@app.command(epilog="tutelage data split rows.jsonl -o folder data.heldout=0.1 data.duplicates.near=keep")
def split(what: What, output: Output, alpaca: AsAlpaca = False, as_json: Json = False) -> None:
    """Write train.jsonl and heldout.jsonl; repeats stay on one side."""
    from tutelage import curate

    files, overrides = _parted(what)
    _told(curate.split(files, output, overrides, Terminal(), form="alpaca" if alpaca else "messages"), as_json)


@app.command(epilog="tutelage data mix recipe.yaml -o mixed.jsonl data.mixture.by=examples")
def mix(what: What, output: Output, alpaca: AsAlpaca = False, as_json: Json = False) -> None:
    """Write the rows of one epoch of a mixture."""
    from tutelage import curate

    files, overrides = _parted(what)
    _told(curate.mix(files, output, overrides, Terminal(), form="alpaca" if alpaca else "messages"), as_json)


@app.command(epilog="tutelage data decontaminate rows.jsonl -o clean.jsonl --against gsm8k=gsm8k_test.jsonl")
def decontaminate(
    what: What,
    output: Output,
    against: Annotated[list[str], typer.Option(help="A file of evaluation questions, as path or name=path.")],
    alpaca: AsAlpaca = False,
    as_json: Json = False,
) -> None:
    """Write the rows that hold no question of the named evaluation sets."""
    from tutelage import curate

    files, overrides = _parted(what)
    named = f"data.decontaminate.against={json.dumps(against)}"
    form: Any = "alpaca" if alpaca else "messages"
    _told(curate.clean(files, output, [*overrides, named], Terminal(), form=form), as_json)


@app.command(epilog="tutelage data convert pairs.json -o pairs.jsonl --to pairs")
def convert(
    what: What,
    output: Output,
    to: Annotated[str, typer.Option(help="messages, alpaca, or pairs for a preference set.")] = "messages",
    as_json: Json = False,
) -> None:
    """Write rows of any format in one form."""
    from tutelage import curate
    from tutelage.errors import Problem, RecipeError

    if to not in ("messages", "alpaca", "pairs"):
        fix = "one of messages, alpaca, pairs"
        raise RecipeError(Problem("recipe/bad-value", f"`--to` cannot be {to}", "command line", fix=fix))
    files, overrides = _parted(what)
    _told(curate.convert(files, output, overrides, to=to), as_json)


def _told(result: dict[str, Any], as_json: bool) -> None:
    """What was written, and the ledger."""
    from tutelage.cli.show_data import ledger_text

    if as_json:
        print(json.dumps(result, ensure_ascii=False, indent=2))
        return
    console = Console(highlight=False)
    for name in ("output", "train", "heldout", "dropped"):
        if name in result:
            console.print(f"{name:<8}{result[name]}", markup=False, soft_wrap=True)
    for portion in result.get("mixture", ()):
        line = f"{portion['source']}: {portion['taken']:,} of {portion['rows']:,} rows, {portion['epochs']:.2f} epochs"
        console.print(f"{'mixture':<8}{line}", markup=False, soft_wrap=True)
    if "ledger" in result:
        console.print(f"{'rows':<8}{ledger_text(result['ledger'])}", markup=False, soft_wrap=True)
    else:
        console.print(f"{'rows':<8}{result['rows']:,}", markup=False)
