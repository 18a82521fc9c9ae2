"""`tutelage track RUN`: trackers catch up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

To = Annotated[list[str] | None, typer.Option(metavar="NAME", help="tensorboard, mlflow, wandb or trackio.")]
Follow = Annotated[bool, typer.Option("--follow", help="Stay until the run has ended.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def track(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    to: To = None,
    follow: Follow = False,
    as_json: Json = False,
) -> None:
    """Send a run's numbers to trackers; each arrives once, however often this is called.

    Those of the recipe's track.to when no --to is given.
    """
    from tutelage.track import catch_up

    reports = catch_up(folder, to or (), follow=follow)
    if as_json:
        print(json.dumps(reports, ensure_ascii=False, indent=2))
    for report in () if as_json else reports:
        print(_line(folder, report))
    if any(report["outcome"] != "sent" for report in reports):
        raise typer.Exit(1)


def _line(folder: Path, report: dict[str, object]) -> str:
    name, sent = report["tracker"], report["sent"]
    steps = sent.get("train", 0) if isinstance(sent, dict) else 0
    if report["outcome"] == "sent":
        return f"{name}: everything is sent, up to step {steps}"
    if report["outcome"] == "busy":
        return f"{name}: process {report['follower']} is sending, and is at step {steps}"
    why = report["error"] or "the follower was ended"
    return f"{name}: not everything could be sent ({why}); more is in {folder / 'track' / f'{name}.log'}"
