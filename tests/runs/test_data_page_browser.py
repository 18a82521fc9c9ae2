"""The data page as a browser shows it: silent on the network and in the console, and never wider than a telephone."""

from __future__ import annotations

import runpy
import subprocess
from html import escape
from pathlib import Path
from typing import Any

import pytest

from browsing import FLAGS
from tutelage.report.data_page import data_page

pytestmark = pytest.mark.browser

MADE_UP = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "report" / "madeupdata.py"))


def show(browser: str, html: str, folder: Path) -> tuple[str, list[str]]:
    """The document that the browser makes of a page, and what it writes to its console."""
    page = folder / "page.html"
    page.write_text(html, encoding="utf-8", errors="replace")
    command = [browser, *FLAGS, "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, timeout=120, check=True)
    said = done.stderr.decode("utf-8", errors="replace").splitlines()
    return done.stdout.decode("utf-8", errors="replace"), [line for line in said if "CONSOLE" in line]


def with_rows(text: str) -> dict[str, Any]:
    """Facts in which a row's text is the given one wherever a row's text is shown."""
    made = MADE_UP["facts"]()
    made["samples"][0]["tokens"] += [[text, 0.0], [text, 1.0]]
    made["statistics"]["answers"]["repeated"]["most"].append({"text": text, "times": 2})
    made["ledger"]["found"]["gsm8k"][0]["excerpt"] = text
    return {**made, "name": text}


def test_the_page_is_whole_and_the_console_empty(browser: str, tmp_path: Path) -> None:
    dom, console = show(browser, data_page(MADE_UP["facts"]()), tmp_path)
    assert dom.count("<section") == 8
    assert dom.count('class="column"') > 30
    assert console == []


def test_a_page_that_does_something_would_be_seen(browser: str, tmp_path: Path) -> None:
    html = data_page(MADE_UP["facts"]()).replace("</body>", "<script>1</script></body>")
    assert show(browser, html, tmp_path)[1] != [], "the console tells what the policy stops"


def test_scripts_and_images_in_rows_are_inert_even_without_the_policy(
    browser: str, tmp_path: Path, asked: tuple[str, list[str]]
) -> None:
    address, paths = asked
    hostile = (
        f'</div></template><img src="{address}/image" onerror="document.title=1"><script>fetch("{address}/script")'
        f'</script><link rel="stylesheet" href="{address}/style"><svg onload="document.title=1">'
    )
    html = data_page(with_rows(hostile)).replace("Content-Security-Policy", "no-policy")
    dom, console = show(browser, html, tmp_path)
    assert paths == []
    assert console == []
    assert "<script" not in dom
    assert "<img" not in dom
    assert "<title>1</title>" not in dom
    assert "&lt;script&gt;fetch(" in dom
    (tmp_path / "loose").mkdir()
    show(browser, html.replace("</body>", hostile + "</body>"), tmp_path / "loose")
    assert {"/image", "/script", "/style"} <= set(paths), "as an element of the page each of them would have gone out"


@pytest.mark.parametrize("width", [1200, 390, 320])
def test_the_page_never_scrolls_sideways(browser: str, tmp_path: Path, width: int) -> None:
    """Measured in a frame, because a browser's own window cannot be as narrow as a telephone."""
    measure = "document.title = frames[0].document.documentElement.scrollWidth"
    inner = escape(data_page(with_rows("a" * 300)))
    frame = f'<iframe style="width:{width}px;height:900px;border:0" onload="{measure}" srcdoc="{inner}"></iframe>'
    dom, _ = show(browser, f"<!doctype html><meta charset=utf-8><title>-</title>{frame}", tmp_path)
    assert f"<title>{width}</title>" in dom
