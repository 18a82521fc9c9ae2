"""A sweep to one HTML file that needs nothing else: no script, no request, no font, no image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader
from markupsafe import Markup

from tutelage.report import text
from tutelage.report.template import template

FILE = "sweep.html"
_SHARED = "base.html.jinja"


def render(found: dict[str, Any]) -> str:
    """The page as HTML text, of what `sweep.json` holds."""
    shared = template(_SHARED)
    own = FileSystemLoader([Path(__file__).parent, Path(str(shared.filename)).parent])
    reach = max((abs(end) for row in found["settings"] for end in _ends(row)), default=0.0)
    rows = [(row, _drawing(row, reach), _gap(row)) for row in found["settings"]]
    return shared.environment.overlay(loader=own).get_template("sweep.html.jinja").render(sweep=found, rows=rows)


def _ends(row: dict[str, Any]) -> tuple[float, ...]:
    told = row["against_best"]
    return (told["difference"], *told["interval"]) if told else ()


def _drawing(row: dict[str, Any], reach: float) -> Markup | str:
    """The difference to the best and its interval beside zero, on one scale for all rows."""
    ends = _ends(row)
    if not ends or not reach:
        return ""
    at, low, high = (120 + 108 * end / reach for end in ends)
    words = f"Difference {text.signed(ends[0], 4)}, interval {text.signed(ends[1], 4)} to {text.signed(ends[2], 4)}"
    return Markup(
        '<svg class="interval" viewBox="0 0 240 26" role="img" aria-label="{}"><title>{}</title>'
        '<line class="axis" x1="8" y1="13" x2="232" y2="13"/><line class="zero" x1="120" y1="3" x2="120" y2="23"/>'
        '<line class="span" x1="{:.1f}" y1="13" x2="{:.1f}" y2="13"/><circle cx="{:.1f}" cy="13" r="5"/></svg>'
    ).format(words, words, low, high, at)


def _gap(row: dict[str, Any]) -> tuple[str, str, str]:
    """(difference, interval, what it says) in words."""
    told = row["against_best"]
    if not told:
        return "", "", "the best" if row["best"] else ""
    low, high = (text.signed(value, 4) for value in told["interval"])
    says = "worse" if told["told"] else "cannot be told"
    return text.signed(told["difference"], 4), f"{low} to {high}", says
