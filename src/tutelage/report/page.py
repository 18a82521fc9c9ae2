"""A `Report` to one HTML file that needs nothing else: no script, no request, no font, no image.

The template holds the words and the style; this file decides what they are given, and how much of each list is
shown, so that the page stays small however large the run was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from tutelage import files
from tutelage.report import text
from tutelage.report.chart import BANDS, Series, draw
from tutelage.report.collect import collect
from tutelage.report.contents import Answer, Report, Sample, Step
from tutelage.report.rows import shorten
from tutelage.report.summary import changes, figures, headline
from tutelage.report.template import template

SAMPLES, MESSAGES, ROWS, ORIGINS, RECIPE = 12, 40, 8, 100, 20_000
"""How many samples, messages of one, rows, places of a reason, characters of the recipe are shown."""


def write(folder: Path) -> Path:
    """Makes `report.html` in the run folder, whole or not at all, and returns its path.

    Raises `TutelageError` when the folder is not a run or cannot be written.
    """
    page = render(collect(folder)).encode("utf-8", errors="replace")
    path = folder / "report.html"
    with files.explained(path, "make the folder writable", needed=len(page)):
        files.write_whole(path, page)
    return path


def render(report: Report) -> str:
    """The page as HTML text."""
    return template("report.html.jinja").render(
        report=report,
        headline=headline(report),
        changes=changes(report),
        figures=figures(report),
        charts=charts(report),
        without_loss=[step.step for step in report.steps if step.loss is None],
        stretches=BANDS if len(report.steps) > 2 * BANDS else 0,
        skipped=sum(step.skipped for step in report.steps),
        samples=[(sample, *_prompt(sample), _compare(sample)) for sample in report.samples[:SAMPLES]],
        rows=[(row, shorten(row)) for row in report.rows[:ROWS]],
        places=ORIGINS,
        recipe_limit=RECIPE,
    )


def charts(report: Report) -> list[tuple[str, Markup]]:
    """(title, drawing) of the loss, the learning rate, the gradient norm and the speed."""
    steps = report.steps
    loss = [
        Series("training loss", [(step.step, step.loss) for step in steps]),
        Series("held-out loss", report.evaluations, "dots"),
    ]
    return [
        ("Loss", draw(loss, title="Loss", unit="nats per token", width=940, height=330)),
        ("Learning rate", _small("learning rate", "", [step.learning_rate for step in steps], steps)),
        ("Gradient norm", _small("gradient norm", "L2 norm", [step.grad_norm for step in steps], steps)),
        ("Speed", _small("speed", "tokens per second", [step.tokens_per_second for step in steps], steps)),
    ]


def _small(name: str, unit: str, values: Sequence[float | None], steps: Sequence[Step]) -> Markup:
    points = [(step.step, value) for step, value in zip(steps, values, strict=True)]
    return draw([Series(name, points)], title=name.capitalize(), unit=unit, width=300, height=210, zero=True)


def _prompt(sample: Sample) -> tuple[list[tuple[str, str, int]], int]:
    """(role, visible text, characters left out) of the messages that fit in one text, and how many do not."""
    turns: list[tuple[str, str, int]] = []
    room = text.TEXT_LIMIT
    for turn in sample.prompt[:MESSAGES]:
        if room > 0:
            shown, more = text.cut(turn.text, room)
            turns.append((turn.role, shown, more))
            room = 0 if more else room - len(shown)
    return turns, len(sample.prompt) - len(turns)


def _compare(sample: Sample) -> list[tuple[str, Answer | None, Markup, int, str]]:
    """Before and after: heading, answer, its marked text, characters left out, words of the reference in it."""
    columns = []
    for heading, answer in (("Before", sample.base), ("After", sample.tuned)):
        shown, more = text.cut(answer.text if answer else "")
        if answer is None or not sample.reference:
            columns.append((heading, answer, Markup.escape(shown), more, ""))
            continue
        marked, same, words = text.mark_differences(shown, text.cut(sample.reference)[0])
        columns.append((heading, answer, marked, more, f"{same} of the reference’s {words} words"))
    return columns
