"""`tutelage eval` and `tutelage compare`: answers to tasks, and which of two models gives the better ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tutelage.cli.screen import Terminal, printable

if TYPE_CHECKING:
    from tutelage.evaluation.subject import Subject

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Tasks = Annotated[list[str], typer.Option("--task", metavar="NAME|FILE.yaml[,...]", help="What to ask.")]
Data = Annotated[list[str] | None, typer.Option(metavar="[TASK=]PATH", help="The rows of a task that names none.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Ask this many rows of each task, chosen by a hash.")]
Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where results go; evaluations/NAME if not given.")]
Price = Annotated[float | None, typer.Option(min=0.0, help="Of a million of the endpoint's tokens.")]
SHOWN = 3
"""Rows lost, and rows won, that are shown of each task."""
WIDTH = 160
"""Characters of an answer that are shown."""


def evaluate(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A run, a model folder, a .gguf file, or a hub id.")
    ] = None,
    task: Tasks = [],  # noqa: B006 (typer reads the default)
    data: Data = None,
    limit: Limit = None,
    out: Out = None,
    endpoint: Annotated[str | None, typer.Option(metavar="URL", help="Ask a server, as in http://host/v1.")] = None,
    served: Annotated[str | None, typer.Option("--model", metavar="NAME", help="The server's name for it.")] = None,
    key: Annotated[str | None, typer.Option(metavar="VARIABLE", help="Environment variable with the key.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Ask in plain text, without a chat template.")] = False,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens of this probability.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Keep so many of the likeliest tokens; 0 keeps all.")] = 0,
    min_p: Annotated[float, typer.Option(help="Keep tokens this likely, as a share of the likeliest.")] = 0.0,
    samples: Annotated[int, typer.Option(help="Answers to each row; takes a temperature.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    formats: Annotated[
        int, typer.Option(min=1, help="Ask the same rows in this many wordings, and tell the spread.")
    ] = 1,
    processes: Annotated[int, typer.Option(min=1, help="Models at work at once on this machine.")] = 1,
    in_flight: Annotated[int | None, typer.Option(min=1, help="Answers written at once; changes none.")] = None,
    prompt_price: Price = None,
    completion_price: Price = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run the folder's own code.")] = False,
    as_json: Json = False,
) -> None:
    """Ask a model the rows of tasks, and score its answers. Goes on where it was broken off."""
    from tutelage import evaluation
    from tutelage.evaluation.subject import folder_name
    from tutelage.generate.prices import Prices
    from tutelage.generate.sampling import Sampling

    sampling = Sampling(temperature, top_p, top_k, min_p, samples, seed)
    subject = _subject(model, endpoint, served, key, plain, in_flight, trust_remote_code)
    screen = Terminal()
    with screen.stage("reading the rows", None):
        errands = evaluation.errands(task, data or (), formats=formats)
    folder = out or Path("evaluations") / folder_name(subject)
    done = evaluation.evaluate(subject, errands, folder, sampling, limit=limit, screen=screen, processes=processes)
    prices = Prices.given(prompt_price, completion_price)
    if prices is not None:
        done = [{**summary, "cost": prices.cost(*_tokens(summary["usage"] or {}))} for summary in done]
    if as_json:
        print(json.dumps(done, ensure_ascii=False, indent=2))
        return
    for line in summary_text(done):
        _print(line)
    _print(f"results {folder}")


def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="A B [C]...", help="Results of eval, or runs.")],
    html: Annotated[Path | None, typer.Option(help="Write a page, too.")] = None,
    as_json: Json = False,
) -> None:
    """Say whether B's answers are better than A's, row by row; C's than A's, and so on."""
    from tutelage import evaluation
    from tutelage.errors import Problem, RecipeError

    if len(folders) < 2:
        what, fix = "one folder cannot be compared", "name two: tutelage compare A B"
        raise RecipeError(Problem("recipe/missing-option", what, found=str(folders[0]), fix=fix))
    found = evaluation.compare(folders)
    if html is not None:
        from tutelage.evaluation.page import write

        write(found, html)
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    for line in comparison_text(found):
        _print(line)
    if html is not None:
        _print(f"page    {html}")


def _subject(
    model: str | None,
    endpoint: str | None,
    served: str | None,
    key: str | None,
    plain: bool,
    in_flight: int | None,
    trusted: bool,
) -> Subject:
    from tutelage.errors import Problem, RecipeError
    from tutelage.evaluation.subject import AT_ONCE, IN_FLIGHT, Saved, Served

    if endpoint is None:
        if model is None:
            what, fix = "no model is named", "tutelage eval MODEL --task TASK, or --endpoint URL --model NAME"
            raise RecipeError(Problem("recipe/missing-option", what, fix=fix))
        if served is not None or key is not None:
            what = f"`{'--model' if served is not None else '--key'}` goes with --endpoint, and none is given"
            raise RecipeError(Problem("recipe/conflict", what, fix="add --endpoint URL, or leave it out"))
        return Saved(model, plain=plain, trusted=trusted, in_flight=in_flight or IN_FLIGHT)
    if model is not None and served is not None and model != served:
        what, fix = "two models are named, and an endpoint is asked for one", "leave MODEL or --model out"
        raise RecipeError(Problem("recipe/conflict", what, found=f"{model} and {served}", fix=fix))
    name = served or model
    if name is None:
        what, fix = "the endpoint is not told which model is meant", "add --model NAME"
        raise RecipeError(Problem("recipe/missing-option", what, where=endpoint, fix=fix))
    return Served(endpoint, name, plain=plain, key=key, at_once=in_flight or AT_ONCE)


def summary_text(done: list[dict[str, Any]]) -> Iterator[str]:
    """A table of scores, one of health, and remarks."""
    heads = ["TASK", "METRIC", "SCORE", "95 % INTERVAL", "N", "STOPPED", "LIMIT", "EMPTY", "LOOPS", "TIME", "TOKENS/S"]
    yield from _table([heads, *(_cells(summary) for summary in done)])
    for summary in done:
        health = summary.get("health") or {}
        odd = [f"{name.replace('_', ' ')} {_percent(health[name])}" for name in _ODD if health.get(name)]
        if odd:
            yield f"note    {summary['task']}: {', '.join(odd)}"
        if usage := summary.get("usage"):
            yield f"tokens  {summary['task']}: {spent(*_tokens(usage), summary.get('cost'), untold=usage['untold'])}"
        if summary.get("formats"):
            yield f"spread  {summary['task']}: {_spread(summary['formats'])}"


_ODD = ("cut_at_text", "broken_fence", "invalid_json")


def _cells(summary: dict[str, Any]) -> list[str]:
    health, interval = summary.get("health") or {}, summary.get("interval")
    seconds, speed = summary.get("seconds"), summary.get("tokens_per_second")
    return [
        _name(summary),
        summary["metric"],
        _percent(summary.get("mean")),
        "-" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}",
        f"{summary.get('n', 0):,}",
        *(_percent(health.get(name)) for name in ("stopped", "hit_limit", "empty", "loops")),
        "-" if seconds is None else f"{seconds:.0f} s",
        "-" if speed is None else f"{speed:,.0f}",
    ]


def _tokens(usage: dict[str, int]) -> tuple[int | None, int | None]:
    """What an endpoint says that it read and wrote; of all portions, also those before a kill."""
    return usage.get("prompt_tokens"), usage.get("completion_tokens")


def spent(read: int | None, written: int | None, cost: float | None, *, untold: int = 0) -> str:
    """Tokens and what they cost, as far as they are known."""
    known = [f"{count:,} {word}" for count, word in ((read, "read"), (written, "written")) if count is not None]
    known += [f"{untold:,} answers without a count"] if untold else []
    return ", ".join([*known, *([] if cost is None else [f"cost {cost:,.4f}"])]) or "not told"


def _name(summary: dict[str, Any]) -> str:
    wording = f", wording {summary['format']}" if summary.get("format", 1) > 1 else ""
    return f"{summary['task']} v{summary['version']}{wording}"


def comparison_text(found: dict[str, Any]) -> Iterator[str]:
    """Each task: its sentence, health side by side, and some of the rows that were lost and won."""
    from tutelage.evaluation.page import health_rows

    for task in found["tasks"]:
        yield f"{task['verdict']:<14}{task['sentence']}"
        chance = f"chance {task['chance']:.2g} ({task['test']})"
        together = f", {task['chance_together']:.2g} among all (Holm)" if len(found["tasks"]) > 1 else ""
        yield f"{'':<14}{chance}{together}"
        yield from (f"{'note':<14}{note}" for note in task["notes"])
        for side, spread in (task["formats"] or {}).items():
            yield f"{'wordings':<14}{task[side]}: {_spread(spread)}"
        rows = list(health_rows(task["health"]))
        if rows:
            yield from ("  " + line for line in _table([["HEALTH", task["base"], task["other"]], *map(list, rows)]))
        for kind in ("lost", "won"):
            yield from _differing(task, kind)
        yield ""
    if found["many"]:
        yield found["many"]
    for pair in found["losses"]:
        yield from _losses(pair)
    for one in found["heldout"]:
        figures = " -> ".join("-" if one[key] is None else f"{one[key]:.3f}" for key in ("base_nll", "tuned_nll"))
        yield f"held-out loss of {one['name']}: {figures} nats per token"
    yield from (f"note    {note}" for note in found["notes"])


def _spread(formats: dict[str, Any]) -> str:
    """The scores of the same rows in several wordings."""
    low, mean, high = (_percent(formats[name]) for name in ("lowest", "mean", "highest"))
    return (
        f"{formats['n']} wordings of {formats['rows']:,} rows: lowest {low}, mean {mean}, highest {high}, "
        f"spread {100 * formats['spread']:.1f} points"
    )


def _losses(pair: dict[str, Any]) -> Iterator[str]:
    """Held-out loss of two runs, row by row."""
    if pair["note"]:
        yield f"held-out loss of {pair['other']} against {pair['base']} is not compared: {pair['note']}"
        return
    yield f"{pair['verdict']:<14}{pair['sentence']}"
    before = [pair[f"{side}_before"] for side in ("base", "other")]
    if None not in before:
        one, other = (f"{value:.3f}" for value in before)
        said = f"both began at {one}" if pair["same_base"] else f"other base models: they began at {one} and {other}"
        yield f"{'':<14}{said} {pair['unit']} on these rows"


def _differing(task: dict[str, Any], kind: str) -> Iterator[str]:
    rows = task[kind]
    yield f"  {kind}: {len(rows):,}"
    for row in rows[:SHOWN]:
        prompt = row["asked"][-1]["content"] if row["asked"] else ""
        yield f"    {row['origin']['file']}:{row['origin']['line']}  {_short(prompt)}"
        for side in ("base", "other"):
            yield f"      {task[side]}: {row[side]['score']:g}  {_short(row[side]['answer'] or '')}"
    if len(rows) > SHOWN:
        yield f"    and {len(rows) - SHOWN:,} more (--json or --html lists them)"


def _short(text: str) -> str:
    """One line of it."""
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _table(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _print(text: str) -> None:
    Console(highlight=False).print(printable(text), markup=False, soft_wrap=True)
