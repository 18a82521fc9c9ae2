"""`tutelage judge`: which of two models answers better, in the opinion of a third."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tutelage.cli.evaluate import Price, spent
from tutelage.cli.screen import Terminal, printable

if TYPE_CHECKING:
    from tutelage.evaluation.subject import Subject

Folder = Annotated[Path, typer.Argument(help="Results of eval, or a run; a run twice is its base against itself.")]
Endpoint = Annotated[str | None, typer.Option(metavar="URL", help="The judge's server, as in http://host/v1.")]
Model = Annotated[str, typer.Option(metavar="NAME", help="The judge: the server's name for it, or a model folder.")]
Key = Annotated[str | None, typer.Option(metavar="VARIABLE", help="Environment variable with the key.")]
Prompt = Annotated[str, typer.Option(metavar="NAME|FILE.yaml", help="The words and criteria of the judge.")]
Rows = Annotated[int | None, typer.Option(min=1, help="Judge this many pairs of each task, chosen by a hash.")]
Labelled = Annotated[Path | None, typer.Option(metavar="FILE", help="What people said: row and A, B or tie.")]


def judge(
    a: Folder,
    b: Folder,
    model: Model,
    endpoint: Endpoint = None,
    key: Key = None,
    prompt: Prompt = "pairwise",
    rows: Rows = None,
    labels: Labelled = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="judgements/A-B if not given.")] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=8, help="Longest judgement, in tokens.")] = 1024,
    plain: Annotated[bool, typer.Option("--plain", help="Ask in plain text, without a chat template.")] = False,
    in_flight: Annotated[int | None, typer.Option(min=1, help="Judgements written at once.")] = None,
    prompt_price: Price = None,
    completion_price: Price = None,
    html: Annotated[Path | None, typer.Option(help="Write a page, too.")] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run the folder's own code.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Have a model judge whether B's answers are better than A's, in both orders. Goes on where it was broken off."""
    from tutelage.generate.prices import Prices
    from tutelage.generate.sampling import Sampling
    from tutelage.judge import hearing, page
    from tutelage.judge.labels import read
    from tutelage.judge.wording import load

    if html is not None:
        page.refuse_taken(html)
    folder = out or _folder(a, b)
    found = hearing.judge(
        a,
        b,
        _subject(model, endpoint, key, plain, in_flight, trust_remote_code),
        load(prompt),
        folder,
        rows=rows,
        sampling=Sampling(temperature, seed=seed),
        max_new_tokens=max_new_tokens,
        labels=None if labels is None else read(labels),
        prices=Prices.given(prompt_price, completion_price),
        screen=Terminal(),
    )
    if html is not None:
        page.write(found, html)
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    for line in [*text(found), f"results {folder}", *([] if html is None else [f"page    {html}"])]:
        Console(highlight=False).print(printable(line), markup=False, soft_wrap=True)


def _folder(a: Path, b: Path) -> Path:
    """A name for the folder of the judgements."""
    from tutelage.evaluation.results import labels as short

    names = short([a, b] if a.resolve() != b.resolve() else [a])
    return Path("judgements") / "-".join(name.replace("/", "-") for name in names)


def _subject(
    model: str, endpoint: str | None, key: str | None, plain: bool, in_flight: int | None, trusted: bool
) -> Subject:
    from tutelage.errors import Problem, RecipeError
    from tutelage.evaluation.subject import AT_ONCE, IN_FLIGHT, Saved, Served

    if endpoint is not None:
        return Served(endpoint, model, plain=plain, key=key, at_once=in_flight or AT_ONCE)
    if key is not None:
        what, fix = "`--key` goes with --endpoint, and none is given", "add --endpoint URL, or leave it out"
        raise RecipeError(Problem("recipe/conflict", what, fix=fix))
    return Saved(model, plain=plain, trusted=trusted, in_flight=in_flight or IN_FLIGHT)


def text(found: dict[str, Any]) -> Iterator[str]:
    """Each task's verdict, the judge's own figures, and remarks."""
    from tutelage.judge.page import bias_rows, people_row

    for task in found["tasks"]:
        yield f"{task['verdict']:<14}{task['sentence']}"
        if task["chance"] is not None:
            low, high = task["win_rate_interval"]
            rate = f"win rate {task['win_rate']:.1%}, interval {low:.1%} to {high:.1%}, with ties as halves"
            together = f", {task['chance_together']:.2g} among all (Holm)" if len(found["tasks"]) > 1 else ""
            yield f"{'':<14}{rate}; chance {task['chance']:.2g} ({task['test']}){together}"
            ties = task["ties_by"]
            yield (
                f"{'':<14}ties: {ties['agreed']:,} in both orders, {ties['order']:,} where the orders disagree, "
                f"{ties['identical']:,} equal answers"
            )
    if found["many"]:
        yield found["many"]
    yield ""
    rows = [*bias_rows(found["bias"]), *people_row(found["labels"])]
    width = max(len(name) for name, _, _ in rows)
    yield from (f"  {name:<{width}}  {value:<9}{remark}".rstrip() for name, value, remark in rows)
    yield f"  {'tokens':<{width}}  {spent(found['tokens']['prompt'], found['tokens']['completion'], found['cost'])}"
    yield from (f"note    {note}" for note in found["notes"])
