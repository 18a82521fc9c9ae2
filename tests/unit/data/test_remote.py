"""Files at an address, from a real server on this machine."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from rowfiles import CONTENT, PACKING, items, refusal, values

from tutelage.data.sources import fingerprint, read
from tutelage.errors import MachineError
from tutelage.recipe import Source
from tutelage.types import Record

pytest.importorskip("fsspec", reason="fsspec is not installed")

ROWS = [{"n": str(n), "text": f"row {n} \u2028 ü" * 20} for n in range(3000)]


class Server(BaseHTTPRequestHandler):
    """Serves `files`; a path below /cut/ ends early, one below /moved/ is elsewhere, one below /unpacked/ says that
    the transport packed it."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        _, kind, name = self.path.partition("?")[0].split("/", 2)
        data = self.files.get(name)
        if kind == "moved":
            self.send_response(302)
            self.send_header("Location", f"/plain/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status = {"forbidden": 403, "broken": 500}.get(kind, 404 if data is None else 200)
        page = data if status == 200 and data is not None else b"<!DOCTYPE html><p>no"
        self.send_response(status)
        if kind != "unsized":
            self.send_header("Content-Length", str(len(page)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        if kind == "unpacked":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if body:
            self.wfile.write(page[: len(page) // 2] if kind == "cut" else page)
            if kind == "cut":
                self.close_connection = True

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client may leave before the end
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="aiohttp, which fsspec needs for https, is not installed")
    Server.files = {
        f"r{kind}{end}": pack(make(ROWS)) for kind, make in CONTENT.items() for end, pack in PACKING.items()
    }
    Server.files["page.jsonl"] = b"<!DOCTYPE html><html>Please sign in"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_type_is_read_from_a_server_that_gives_no_ranges(address: str, kind: str, packed: str) -> None:
    path = f"{address}/plain/r{kind}{packed}"
    assert values(path) == ROWS
    first = next(read(Source(path=path)))
    assert isinstance(first, Record)
    assert first.origin.file == path


def test_a_file_of_several_blocks_is_read_from_a_server_that_gives_no_ranges(address: str) -> None:
    Server.files["large.jsonl"] = CONTENT[".jsonl"]([{"text": "x" * 1_000_000}] * 12)
    assert len(values(f"{address}/plain/large.jsonl")) == 12


@pytest.mark.parametrize("way", ["moved", "unsized", "unpacked"])
def test_redirects_unknown_sizes_and_encodings_give_the_stored_bytes(address: str, way: str) -> None:
    for name in ("r.jsonl.gz", "r.parquet"):
        path = f"{address}/{way}/{name}"
        assert values(path) == ROWS
        straight = fingerprint(Source(path=f"{address}/plain/{name}"))
        assert fingerprint(Source(path=path)) == {**straight, "path": path}


def test_a_query_is_no_pattern_and_no_part_of_the_ending(address: str) -> None:
    assert values(f"{address}/plain/r.jsonl?download=true&x=[1]*", limit=2) == ROWS[:2]


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.jsonl.zst", "r.json", "r.csv", "r.parquet"])
def test_a_transfer_that_breaks_off_is_no_shorter_file(address: str, name: str) -> None:
    problem = refusal(f"{address}/cut/{name}")
    assert problem.code == "data/unreadable"
    assert "transfer broke off" in problem.found
    with pytest.raises(Exception, match="transfer broke off"):
        fingerprint(Source(path=f"{address}/cut/{name}"))


@pytest.mark.parametrize(("way", "told"), [("plain", "404"), ("forbidden", "403"), ("broken", "500")])
def test_what_is_not_there_is_said_with_the_servers_answer(address: str, way: str, told: str) -> None:
    problem = refusal(f"{address}/{way}/none.jsonl")
    assert problem.code == "data/missing-file"
    assert told in problem.found


def test_no_server_and_an_error_page(address: str) -> None:
    assert refusal("http://127.0.0.1:9/rows.jsonl").code == "data/missing-file"
    assert "web page" in refusal(f"{address}/plain/page.jsonl").found


def test_addresses_and_files_mix_and_one_address_twice_is_refused(address: str, tmp_path) -> None:
    local = tmp_path / "a.jsonl"
    local.write_text('{"n": "here"}\n')
    path = f"{address}/plain/r.jsonl"
    assert values([local, path], limit=2)[1] == ROWS[0]
    assert refusal([path, path]).code == "recipe/conflict"


def test_nothing_is_fetched_before_it_is_asked_for(address: str) -> None:
    Server.asked.clear()
    reading = read(Source(path=f"{address}/plain/r.jsonl"))
    assert Server.asked == []
    next(reading)
    assert Server.asked[-1] == "GET /plain/r.jsonl"


def test_patterns_at_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "note.md"):
        memory.pipe(f"/set/{name}", CONTENT[".jsonl"]([{"n": name}]))
    try:
        assert [row["n"] for row in values("memory://set/*.jsonl")] == ["a.jsonl", "b.jsonl"]
        assert [row["n"] for row in values("memory://set/**")] == ["a.jsonl", "b.jsonl", "deep/c.jsonl"]
        assert refusal("memory://set/*.csv").code == "data/missing-file"
        memory.pipe("/set/d.parquet", CONTENT[".parquet"](ROWS))
        assert values("memory://set/d.parquet") == ROWS
    finally:
        memory.rm("/set", recursive=True)


def test_an_address_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MachineError) as caught:
        items("https://example.org/rows.jsonl")
    assert caught.value.problems[0].fix == 'pip install "tutelage[remote]"'
    assert "aiohttp" in caught.value.problems[0].found
