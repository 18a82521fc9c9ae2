"""The dashboard as a browser shows it: it grows by itself, keeps its place, and lets nothing run that rows brought."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tutelage.dashboard import Dashboard

pytestmark = pytest.mark.browser

UNIT = Path(__file__).parents[1] / "unit"
MADE_UP = runpy.run_path(str(UNIT / "report" / "madeup.py"))
sys.path.append(str(UNIT / "dashboard"))
from devtools import Tab  # noqa: E402

PICTURES = os.environ.get("TUTELAGE_PICTURES")
"""Where pictures are kept for a person to look at."""


def made(folder: Path, **options: Any) -> Path:
    MADE_UP["make_run"](folder, **options)
    (folder / "run.json").write_text('{"run": "x", "sessions": []}')
    return folder


@pytest.fixture
def tab(browser: str, tmp_path: Path) -> Iterator[Tab]:
    made = Tab(browser, tmp_path / "profile")
    yield made
    made.close()


@pytest.fixture
def serve() -> Iterator[Any]:
    served: list[tuple[Dashboard, threading.Thread]] = []

    def begin(*places: Path) -> Dashboard:
        dashboard = Dashboard(places)
        thread = threading.Thread(target=dashboard.serve)
        thread.start()
        served.append((dashboard, thread))
        return dashboard

    yield begin
    for dashboard, thread in served:
        dashboard.stop()
        thread.join()


def enter(tab: Tab, dashboard: Dashboard, **window: Any) -> str:
    """Open the address that the terminal shows; where the browser is then."""
    address = dashboard.address
    origin = address.partition("/?")[0]
    tab.open(address, **window)
    tab.until(
        f"location.href === '{origin}/' && document.readyState === 'complete' && !!document.getElementById('main')"
    )
    return origin


def step(folder: Path, number: int, *, whole: bool = True) -> None:
    """One more line of the journal."""
    line = {"step": number, "loss": 0.5, "learning_rate": 1e-5, "grad_norm": 1.0, "tokens": 100, "seconds": 1.0}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**line, "skipped": False}) + "\n" if whole else json.dumps(line)[:30])


def keep(tab: Tab, tmp_path: Path, name: str, **options: Any) -> None:
    tab.picture(Path(PICTURES or tmp_path) / f"{name}.png", **options)


def test_a_run_is_seen_to_grow_within_three_seconds(tab, serve, tmp_path):
    folder = made(tmp_path / "runs" / "orders", finished=False)
    dashboard = serve(folder)
    origin = enter(tab, dashboard)
    tab.evaluate("window.untouched = true; window.scrollTo(0, 400); true")
    tab.until("scrollY > 300")
    grown = "document.getElementById('top').innerText.includes('step 31')"
    assert not tab.evaluate(grown)
    from tutelage.runs import Run

    with Run(folder).locked():
        Run(folder).claim()
        tab.until("document.getElementById('top').innerText.includes('Training')")
        keep(tab, tmp_path, "growing-before")
        step(folder, 31, whole=False)
        time.sleep(1.5)  # Nothing breaks on a line that is cut short.
        folder.joinpath("metrics.jsonl").write_text(
            "".join(
                line for line in folder.joinpath("metrics.jsonl").read_text().splitlines(True) if line.endswith("\n")
            )
        )
        step(folder, 31)
        took = tab.until(grown)
        assert took < 3 * float(os.environ.get("TUTELAGE_SLOWER", "3")), took
        assert tab.evaluate("window.untouched && scrollY > 300"), "the page was not loaded anew"
        keep(tab, tmp_path, "growing-after")
    # The process ended without a result.
    tab.until("document.getElementById('main').innerText.includes('it was broken off')")
    MADE_UP["write_json"](folder / "result.json", MADE_UP["result"](31))
    tab.until(f"document.body.innerText.includes({json.dumps(MADE_UP['SENTENCE'])})")
    keep(tab, tmp_path, "ended")
    shutil.rmtree(folder)
    tab.until("document.body.innerText.includes('The run is gone')")
    assert tab.logged == []
    assert all(url.startswith(f"{origin}/") for url in tab.asked if not url.startswith(("about:", "data:")))


def test_rows_that_hold_scripts_stay_text(tab, serve, tmp_path):
    """What the made-up run's model wrote is markup; its name is, too, and one of its files' errors."""
    folder = made(tmp_path / "runs" / "<img src=x onerror=alert(1)>")
    other = made(tmp_path / "runs" / "b'\"&")
    dashboard = serve(folder.parent)
    enter(tab, dashboard)
    assert tab.evaluate("document.querySelectorAll('main img, main script, main iframe').length") == 0
    keep(tab, tmp_path, "list-hostile")
    tab.evaluate("document.querySelector('main a').click()")
    tab.until("location.pathname === '/run' && document.readyState === 'complete'")
    time.sleep(1.5)
    step(folder, 31)
    step(other, 31)
    time.sleep(2.5)
    assert tab.evaluate("document.querySelectorAll('img, iframe, object, embed, form, link').length") == 0
    assert tab.evaluate(
        "[...document.querySelectorAll('*')].every(e => ![...e.attributes].some(a => /^on/i.test(a.name)))"
    )
    assert tab.logged == []


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False)])
def test_the_list_and_runs_over_each_other(tab, serve, tmp_path, width, dark):
    names = ("first", "second", "third")
    folders = [made(tmp_path / "runs" / name, steps=20 + 10 * n, finished=n != 1) for n, name in enumerate(names)]
    dashboard = serve(tmp_path / "runs")
    enter(tab, dashboard, width=width, dark=dark)
    assert tab.evaluate("document.querySelectorAll('tbody tr').length") == 3
    tab.evaluate("[...document.querySelectorAll('input[type=checkbox]')].slice(0, 2).forEach(b => b.click())")
    step(folders[1], 31)
    tab.until("document.querySelector('main').textContent.includes('31')")
    assert tab.evaluate("document.querySelectorAll('input:checked').length") == 2, "what was ticked stays"
    keep(tab, tmp_path, f"list-{width}-{'dark' if dark else 'light'}")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.evaluate("document.getElementById('together').click()")
    tab.until("location.pathname === '/run' && document.readyState === 'complete'")
    assert tab.evaluate("new URLSearchParams(location.search).getAll('id').length") == 2
    keep(tab, tmp_path, f"together-{width}-{'dark' if dark else 'light'}")
    assert tab.logged == []


def test_a_server_that_ends_is_said_and_one_that_began_anew_asks_for_its_address(tab, serve, tmp_path):
    folder = made(tmp_path / "runs" / "orders")
    first = Dashboard([folder])
    thread = threading.Thread(target=first.serve)
    thread.start()
    try:
        enter(tab, first)
    finally:
        first.stop()
        thread.join()
    tab.until("document.body.innerText.includes('The dashboard does not answer')")
    keep(tab, tmp_path, "unanswered")
    again = Dashboard([folder], port=first.port)
    thread = threading.Thread(target=again.serve)
    thread.start()
    try:
        tab.until("document.body.innerText.includes('open the address that it printed')")
        # A page of another port of this machine: it may not frame the dashboard, nor read it.
        tab.open(f"http://127.0.0.1:{again.port}/nothing")
        keep(tab, tmp_path, "refused")
    finally:
        again.stop()
        thread.join()
