"""`tutelage data VERB`: looks at rows, or writes rows that `train` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
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
Output = Annotated[Path, typer.Option("-o", "--output", help="The .jsonl file to write.")]
Folder = Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")]
AsAlpaca = Annotated[bool, typer.Option("--alpaca", help="Write instruction, input and output instead of messages.")]

_OVERRIDE = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=")


def _parted(words: list[str]) -> tuple[list[str], list[str]]:
    """Files, and overrides, which have the form section.option=value and name no file that is there."""
    overrides = [word for word in words if _OVERRIDE.match(word) and not Path(word).exists()]
    return [word for word in words if word not in overrides], overrides


@app.command(epilog="tutelage data stats rows.jsonl --html rows.html")
def stats(
    what: What,
    as_json: Json = False,
    html: Annotated[Path | None, typer.Option(help="Write a page, too.")] = None,
) -> None:
    """Count what is in the rows.

    Lengths, roles, scripts, repeats, and what was dropped and why; tokens where a recipe or model.path=MODEL names a
    model.
    """
    from tutelage import curate
    from tutelage.cli import show_data

    files, overrides = _parted(what)
    facts: Any = curate.stats(files, overrides, Terminal(), page=html)
    if as_json:
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    console = Console(highlight=False)
    for line in show_data.data_text(facts):
        console.print(line, markup=False, soft_wrap=True)
    if html is not None:
        _line("page", str(html))


@app.command(epilog="tutelage data show rows.jsonl --limit 3")
def show(
    what: What,
    as_json: Json = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Show this many; 5 as text, all as JSON.")] = None,
) -> None:
    """Show rows as they are read, and what cleaning found."""
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
    """Write the rows that stay, and apart those that leave.

    Rules of data.clean and data.duplicates say what leaves. It goes to OUTPUT.dropped, each row with its reason.
    """
    from tutelage import curate

    files, overrides = _parted(what)
    _told(curate.clean(files, output, overrides, Terminal(), form="alpaca" if alpaca else "as-read"), as_json)


@app.command(epilog="tutelage data split rows.jsonl -o folder data.heldout=0.1 data.duplicates.near=keep")
def split(what: What, output: Folder, alpaca: AsAlpaca = False, as_json: Json = False) -> None:
    """Write train.jsonl and heldout.jsonl into a folder.

    Rows with the same prompt, or nearly the same, stay on one side. data.heldout is the share that is held out.
    """
    from tutelage import curate

    files, overrides = _parted(what)
    _told(curate.split(files, output, overrides, Terminal(), form="alpaca" if alpaca else "as-read"), as_json)


@app.command(epilog="tutelage data mix a.jsonl b.jsonl -o mixed.jsonl data.mixture.by=examples data.train.1.share=3")
def mix(what: What, output: Output, alpaca: AsAlpaca = False, as_json: Json = False) -> None:
    """Write the rows of one epoch of a mixture.

    Rows that an epoch takes twice stand there twice, one after the other; training shuffles them.
    """
    from tutelage import curate

    files, overrides = _parted(what)
    _told(curate.mix(files, output, overrides, Terminal(), form="alpaca" if alpaca else "as-read"), as_json)


@app.command(epilog="tutelage data decontaminate rows.jsonl -o clean.jsonl --against gsm8k=gsm8k_test.jsonl")
def decontaminate(
    what: What,
    output: Output,
    against: Annotated[list[str], typer.Option(help="A file of evaluation questions, as path or name=path.")],
    alpaca: AsAlpaca = False,
    as_json: Json = False,
) -> None:
    """Write the rows that hold no evaluation question.

    Those that do go to OUTPUT.dropped, each with the question that it holds. Give --against once for each set.
    """
    from tutelage import curate

    files, overrides = _parted(what)
    result = curate.clean(files, output, overrides, Terminal(), form="alpaca" if alpaca else "as-read", against=against)
    _told(result, as_json)


@app.command(epilog="tutelage data convert trees.jsonl.gz -o pairs.jsonl --to pairs")
def convert(
    what: What,
    output: Output,
    to: Annotated[str, typer.Option(help="messages, alpaca, or pairs of a preference set.")] = "messages",
    as_json: Json = False,
) -> None:
    """Write rows of any format in one form."""
    from tutelage import curate

    files, overrides = _parted(what)
    _told(curate.convert(files, output, overrides, Terminal(), to=to), as_json)


def _told(result: dict[str, Any], as_json: bool) -> None:
    """What was written, and what became of the rows."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False, indent=2))
        return
    for name in ("output", "train", "heldout", "dropped"):
        if name in result:
            _line(name, result[name])
    for portion in result.get("mixture", ()):
        passes = f"{portion['taken']:,} rows, {portion['epochs']:.2f} times its {portion['rows']:,}"
        _line("mix", f"{portion['source']}: {passes}")
    for text in _ledger(result["ledger"], result.get("written"), "heldout" in result):
        _line(*text)


def _ledger(ledger: Mapping[str, Any], written: int | None, both: bool) -> Iterator[tuple[str, str]]:
    """The rows that were read as a sum, and what cleaning did to them."""
    stay = f"{ledger['trained']:,} in train.jsonl + {ledger['heldout']:,} in heldout.jsonl"
    left = "".join(f" + {rows:,} dropped ({why})" for why, rows in ledger["dropped"].items())
    yield "rows", f"{ledger['rows']:,} read = {stay if both else format(ledger['trained'], ',') + ' kept'}{left}"
    if written is not None:
        yield "lines", f"{written:,} written"
    for rule, counts in ledger["cleaned"].items():
        done = ", ".join(f"{rows:,} {action}" for action, rows in counts.items())
        yield "clean", f"{rule.replace('_', ' ')}: {done}"


def _line(label: str, text: str) -> None:
    Console(highlight=False).print(f"{label:<8}{text}", markup=False, soft_wrap=True)
