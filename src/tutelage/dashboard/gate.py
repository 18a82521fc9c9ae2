"""Who is let in, and with what: one decision for each request, and what is not on a list is refused.

Any page in a browser can send requests to a port of this machine, and a name of its own can be made to stand for
127.0.0.1. So a request needs the name and port that the server has (which a foreign name cannot have), no foreign
origin, and a cookie that the browser was given for a token that only the terminal showed. The token is good once.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

ROUTES = ("/", "/runs", "/run", "/favicon.ico")
"""Every address that there is; they are compared as they stand, without any decoding."""
LONGEST = 2000
"""Characters of an address."""
MOST = 16
"""Parameters of an address."""
_ID = re.compile(r"[0-9a-f]{12}")
_PRINTABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass(frozen=True, slots=True)
class Refused:
    """No, with a status and a reason that repeats nothing of the request."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Entered:
    """The token was right: the browser is given its cookie and sent on."""

    cookie: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """What is to be shown."""

    route: str
    runs: tuple[str, ...]
    """Ids."""
    known: str
    """The version that the browser has."""


class Gate:
    """Of one server."""

    def __init__(self, port: int) -> None:
        self.hosts = frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))
        if port == 80:
            self.hosts |= {"127.0.0.1", "localhost", "[::1]"}
        self._cookie_name = f"tutelage-{port}"  # Cookies know no ports: other servers here have theirs.
        self._session = secrets.token_urlsafe(32)
        self._lock = threading.Lock()
        self.token = secrets.token_urlsafe(32)
        """For the next browser."""

    def decide(self, asked: Asked) -> Refused | Entered | Admitted:
        """Whether a request is answered, and with what."""
        host = asked.all("host")
        if len(host) != 1 or host[0] not in self.hosts:
            return Refused(403, "This server answers under its own name and port only.")
        if asked.method != "GET":
            return Refused(405, "Nothing can be changed here: only GET is answered.")
        if asked.all("transfer-encoding") or any(length.strip() != "0" for length in asked.all("content-length")):
            return Refused(400, "A request has no body here.")
        if any(origin != f"http://{host[0]}" for origin in asked.all("origin")):
            return Refused(403, "Other pages are not answered.")
        target = _parsed(asked.target)
        if target is None:
            return Refused(400, "This is no address of this server.")
        route, values = target
        given = [value for name, value in values if name == "token"]
        if given:
            return self._enter(asked, given)
        if any(site not in ("same-origin", "none") for site in asked.all("sec-fetch-site")):
            return Refused(403, "Other pages are not answered.")
        if not self._known(asked):
            return Refused(403, "Open the address that `tutelage dashboard` printed last in the terminal.")
        if route not in ROUTES:
            return Refused(404, "There is no such page.")
        runs = [value for name, value in values if name == "id"]
        if len(runs) != len(values) or not all(map(_ID.fullmatch, runs)) or (runs and route != "/run"):
            return Refused(400, "This is no address of this server.")
        return Admitted(route, tuple(dict.fromkeys(runs)), next(iter(asked.all("if-none-match")), ""))

    def _enter(self, asked: Asked, given: Sequence[str]) -> Refused | Entered:
        with self._lock:
            right = len(given) == 1 and _same(given[0], self.token)
            if right:
                self.token = secrets.token_urlsafe(32)
        if not right and not self._known(asked):
            return Refused(403, "This address was used before: the terminal shows a new one.")
        return Entered(f"{self._cookie_name}={self._session}; Path=/; HttpOnly; SameSite=Strict")

    def _known(self, asked: Asked) -> bool:
        """Whether the cookie is there."""
        pairs = [pair.strip().partition("=") for header in asked.all("cookie") for pair in header.split(";")]
        return any(name == self._cookie_name and _same(value, self._session) for name, _, value in pairs)


def _parsed(target: str) -> tuple[str, list[tuple[str, str]]] | None:
    """(path, parameters); None for what is not one of ours to begin with."""
    if len(target) > LONGEST or not _PRINTABLE.fullmatch(target):
        return None
    if not target.startswith("/") or target.startswith("//"):
        return None
    try:
        parts = urlsplit(target)
        values = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=MOST)
    except ValueError:
        return None
    if parts.scheme or parts.netloc or parts.fragment:
        return None
    return parts.path, values


def _same(one: str, other: str) -> bool:
    """Compared in a time that says nothing of where they differ."""
    return secrets.compare_digest(one.encode("utf-8", errors="replace"), other.encode())
