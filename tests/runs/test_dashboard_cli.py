"""`tutelage dashboard` as it is typed: an address, an answer, and an end."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
import webbrowser
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tinyruns import tutelage
from tutelage.cli import dashboard


def test_it_prints_one_address_answers_and_ends_with_ctrl_c(tmp_path):
    command = [sys.executable, "-m", "tutelage", "dashboard", str(tmp_path / "later"), "--port", "0"]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = served.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", address), served.stderr.read()
        with pytest.raises(HTTPError) as refused:
            urllib.request.urlopen(address.partition("?")[0], timeout=60)
        assert refused.value.code == 403
        refused.value.close()
        with urllib.request.urlopen(address, timeout=60) as answer:
            cookie = answer.headers["Set-Cookie"].partition(";")[0]
        asked = urllib.request.Request(address.partition("?")[0], headers={"Cookie": cookie})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert b"Waiting for a run to begin" in answer.read()
        served.send_signal(signal.SIGINT)
        out, err = served.communicate(timeout=60)
    finally:
        served.kill()
        served.wait()
    assert served.returncode == 0
    assert out == ""
    assert "opened  for another browser: http://127.0.0.1:" in err
    assert "Traceback" not in err
    assert os.listdir(tmp_path) == []


def test_a_port_that_is_taken_is_said(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = tutelage("dashboard", tmp_path, "--port", taken.getsockname()[1])
    assert done.code == 5
    assert "error[machine/port-taken]" in done.err


def test_the_address_is_not_on_the_command_line_of_the_browser(monkeypatch):
    seen: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: seen.append(url) or True)
    page = dashboard._open("http://127.0.0.1:1/?token=secret&x")
    try:
        assert seen == [page.as_uri()]
        assert "secret" not in seen[0]
        assert "token=secret&amp;x" in page.read_text()
        assert stat.S_IMODE(Path(page).stat().st_mode) == 0o600
    finally:
        page.unlink()
