"""A `Report` to one HTML file that needs nothing else: no request, no font, no image, and readable without its script.

The templates hold the words and the style; this file decides what they are given, and how much of each list is
shown, so that the page stays small however large the run was.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tutelage import files
from tutelage.report import answers, beside, health, planned, reasons, scatter
from tutelage.report.chart import BANDS
from tutelage.report.collect import collect, mapping
from tutelage.report.contents import Report
from tutelage.report.curves import as_data, curves
from tutelage.report.rows import shorten
from tutelage.report.summary import changes, figures, headline, training
from tutelage.report.template import template

ROWS, ORIGINS, RECIPE = 8, 100, 20_000
"""How many rows, places of a reason, characters of the recipe are shown."""
_SCRIPTS = ("drawing.js", "curves.js", "page.js")


def write(folder: Path, others: Sequence[Path] = ()) -> Path:
    """Makes `report.html` in the run folder, whole or not at all, and returns its path. `others` are drawn beside.

    Raises `TutelageError` when a folder is not a run, or the run's own cannot be written.
    """
    page = render(collect(folder), [collect(other) for other in others]).encode("utf-8", errors="replace")
    path = folder / "report.html"
    with files.explained(path, "make the folder writable", needed=len(page)):
        files.write_whole(path, page)
    return path


def render(report: Report, others: Sequence[Report] = (), live: bool = False, scripts: Sequence[str] = ()) -> str:
    """The page as HTML text.

    With `live`, it says how far the run is and may ask its own server again. `scripts` are put into it after its own.
    """
    shown = beside.drawn(others)
    drawn = curves(report, shown)
    names = beside.names(report, shown)
    top = headline(report, live=live)
    return template("report.html.jinja").render(
        report=report,
        result=report.result or {},
        headline=top,
        live=("training" if training(report) else "ended") if live else "",
        policy=policy(live=live, scripts=scripts),
        scripts=[Markup(script) for script in (_script(), *scripts)],
        chart_data=_in_page(as_data(drawn, names)),
        concerns=health.concerns(report),
        changes=changes(report),
        figures=figures(report),
        charts=[(one, one.drawing()) for one in drawn],
        names=names,
        beside=beside.beside(report, shown),
        undrawn=len(others) - len(shown),
        differing=beside.differing(report, shown),
        without_loss=[step.step for step in report.steps if step.loss is None],
        stretches=BANDS if len(report.steps) > 2 * BANDS else 0,
        skipped=sum(step.skipped for step in report.steps),
        samples=answers.shown(report),
        rows=[(row, shorten(row)) for row in report.rows[:ROWS]],
        places=ORIGINS,
        recipe_limit=RECIPE,
        **_reasons(report),
    )


def policy(*, live: bool = False, scripts: Sequence[str] = ()) -> str:
    """What the page allows itself: its own style, and the scripts it holds, by their hashes."""
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in (_script(), *scripts))
    allowed = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {hashes}"
    return f"{allowed}; connect-src 'self'" if live else allowed


def _reasons(report: Report) -> dict[str, Any]:
    """What the sections below the curves are given."""
    result = report.result or {}
    places = scatter.frontier(report)
    return {
        "health": health.shares(result.get("health")),
        "health_n": health.counted(result.get("health")),
        "pairs": answers.pairs(report),
        "breakdowns": reasons.breakdowns(report),
        "frontier": places,
        "scatter": scatter.scatter(places),
        "epochs": reasons.epochs(report),
        "canaries": reasons.details(mapping(result.get("memorising")).get("canaries")),
        "knowledge": reasons.details(result.get("knowledge")),
        "unknown": reasons.unknown(report),
        "suspects": reasons.suspects(report),
        "told": reasons.sentences(report),
        "compared": planned.compared(report),
        "machine": planned.facts(report.environment),
        "plan": planned.facts(report.plan, ("predicted", "measured", "mixture")),
    }


def _in_page(value: Any) -> Markup:
    """JSON that can stand in a script element: nothing in it begins a tag or a comment, and all of it is ASCII."""
    written = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


@cache
def _script() -> str:
    """The page's own script."""
    here = resources.files("tutelage.report")
    return "".join((here / name).read_text(encoding="utf-8") for name in _SCRIPTS)


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
