"""The server itself: what it listens on, what it sends, and what it does with clients that misbehave."""

from __future__ import annotations

import http.client
import re
import runpy
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tinyruns import tree
from tutelage.dashboard import Dashboard, server, views
from tutelage.errors import MachineError
from tutelage.runs import Run

MADE_UP = runpy.run_path(str(Path(__file__).parents[1] / "report" / "madeup.py"))


class Served:
    """A dashboard in a thread, and a client that has its cookie."""

    def __init__(self, *places: Path) -> None:
        self.said: list[str] = []
        self.dashboard = Dashboard(places, say=self.said.append)
        self.port = self.dashboard.port
        self.thread = threading.Thread(target=self.dashboard.serve)
        self.thread.start()
        answer = self.get(self.dashboard.address.partition(str(self.port))[2], cookie="")
        self.cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def get(self, target: str = "/", *, cookie: str | None = None, method: str = "GET", **headers: str) -> Any:
        """The answer, with its text as `text`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {"Cookie": self.cookie if cookie is None else cookie} | headers
        connection.request(method, target, headers={key.replace("_", "-"): value for key, value in given.items()})
        answer = connection.getresponse()
        answer.text = answer.read().decode()  # type: ignore[attr-defined]
        connection.close()
        return answer

    def close(self) -> None:
        """End the server and its thread."""
        self.dashboard.stop()
        self.thread.join()


@pytest.fixture
def serve() -> Iterator[Any]:
    served: list[Served] = []

    def make(*places: Path) -> Served:
        served.append(Served(*places))
        return served[-1]

    yield make
    for one in served:
        one.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are made anew whenever something has changed."""
    monkeypatch.setattr(views, "SHARE", 0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made(tmp_path / "runs" / "orders")


def made(folder: Path, **options: Any) -> Path:
    """A run that was made up, which `runs list` takes for one, too."""
    MADE_UP["make_run"](folder, **options)
    (folder / "run.json").write_text('{"run": "x", "sessions": []}')
    return folder


def test_it_shows_the_report_with_its_poller_and_headers_that_forbid_the_rest(serve, run):
    before = tree(run)
    answer = serve(run).get("/")
    assert answer.status == 200
    assert MADE_UP["SENTENCE"] in answer.text
    assert 'const mine = "run"' in answer.text
    policy = answer.headers["Content-Security-Policy"]
    for rule in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"):
        assert rule in policy
    assert "connect-src 'self'" in policy
    (scripts,) = re.findall(r"script-src ([^;]*)", policy)
    assert all(source.startswith("'sha256-") for source in scripts.split())
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert not [name for name in answer.headers if name.lower().startswith("access-control") or name == "Server"]
    assert tree(run) == before  # Nothing was written, and no lock taken.


def test_every_refusal_has_the_same_fence_and_repeats_nothing(serve, run):
    served = serve(run)
    answers = [
        served.get("/", cookie=""),
        served.get("/", Host="evil.com"),
        served.get("/", Origin="http://evil.com"),
        served.get("/<script>alert(1)</script>"),
        served.get("/run?id=%3Cscript%3E"),
        served.get("/", method="DELETE"),
        served.get("/", method="BREW"),
    ]
    assert [answer.status for answer in answers] == [403, 403, 403, 404, 400, 405, 405]
    for answer in answers:
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert not re.search("evil|alert|BREW|Traceback|<script", answer.text)
        assert "Set-Cookie" not in answer.headers


def test_it_listens_on_this_machine_alone(serve, run):
    served = serve(run)
    assert {one.server_address[0] for one in served.dashboard._servers} <= {"127.0.0.1", "::1"}
    with pytest.raises(MachineError) as taken:
        Dashboard([run], port=served.port)
    assert taken.value.code == "machine/port-taken"


def test_a_used_token_makes_a_new_one_that_the_terminal_shows(serve, run):
    served = serve(run)
    (line,) = served.said
    address = re.search(r"http://\S+", line)[0]
    answer = served.get(address.partition(str(served.port))[2], cookie="")
    assert answer.headers["Set-Cookie"].startswith(served.cookie)
    assert 'http-equiv="refresh" content="0;url=/"' in answer.text
    assert len(served.said) == 2


def test_what_did_not_change_is_not_sent_again_and_what_grew_is(serve, run):
    served = serve(run)
    first = served.get("/")
    again = served.get("/", If_None_Match=first.headers["ETag"])
    assert (again.status, again.text) == (304, "")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "loss": 0.12')
        file.flush()
        assert served.get("/").status == 200  # A line that is still being written.
        file.write('34, "learning_rate": 1e-5, "grad_norm": 1.0, "tokens": 10, "seconds": 1.0, "skipped": false}\n')
    fresh = served.get("/", If_None_Match=first.headers["ETag"])
    assert fresh.status == 200
    assert fresh.headers["ETag"] != first.headers["ETag"]
    assert fresh.text != first.text


def test_a_run_is_waited_for_shown_and_missed(serve, tmp_path):
    folder = tmp_path / "runs" / "later"
    served = serve(folder)
    waiting = served.get("/")
    assert (waiting.status, waiting.headers["Tutelage-Page"]) == (200, "own")
    assert "Waiting for a run to begin" in waiting.text
    assert str(folder) in waiting.text
    made(folder)
    there = served.get("/", If_None_Match=waiting.headers["ETag"])
    assert there.headers["Tutelage-Page"] == "run"
    assert MADE_UP["SENTENCE"] in there.text
    shutil.rmtree(folder)
    gone = served.get("/")
    assert "The run is gone" in gone.text
    made(folder)
    assert MADE_UP["SENTENCE"] in served.get("/").text


def test_a_folder_shows_the_list_and_runs_over_each_other(serve, run):
    made(run.with_name("second"), finished=False)
    served = serve(run.parent)
    page = served.get("/")
    assert page.headers["Tutelage-Page"] == "own"
    ids = re.findall(r'name="id" id="box-(\w+)"', page.text)
    assert len(ids) == 2
    assert "orders" in page.text
    assert "second" in page.text
    alone = served.get(f"/run?id={ids[0]}").text
    both = served.get(f"/run?id={ids[0]}&id={ids[1]}").text
    assert both.count("second") + both.count("orders") > alone.count("second") + alone.count("orders")
    assert '<a href="/runs">All runs</a>' in alone
    assert served.get("/", If_None_Match=page.headers["ETag"]).status == 304
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 77, "loss": 1.5}\n')
    grown = served.get("/", If_None_Match=page.headers["ETag"])
    assert grown.status == 200
    assert "77" in grown.text
    assert served.get("/run?id=000000000000").status == 404
    assert served.get("/run").status == 404


def test_runs_that_are_named_are_drawn_together_at_once(serve, run):
    other = made(run.with_name("second"))
    page = serve(run, other).get("/")
    assert page.headers["Tutelage-Page"] == "run"
    assert "second" in page.text


def test_a_run_that_was_broken_off_is_not_said_to_train(serve, tmp_path):
    folder = made(tmp_path / "broken", finished=False)
    served = serve(folder)
    page = served.get("/").text
    assert "it was broken off" in page
    assert "&lt;main" not in page
    assert "Training: step" not in page
    with Run(folder).locked():
        Run(folder).claim()
        page = served.get("/").text
        assert "it was broken off" not in page
        assert "Training: step" in page
    assert "it was broken off" in served.get("/").text


def test_a_file_that_cannot_be_read_is_said_and_ends_nothing(serve, run):
    served = serve(run)
    kept = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text("a: [<b>\n")
    page = served.get("/")
    assert page.status == 200
    assert "cannot be read just now" in page.text
    assert "<b>" not in page.text.partition("<main")[2]
    (run / "recipe.yaml").write_text(kept)
    assert MADE_UP["SENTENCE"] in served.get("/").text


def test_a_bug_is_told_to_the_terminal_and_not_to_the_browser(serve, run, monkeypatch):
    served = serve(run)
    monkeypatch.setattr(served.dashboard.views, "page", lambda *_: 1 / 0)
    answer = served.get("/")
    assert answer.status == 500
    assert "ZeroDivision" not in answer.text
    assert "ZeroDivisionError" in served.said[-1]


def raw(port: int, data: bytes) -> bytes:
    """What comes back for bytes as they stand."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        try:
            while part := connection.recv(65536):
                parts.append(part)
        except ConnectionError:
            pass
        return b"".join(parts)


def test_requests_that_are_too_large_or_none_are_refused(serve, run):
    served = serve(run)
    host = f"Host: 127.0.0.1:{served.port}\r\n".encode()
    assert b" 431 " in raw(served.port, b"GET / HTTP/1.1\r\n" + host + b"X: " + b"a" * 20_000 + b"\r\n\r\n")[:20]
    assert b" 431 " in raw(served.port, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + host + b"\r\n")[:20]
    assert raw(served.port, b"") == b""
    for data in (
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ):
        said = raw(served.port, data)
        assert b" 200 " not in said[:20]
        assert b"SENTENCE" not in said
    assert served.get("/").status == 200


def trickle(port: int, seconds: float) -> None:
    """A letter now and then, and never a whole request."""
    with socket.create_connection(("127.0.0.1", port), 10) as slow:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            slow.sendall(b"G")
            time.sleep(0.02)


def test_a_letter_now_and_then_does_not_keep_a_place(serve, run, monkeypatch):
    monkeypatch.setattr(server, "SECONDS", 1.0)
    served = serve(run)
    with pytest.raises(OSError, match=r"pipe|reset"):
        trickle(served.port, 6)


def test_more_connections_than_places_are_closed_and_others_are_answered(serve, run, monkeypatch):
    monkeypatch.setattr(server, "SECONDS", 2.0)
    served = serve(run)
    served.get("/")
    slow = [socket.create_connection(("127.0.0.1", served.port), 10) for _ in range(server.AT_ONCE + 8)]
    try:
        assert slow[-1].recv(1) == b""
        assert slow[0].recv(1) == b""  # After its time.
        assert served.get("/").status == 200
    finally:
        for connection in slow:
            connection.close()


def test_a_long_run_is_drawn_quickly_and_not_all_the_time(run, monkeypatch):
    """Measured without a network: a generous bound, for machines that do other work."""
    from tutelage.dashboard.sight import Sight
    from tutelage.dashboard.views import Views

    monkeypatch.setattr(views, "SHARE", 1000)
    with (run / "metrics.jsonl").open("a") as file:
        for step in range(41, 5000):
            file.write(f'{{"step": {step}, "loss": {1 / step}, "learning_rate": 1e-5, "grad_norm": 1.0, ')
            file.write('"tokens": 100, "seconds": 0.5, "skipped": false}\n')
    shown = Views(Sight([run]))
    began = time.process_time()
    first = shown.page("/", ())
    assert time.process_time() - began < 2
    # The next change waits until what it took is a small part of the time.
    with (run / "metrics.jsonl").open("a") as file:
        file.write(" ")
    assert shown.page("/", ()) is first
    monkeypatch.setattr(views, "SHARE", 0)
    assert shown.page("/", ()).version != first.version
