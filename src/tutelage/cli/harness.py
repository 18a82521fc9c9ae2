"""`tutelage lm-eval`: tasks of lm-eval asked of a model, and kept so that `tutelage compare` pairs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli.screen import Terminal, printable

Tasks = Annotated[list[str], typer.Option("--task", metavar="NAME|FILE.yaml", help="A task of lm-eval, or of yours.")]
Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where results go; evaluations/NAME if not given.")]


def harness(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run, a model folder, or a hub id.")],
    task: Tasks,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask the first rows of each task, this many.")] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Examples before each row; the task's own number if not given.")
    ] = None,
    out: Out = None,
    plain: Annotated[bool, typer.Option("--plain", help="Ask in plain text, without a chat template.")] = False,
    in_flight: Annotated[int, typer.Option(min=1, help="Rows that the model is given together.")] = 8,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the model's or task's code.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Ask a model the tasks of EleutherAI's lm-eval, with its prompts and scores."""
    from tutelage.evaluation.harness import run_harness
    from tutelage.evaluation.subject import Saved, folder_name

    subject = Saved(model, plain=plain, trusted=trust_remote_code, in_flight=in_flight)
    folder = out or Path("evaluations") / folder_name(subject)
    done = run_harness(subject, task, folder, limit=limit, shots=shots, screen=Terminal())
    if as_json:
        print(json.dumps(done, ensure_ascii=False, indent=2))
        return
    width = max((len(summary["task"]) for summary in done), default=0)
    for summary in done:
        interval = summary["interval"]
        told = "" if interval is None else f"  95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
        print(printable(f"{summary['task']:<{width}}  {100 * summary['mean']:5.1f} %{told}  n = {summary['n']:,}"))
    print(printable(f"results {folder}"))
