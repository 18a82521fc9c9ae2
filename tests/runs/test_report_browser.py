"""The report as a browser shows it: drawn, readable at both widths, and silent on the network."""

from __future__ import annotations

import re
import runpy
import struct
import subprocess
import zlib
from html import escape
from pathlib import Path

import numpy as np
import pytest

from browsing import FLAGS
from tutelage.report.page import write

pytestmark = pytest.mark.browser

MADE_UP = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "report" / "madeup.py"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(MADE_UP["make_run"](tmp_path_factory.mktemp("runs") / "orders"))


def show(browser: str, page: Path, profile: Path, *flags: str) -> str:
    """What the browser prints for the page."""
    command = [browser, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode("utf-8", errors="replace")


def decode(path: Path) -> tuple[int, int, set[bytes]]:
    """Width, height and the colours of a PNG picture of 8 bits a channel without interlacing."""
    content, place, packed = path.read_bytes(), 8, b""
    width, height, _, kind = struct.unpack(">IIBB", content[16:26])
    while place < len(content):
        length, name = struct.unpack(">I4s", content[place : place + 8])
        packed += content[place + 8 : place + 8 + length] if name == b"IDAT" else b""
        place += length + 12
    channels = {2: 3, 6: 4}[kind]
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * channels)
    colours: set[bytes] = set()
    above = np.zeros(width * channels, np.uint8)
    for row in rows:
        above = unfilter(row[0], row[1:], above, channels)
        colours.update(map(bytes, np.unique(above.reshape(width, channels), axis=0)))
    return width, height, colours


def unfilter(method: int, row: np.ndarray, above: np.ndarray, channels: int) -> np.ndarray:
    """One row of a PNG picture from its filtered bytes and the row above."""
    if method == 0:
        return row
    if method == 1:
        return np.cumsum(row.reshape(-1, channels), axis=0, dtype=np.uint8).reshape(-1)
    if method == 2:
        return row + above
    done, up = [0] * channels + row.tolist(), [0] * channels + above.tolist()
    for i in range(channels, len(done)):
        left, over, corner = done[i - channels], up[i], up[i - channels]
        if method == 3:
            near = (left + over) // 2
        else:
            guess = left + over - corner
            near = min((left, over, corner), key=lambda value, guess=guess: abs(guess - value))
        done[i] = (done[i] + near) % 256
    return np.array(done[channels:], np.uint8)


def test_the_verdict_and_the_curves_are_there(browser: str, page: Path, tmp_path: Path) -> None:
    dom = show(browser, page, tmp_path, "--dump-dom")
    assert MADE_UP["SENTENCE"] in dom
    lines = re.findall(r'<path[^>]* d="([^"]+)"', dom)
    assert max(line.count("L") for line in lines) > 10
    assert dom.count("<svg") >= 4
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in dom


def test_hostile_rows_made_no_element(browser: str, page: Path, tmp_path: Path) -> None:
    dom = show(browser, page, tmp_path, "--dump-dom")
    assert re.findall(r"<(script|img|iframe|textarea|object|embed|form|link)\b", dom) == ["script", "script"]


def test_the_page_lets_no_request_out(browser: str, page: Path, tmp_path: Path, asked: tuple[str, list[str]]) -> None:
    """An image, a style sheet and a script are put into a copy: the page's policy stops each of them."""
    address, paths = asked
    foreign = f'<img src="{address}/i"><link rel="stylesheet" href="{address}/c"><script src="{address}/s"></script>'
    html = page.read_text(encoding="utf-8").replace("</body>", foreign + "</body>")
    copy = tmp_path / "copy.html"
    copy.write_text(html, encoding="utf-8")
    show(browser, copy, tmp_path / "strict", "--dump-dom")
    assert paths == []
    copy.write_text(html.replace("Content-Security-Policy", "no-policy"), encoding="utf-8")
    show(browser, copy, tmp_path / "loose", "--dump-dom")
    assert set(paths) == {"/i", "/c", "/s"}


@pytest.mark.parametrize("width", [1200, 390, 320])
def test_the_page_never_scrolls_sideways(browser: str, page: Path, tmp_path: Path, width: int) -> None:
    """Measured in a frame, because a browser's own window cannot be as narrow as a telephone."""
    measure = "document.title = frames[0].document.documentElement.scrollWidth"
    inner = escape(page.read_text(encoding="utf-8"))
    frame = f'<iframe style="width:{width}px;height:900px;border:0" onload="{measure}" srcdoc="{inner}"></iframe>'
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(f"<!doctype html><meta charset=utf-8><title>-</title>{frame}", encoding="utf-8")
    assert f"<title>{width}</title>" in show(browser, wrapper, tmp_path / "p", "--dump-dom")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_picture_is_not_blank(browser: str, page: Path, tmp_path: Path, width: int, scheme: str) -> None:
    picture = tmp_path / "page.png"
    preferred = f"--blink-settings=preferredColorScheme={('dark', 'light').index(scheme)}"
    show(browser, page, tmp_path / "p", preferred, f"--screenshot={picture}", f"--window-size={width},2400")
    drawn_width, height, colours = decode(picture)
    assert (drawn_width, height) == (width, 2400)
    assert len(colours) > 50
