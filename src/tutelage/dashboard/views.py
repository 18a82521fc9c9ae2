"""What a browser is shown: the report of a run with others beside it, the list of runs, or why there is nothing yet.

A page is made when something of what it shows has changed, once for all browsers, and no more often than takes a
fifth of one core: a run of many thousand steps is drawn every few seconds instead of every one.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader
from markupsafe import Markup

from tutelage import history
from tutelage.dashboard.sight import TOGETHER, Seen, Sight, digest
from tutelage.errors import TutelageError
from tutelage.history.record import Record
from tutelage.report import page as report_page
from tutelage.report.collect import collect
from tutelage.report.contents import Report
from tutelage.report.summary import training
from tutelage.report.template import template

SHOWN = 500
"""Runs that the list holds."""
LARGEST = 1 << 28
"""Bytes of a journal from which on it is not drawn while it grows."""
SHARE = 5
"""Making a page takes at most one part in so many of the time."""
KEPT = 16
"""Pages, and runs that were read."""
AGAIN, LATER = 1, 5
"""Seconds between two questions of a browser: while a run is made, and otherwise."""
_MAIN = re.compile('<main id="main"[^>]*>')


@dataclass(frozen=True, slots=True)
class Page:
    """One page as it is sent."""

    html: str
    policy: str
    kind: str
    """run or own: a page of the other kind has other scripts, so the browser loads it anew."""
    version: str
    again: int = LATER
    status: int = 200


@dataclass(frozen=True, slots=True)
class _Made:
    page: Page
    at: float
    took: float


class Views:
    """Every page of one dashboard."""

    def __init__(self, sight: Sight) -> None:
        self.sight = sight
        self._made: dict[tuple[str, ...], _Made] = {}
        self._reports: dict[str, tuple[str, Report]] = {}
        self._rows: dict[str, tuple[str, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def page(self, route: str, ids: Sequence[str]) -> Page | None:
        """What an address shows now; None where it names a run that there never was."""
        if route == "/run":
            if not 0 < len(ids) <= TOGETHER:
                return None
            try:
                seen: list[Seen] | None = [self.sight.at(id) for id in ids]
            except KeyError:
                return None
        else:
            seen = self.sight.first() if route == "/" else None
        with self._lock:
            if seen is None:
                seen = self.sight.look()
                return self._kept(("list",), seen, self._list)
            return self._kept(tuple(one.id for one in seen), seen, self._runs)

    def _kept(self, key: tuple[str, ...], seen: Sequence[Seen], make: Any) -> Page:
        now = digest(f"{one.id} {one.version}" for one in seen)
        known = self._made.get(key)
        began = time.monotonic()
        if known is not None and (known.page.version == now or began - known.at < SHARE * known.took):
            return known.page
        page: Page = make(seen, now)
        if key not in self._made and len(self._made) >= KEPT:
            del self._made[next(iter(self._made))]
        ended = time.monotonic()
        self._made[key] = _Made(page, ended, ended - began)
        return page

    def _runs(self, seen: Sequence[Seen], version: str) -> Page:
        there = [one for one in seen if one.state == "there"]
        if not there:
            return self._nothing(seen, version)
        try:
            for one in there:
                _refuse_large(one.folder)
            first, *others = [_as_it_stands(self._report(one), one.folder) for one in there]
            scripts = [poller("run")]
            html = report_page.render(first, others, live=True, scripts=scripts)
        except (TutelageError, OSError) as error:
            return self._own("trouble", version, words=str(error), seen=seen)
        told = str(_remarks(seen, several=self.sight.several))
        html = _MAIN.sub(lambda tag: tag[0] + told, html, count=1)
        active = any(Record(one.folder).is_held() for one in there)
        policy = report_page.policy(live=True, scripts=scripts)
        return Page(html, policy, "run", version, AGAIN if active else LATER)

    def _report(self, one: Seen) -> Report:
        """What its files say, read again where they have changed."""
        known = self._reports.pop(one.id, None)
        if known is None or known[0] != one.version:
            known = (one.version, collect(one.folder))
        self._reports[one.id] = known  # At the end: those asked for last stay.
        if len(self._reports) > KEPT:
            del self._reports[next(iter(self._reports))]
        return known[1]

    def _nothing(self, seen: Sequence[Seen], version: str) -> Page:
        state = "awaited" if any(one.state == "awaited" for one in seen) else "gone"
        return self._own(state, version, seen=seen, again=AGAIN)

    def _list(self, seen: Sequence[Seen], version: str) -> Page:
        rows = []
        for one in seen[-SHOWN:]:
            known = self._rows.get(one.id)
            if known is None or known[0] != one.version:
                known = self._rows[one.id] = (one.version, _row(one))
            rows.append(known[1])
        rows.sort(key=lambda row: row["begun"], reverse=True)
        again = AGAIN if any(row["status"] == "running" for row in rows) else LATER
        unshown = max(0, len(seen) - SHOWN)
        return self._own("list", version, rows=rows, unshown=unshown, together=TOGETHER, again=again)

    def _own(self, kind: str, version: str, *, again: int = LATER, status: int = 200, **given: Any) -> Page:
        places = [str(place) for place in self.sight.places]
        return own_page(kind, version, again=again, status=status, places=places, **given)


def own_page(
    kind: str, version: str, *, again: int = LATER, status: int = 200, polls: bool = True, **given: Any
) -> Page:
    """A page that is no report: the list, a remark, a refusal."""
    scripts = [poller("own")] if polls else []
    policy = (
        report_page.policy(live=True, scripts=scripts) if polls else "default-src 'none'; style-src 'unsafe-inline'"
    )
    shared = template("base.html.jinja")
    own = FileSystemLoader([Path(__file__).parent, Path(str(shared.filename)).parent])
    made = shared.environment.overlay(loader=own).get_template("dashboard.html.jinja")
    html = made.render(kind=kind, policy=policy, scripts=[Markup(script) for script in scripts], **given)
    return Page(html, policy, "own", version, again, status)


def poller(kind: str) -> str:
    """The script that asks again."""
    text = (resources.files("tutelage.dashboard") / "poll.js").read_text(encoding="utf-8")
    return text.replace("PAGE_KIND", kind)


def _as_it_stands(report: Report, folder: Path) -> Report:
    """With the one thing that its files do not say: whether a process works on it."""
    if Record(folder).is_held():
        going_on = report.result is not None and report.result.get("status") != "done"
        return replace(report, result=None) if going_on else report
    if training(report):
        return replace(report, result={"status": "broken off", "steps": report.steps[-1].step if report.steps else 0})
    return report


def _refuse_large(folder: Path) -> None:
    for path in folder.glob("*.jsonl"):
        if path.is_file() and path.stat().st_size > LARGEST:
            raise OSError(f"{path.name} has {path.stat().st_size / 1e6:,.0f} MB, too many to be drawn again and again")


def _remarks(seen: Sequence[Seen], *, several: bool) -> Markup:
    """What the report does not know: that nobody works on the run, and that others are missing."""
    told = [Markup('<p class="beside-runs"><a href="/runs">All runs</a></p>')] if several else []
    for one in seen:
        if one.state == "gone":
            told.append(_remark("{} is gone: its folder was removed or renamed.", one))
        elif one.state == "awaited":
            told.append(_remark("{} is waited for: it has not begun.", one))
        elif history.listing(one.folder)[0]["status"] == "broken off":
            words = "Nobody works on {}: it was broken off. `tutelage train RECIPE --resume` goes on with it."
            told.append(_remark(words, one))
    return Markup("").join(told)


def _remark(words: str, one: Seen) -> Markup:
    return Markup('<p class="warning" role="status">{}</p>').format(words.format(one.name))


def _row(one: Seen) -> dict[str, Any]:
    """A run in the list."""
    row: dict[str, Any] = {"id": one.id, "name": one.name, "status": one.state, "begun": "", "there": False}
    found = history.listing(one.folder) if one.state == "there" else []
    if not found:
        return row
    record = Record(one.folder)
    told = record.table("result.json").get("verdict")
    loss = record.last_line("metrics.jsonl").get("loss")
    verdict = told.get("word") if isinstance(told, dict) else (found[0]["heldout"] or {}).get("verdict")
    return row | {
        "status": found[0]["status"],
        "there": True,
        "made": found[0]["steps"]["made"],
        "planned": found[0]["steps"]["planned"],
        "loss": loss if isinstance(loss, int | float) else None,
        "difference": (found[0]["heldout"] or {}).get("difference"),
        "verdict": str(verdict or ""),
        "begun": (found[0]["begun"] or "")[:16].replace("T", " "),
    }
