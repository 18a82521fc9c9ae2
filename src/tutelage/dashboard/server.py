"""The server: loopback only, one answer a connection, small requests, little patience, headers that forbid the rest.

What a request holds is looked at by the gate alone. What goes wrong in making a page is said in the terminal, and to
the browser without details.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tutelage.dashboard.gate import Admitted, Asked, Entered, Gate, Refused
from tutelage.dashboard.sight import Sight
from tutelage.dashboard.views import Page, Views, own_page
from tutelage.errors import MachineError, Problem

SECONDS = 5.0
"""For a whole request to arrive, and for an answer to be taken."""
HEAD = 16 * 1024
"""Bytes of a request."""
AT_ONCE = 32
"""Connections."""
LOOPBACK, LOOPBACK_6 = "127.0.0.1", "::1"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Of every answer, beside its policy."""
FENCE = "; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"


class Dashboard:
    """A dashboard of some folders on a port."""

    def __init__(self, places: Sequence[Path], port: int = 0, say: Callable[[str], None] = lambda text: None) -> None:
        """Take the port.

        Raises:
            MachineError: machine/port-taken.
        """
        self.views = Views(Sight(places))
        self.say = say
        try:
            self._servers = [_Server(LOOPBACK, port, self)]
        except (OSError, OverflowError) as error:
            what, fix = f"port {port} cannot be listened on", "choose another, or leave --port out"
            said = str(getattr(error, "strerror", None) or error)
            raise MachineError(Problem("machine/port-taken", what, LOOPBACK, found=said, fix=fix)) from None
        self.port = int(self._servers[0].server_address[1])
        self.gate = Gate(self.port)
        with suppress(OSError):  # A machine without IPv6, or one on which somebody else has the port there.
            self._servers.append(_Server(LOOPBACK_6, self.port, self))

    @property
    def address(self) -> str:
        """For the next browser; good once."""
        return f"http://{LOOPBACK}:{self.port}/?token={self.gate.token}"

    def serve(self) -> None:
        """Answer until `stop`."""
        others = [threading.Thread(target=one.serve_forever, daemon=True) for one in self._servers[1:]]
        for thread in others:
            thread.start()
        try:
            self._servers[0].serve_forever(poll_interval=0.1)
        finally:
            for one in self._servers[1:]:
                one.shutdown()
            for one in self._servers:
                one.server_close()

    def stop(self) -> None:
        """Answer no more; from another thread than the one that serves."""
        self._servers[0].shutdown()

    def answer(self, asked: Asked) -> tuple[Page, str]:
        """The page for a request, and the cookie that goes with it."""
        decided = self.gate.decide(asked)
        if isinstance(decided, Refused):
            return refused(decided), ""
        if isinstance(decided, Entered):
            self.say(f"opened  for another browser: {self.address}")
            return own_page("entered", "", polls=False, places=[]), decided.cookie
        return self._shown(decided), ""

    def _shown(self, wanted: Admitted) -> Page:
        if wanted.route == "/favicon.ico":
            return Page("", "default-src 'none'", "own", "", status=204)
        try:
            page = self.views.page(wanted.route, wanted.runs)
        except Exception as error:  # Whatever lies in a folder must not end the server, nor be told to a browser.
            self.say(f"error   a page could not be made: {type(error).__name__}: {error}")
            return refused(Refused(500, "This page could not be made; the terminal says more."))
        if page is None:
            return refused(Refused(404, "There is no such page."))
        if page.version and wanted.known == f'"{page.version}"':
            return Page("", page.policy, page.kind, page.version, page.again, 304)
        return page


def refused(why: Refused) -> Page:
    """The page that says no."""
    return own_page("refused", "", status=why.status, polls=False, places=[], words=why.reason)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16
    allow_reuse_address = True

    def __init__(self, host: str, port: int, dashboard: Dashboard) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.dashboard = dashboard
        self._seats = threading.BoundedSemaphore(AT_ONCE)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Take the port, without asking anybody for this machine's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread, where one is free; otherwise the connection is closed."""
        if not self._seats.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._seats.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The same, and the place is free again."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._seats.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is nobody's error."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def setup(self) -> None:
        """Read the whole request, in bounded time and size, before anything of it is looked at."""
        super().setup()
        head = self._head()
        self._too_large = len(head) > HEAD
        self.rfile = io.BytesIO(head)

    def _head(self) -> bytes:
        until, head = time.monotonic() + SECONDS, b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) <= HEAD:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.connection.settimeout(left)
            piece = self.connection.recv(4096)
            if not piece:
                break
            head += piece
        self.connection.settimeout(SECONDS)
        return head

    def handle(self) -> None:
        """One request, one answer."""
        self.close_connection = True
        self.requestline = self.command = ""
        self.request_version = "HTTP/1.1"
        self.raw_requestline = self.rfile.readline()
        if not self.raw_requestline:
            return
        if self._too_large:
            self.send_error(431)
        elif self.parse_request():
            headers = tuple((name, str(value)) for name, value in self.headers.items())
            page, cookie = self.server.dashboard.answer(Asked(self.command, self.path, headers))
            self._send(page, cookie)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """No, without a word of what was asked."""
        self._send(refused(Refused(int(code), "This is no request that is answered here.")))

    def _send(self, page: Page, cookie: str = "") -> None:
        content = page.html.encode("utf-8", errors="replace")
        self.send_response_only(page.status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", page.policy + FENCE)
        self.send_header("Tutelage-Page", page.kind)
        self.send_header("Tutelage-Again", str(page.again))
        if page.version:
            self.send_header("ETag", f'"{page.version}"')
        if cookie:
            self.send_header("Set-Cookie", cookie)
        if page.status == 405:
            self.send_header("Allow", "GET")
        if page.status not in (204, 304):
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        with suppress(OSError):  # The browser left.
            self.end_headers()
            if self.command != "HEAD" and page.status not in (204, 304):
                self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: an address can hold a token."""
