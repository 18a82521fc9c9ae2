"""`tutelage VERB`: one short function a verb."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tutelage.cli.convert import convert
from tutelage.cli.dashboard import dashboard
from tutelage.cli.data import app as data
from tutelage.cli.evaluate import compare, evaluate
from tutelage.cli.harness import harness
from tutelage.cli.judge import judge
from tutelage.cli.runs import app as runs
from tutelage.cli.screen import Lasting, Terminal
from tutelage.cli.suspects import suspects
from tutelage.cli.sweep import sweep
from tutelage.cli.track import track

app = typer.Typer(
    help="Adapt pretrained language models to demonstrations, and see whether it helped.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Until = Annotated[int | None, typer.Option(min=1, metavar="STEP", help="Stop after this step; --resume goes on.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def _with_budgets(overrides: list[str] | None, memory: str | None, time: str | None) -> list[str]:
    """The overrides, with the two options that have names of their own."""
    given = {"memory": memory, "time": time}
    return [*(overrides or ()), *(f'budget.{name}="{value}"' for name, value in given.items() if value is not None)]


@app.command(epilog="tutelage check recipes/alpaca-lora.yaml")
def check(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    as_json: Json = False,
    memory: Memory = None,
    time: Time = None,
    data_only: Annotated[bool, typer.Option("--data-only", help="Leave out what the run will take.")] = False,
) -> None:
    """Validate a recipe, read all its data, and say what the run will take. Trains nothing."""
    from tutelage import commands
    from tutelage.cli import show

    result = commands.check(recipe, _with_budgets(overrides, memory, time), Terminal(), data_only=data_only)
    if as_json:
        print(json.dumps(result, ensure_ascii=False, indent=2))
    else:
        show.check(Console(highlight=False), result)


@app.command(epilog="tutelage preview recipes/alpaca-lora.yaml --limit 2")
def preview(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    as_json: Json = False,
    limit: Annotated[int | None, typer.Option(help="Show this many; 5 as text, all as JSON.")] = None,
) -> None:
    """Show the rows as tokens, the trained ones coloured."""
    from tutelage import commands
    from tutelage.cli import show

    chosen = limit if as_json or limit is not None else 5
    prepared, rows = commands.preview(recipe, overrides or (), Terminal(), limit=chosen)
    console = Console(highlight=False)
    for row in rows:
        if as_json:
            print(json.dumps(row.as_json()))
        else:
            show.preview(console, row)
    if not as_json:
        console.print(prepared.dataset.ledger.summary(), markup=False, soft_wrap=True)


@app.command(epilog="tutelage train recipes/alpaca-lora.yaml train.learning_rate=1e-4")
def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    as_json: Json = False,
    memory: Memory = None,
    time: Time = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that the output folder holds.")] = False,
    allow_data_change: Annotated[bool, typer.Option(help="Continue although the rows are other ones.")] = False,
    until: Until = None,
) -> None:
    """Train, and measure the model before and after."""
    from tutelage import commands
    from tutelage.cli import show

    resolved = commands.resolve(recipe, _with_budgets(overrides, memory, time))
    options = {"resume": resume, "allow_data_change": allow_data_change}
    result = commands.train(resolved, screen=Terminal(), **options, until=until)
    if os.environ.get("RANK", "0") != "0":
        return  # Of several processes the first one speaks.
    console = Console(file=Lasting(sys.stdout), highlight=False)  # What was reached is on disk.
    if as_json:
        console.out(json.dumps(result, ensure_ascii=False, indent=2))
    else:
        show.result(console, result, resolved.recipe.output)


@app.command(epilog="tutelage demo runs/demo")
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the run is written.")] = Path("runs/demo"),
) -> None:
    """Teach a small model to turn a customer's sentence into JSON, and show whether it learned it."""
    from tutelage import commands
    from tutelage.cli import show

    run, result = commands.demo(folder, Terminal())
    console = Console(file=Lasting(sys.stdout), highlight=False)
    show.samples(console, run)
    show.result(console, result, str(run))


@app.command(epilog='tutelage chat runs/alpaca-lora -m "Name three primary colours."')
def chat(
    folder: Annotated[str, typer.Argument(help="A run, a model folder, or a hub id.")],
    message: Annotated[str | None, typer.Option("-m", "--message", help="Answer this and stop.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run the folder's own code.")] = False,
) -> None:
    """Talk to a saved model."""
    from tutelage.cli.conversation import converse

    with Terminal().stage("loading the model", None):
        from tutelage.generate.chat import Chat

        model = Chat(folder, trusted=trust_remote_code)
    converse(model, message=message, system=system, max_new_tokens=max_new_tokens)


@app.command(epilog="tutelage report runs/alpaca-lora")
def report(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    others: Annotated[
        list[Path] | None, typer.Option("--with", metavar="RUN", help="Draw this run's curves beside; repeatable.")
    ] = None,
) -> None:
    """Write a run's report.html again."""
    from tutelage import commands

    print(commands.report(folder, others or ()))


@app.command(epilog="tutelage options train")
def options(section: Annotated[str | None, typer.Argument(help="As in train or data.")] = None) -> None:
    """List the options of a recipe: name, type, default, meaning."""
    from tutelage import config

    for option in config.options(section):
        print(f"{option.name}  ({option.type}; default {option.default})\n    {option.doc}")


@app.command(epilog="tutelage explain data/over-long")
def explain(code: Annotated[str, typer.Argument(help="The code in brackets after `error`.")]) -> None:
    """Say what an error means."""
    from difflib import get_close_matches

    from tutelage.errors import CODES, Problem, RecipeError

    if code not in CODES:
        near = get_close_matches(code, CODES, n=3)
        fix = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(CODES)}"
        raise RecipeError(Problem("usage/unknown-code", f"there is no error code `{code}`", fix=fix))
    print(CODES[code])


data.command(epilog="tutelage data suspects runs/support --top 20")(suspects)
app.add_typer(data, name="data")
app.add_typer(runs, name="runs")
app.command(epilog="tutelage convert models/old models/new")(convert)
app.command(epilog="tutelage track runs/support --to wandb")(track)
app.command("eval", epilog="tutelage eval runs/support --task gsm8k --data gsm8k_test.jsonl --limit 200")(evaluate)
app.command(epilog="tutelage compare evaluations/base evaluations/support --html comparison.html")(compare)
app.command(epilog="tutelage judge evaluations/base evaluations/support --endpoint URL --model NAME")(judge)
app.command("lm-eval", epilog="tutelage lm-eval runs/support --task hellaswag --limit 200")(harness)
app.command(epilog="tutelage sweep recipes/support.yaml train.learning_rate=1e-4,2e-4,4e-4")(sweep)
app.command(epilog="tutelage dashboard runs/support")(dashboard)

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As in train.epochs=2.")]
Memory = Annotated[str | None, typer.Option("--budget-memory", metavar="SIZE", help="Use at most this, as in 6GB.")]
Time = Annotated[str | None, typer.Option("--budget-time", metavar="TIME", help="Take at most this, as in 2h.")]


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        from tutelage import __version__

        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")
