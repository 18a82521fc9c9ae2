"""What a judge said as one HTML file that needs nothing else: no script, no request, no font, no image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tutelage import files
from tutelage.errors import Problem, RecipeError
from tutelage.report.template import template

PAIRS = 20
"""Pairs won or lost that are shown of each task."""
SIGNS = {"better": ("better", "▲"), "worse": ("worse", "▼"), "no difference": ("same", "≈")}
"""The look of a verdict."""

Told = tuple[str, str, str]
"""What, how much, and a remark."""


def refuse_taken(path: Path) -> None:
    """Make sure that nothing would be overwritten, before anything is paid for.

    Raises:
        RecipeError: usage/output-exists.
    """
    if path.exists():
        what, fix = "the file of the page exists", "remove it, or choose another name"
        raise RecipeError(Problem("usage/output-exists", what, str(path), fix=fix))


def write(found: dict[str, Any], path: Path) -> None:
    """Write the page.

    Raises:
        RecipeError: usage/output-exists. MachineError: machine/read-only, machine/disk-full.
    """
    refuse_taken(path)
    page = render(found).encode("utf-8", errors="replace")
    with files.explained(path, "choose another place for the page", needed=len(page)):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, page)


def render(found: dict[str, Any]) -> str:
    """The page as HTML text."""
    source = (Path(__file__).parent / "judgement.html.jinja").read_text("utf-8")
    page = template("base.html.jinja").environment.from_string(source)
    return page.render(
        found=found,
        headline=_headline(found["tasks"]),
        rows=[*bias_rows(found["bias"]), *people_row(found["labels"])],
        tasks=[(task, [(kind, task[kind], task[kind][:PAIRS]) for kind in ("lost", "won")]) for task in found["tasks"]],
        shown=PAIRS,
    )


def _headline(tasks: list[dict[str, Any]]) -> Told:
    if len(tasks) == 1:
        kind, sign = SIGNS.get(tasks[0]["verdict"], ("open", "–"))
        return kind, sign, tasks[0]["sentence"]
    told = [task.get("verdict_together", task["verdict"]) for task in tasks]
    words = ", ".join(f"{verdict} on {told.count(verdict)}" for verdict in dict.fromkeys(told))
    kind, sign = SIGNS.get(told[0], ("open", "–")) if len(set(told)) == 1 else ("same", "≠")
    return kind, sign, f"{len(tasks)} tasks judged: {words}."


def bias_rows(bias: dict[str, Any]) -> Iterator[Told]:
    """The judge's own figures in words."""
    words = {
        "agreement": ("says the same in both orders", "of {n:,} pairs"),
        "position": ("chooses the first place", "of {n:,} pairs that it chose in; half is no preference"),
        "length": ("chooses the longer answer", "of {n:,} wins; wins by length are not always wrong"),
    }
    for key, (name, remark) in words.items():
        table = bias[key]
        if table["share"] is None:
            yield name, "-", "nothing to count"
            continue
        low, high = table["interval"]
        yield name, f"{table['share']:.1%}", f"interval {low:.1%} to {high:.1%}, {remark.format(n=table['n'])}"
    unparsable = bias["unparsable"]
    asked = f"of {unparsable['of']:,} judgements; {unparsable['retried']:,} were asked for twice"
    yield "cannot be read", f"{unparsable['count']:,}", asked
    yield "answers that speak to the judge", f"{bias['injections']['answers']:,}", ""


def people_row(people: dict[str, Any] | None) -> Iterator[Told]:
    """How far people agree, where they said something."""
    if people is None:
        return
    if not people["n"]:
        yield "says what people say", "-", "no labelled row was judged"
        return
    low, high = people["interval"]
    kappa = "Cohen's kappa is not defined: all labels are one"
    if people["kappa"] is not None:
        lowest, highest = people["kappa_interval"]
        kappa = f"Cohen's kappa {people['kappa']:.2f}, interval {lowest:.2f} to {highest:.2f}"
    yield (
        "says what people say",
        f"{people['agreement']:.1%}",
        f"interval {low:.1%} to {high:.1%}, of {people['n']:,} rows; {kappa}",
    )
