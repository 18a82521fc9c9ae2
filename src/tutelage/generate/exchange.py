"""One request to an endpoint and its answer, tried again where trying again can help."""

from __future__ import annotations

import email.utils
import ipaddress
import json
import random
import threading
import time
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from tutelage.errors import MachineError, Problem, RecipeError, SecurityError

LARGEST = 64 << 20
"""Bytes of an answer that are read."""
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
"""What a server says when it may do better later."""
EVERYONE = frozenset({401, 403, 404, 405, 407})
"""What it says when any other request would be refused as well."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an answer is waited for, in seconds, and how often it is asked for."""

    each: float = 300.0
    """One try."""
    altogether: float = 1800.0
    """All tries of one request, with the waits between them."""
    tries: int = 8
    first_wait: float = 0.5
    """Before the second try; it doubles each time, and is shortened at random by up to half."""
    longest_wait: float = 60.0


PATIENT = Patience()
"""Enough for a server that is busy or restarts."""


class Failed(Exception):
    """A request that failed for good."""

    def __init__(self, problem: Problem, *, everyone: bool = False) -> None:
        self.problem = problem
        self.everyone = everyone
        """Whether any other request would fail as well."""
        super().__init__(str(problem))


class _Again(Exception):
    """A try that failed, and may go better later."""

    def __init__(self, problem: Problem, *, wait: float = 0.0, unreachable: bool = False) -> None:
        self.problem, self.wait, self.unreachable = problem, wait, unreachable
        super().__init__(str(problem))


class Exchange:
    """A connection to an endpoint, for several threads."""

    def __init__(self, url: str, key: str | None, patience: Patience, *, connections: int) -> None:
        httpx = _httpx()
        refuse_address(url, key=key is not None)
        host = urlsplit(url).hostname or ""
        self.url, self.patience, self._key = url.rstrip("/"), patience, key
        self.retries = 0
        self.stopped = threading.Event()
        """Set when nobody waits for answers any more."""
        self._counting = threading.Lock()
        self._asking = 0
        self._errors: Any = httpx
        self._client = httpx.Client(
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(patience.each, connect=min(patience.each, 10.0)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=False,  # The key is for this address alone.
            trust_env=not is_near(host),  # A proxy does not reach this machine.
        )

    def __repr__(self) -> str:
        """The address; the key is never shown."""
        return f"Exchange({self.url!r})"

    def close(self) -> None:
        """Let the connections go; those with a request on its way, which is not waited for, when it is over."""
        self.stopped.set()
        with self._counting:
            idle = self._asking == 0
        if idle:
            self._client.close()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The object that the endpoint answers with.

        Raises:
            Failed: when it refuses, or when patience is over.
        """
        with self._counting:
            self._asking += 1
        try:
            return self._patiently(path, body)
        finally:
            with self._counting:
                self._asking -= 1
                last = self._asking == 0 and self.stopped.is_set()
            if last:
                self._client.close()

    def _patiently(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        patience = self.patience
        deadline = time.monotonic() + patience.altogether
        for number in range(patience.tries):
            try:
                return self._try(path, body, deadline)
            except _Again as again:
                wait = min(patience.longest_wait, patience.first_wait * 2**number) * random.uniform(0.5, 1.0)
                wait = max(wait, again.wait)
                last = number + 1 == patience.tries
                if last or time.monotonic() + wait > deadline or self.stopped.wait(wait):
                    raise Failed(again.problem, everyone=again.unreachable) from None
            with self._counting:
                self.retries += 1
        raise AssertionError("bug: the last try neither answered nor failed")

    def _try(self, path: str, body: dict[str, Any], deadline: float) -> dict[str, Any]:
        address = self.url + path
        deadline = min(deadline, time.monotonic() + self.patience.each)
        try:
            with self._client.stream("POST", address, json=body) as response:
                data = self._read(response, address, deadline)
                if response.status_code == 200:
                    return self._object(data, address)
                self._refused(response, data, address)
        except self._errors.TransportError as error:
            connecting = isinstance(error, self._errors.ConnectError | self._errors.ConnectTimeout)
            what = "the endpoint cannot be reached" if connecting else "the endpoint did not answer in time"
            if not isinstance(error, self._errors.TimeoutException | self._errors.ConnectError):
                what = "the connection to the endpoint broke"
            found = self._scrubbed(str(error)) or type(error).__name__
            fix = "start the server, or correct its address" if connecting else "ask for less at once, or wait longer"
            problem = Problem("machine/endpoint-failed", what, where=address, found=found, fix=fix)
            raise _Again(problem, unreachable=connecting) from None
        raise AssertionError("bug: a refusal that is none")

    def _read(self, response: Any, address: str, deadline: float) -> bytes:
        """The whole answer; a server that sends a byte now and then is not waited for."""
        data = bytearray()
        for piece in response.iter_bytes():
            data += piece
            if len(data) > LARGEST:
                what = f"the endpoint's answer is larger than {LARGEST >> 20} MiB"
                raise Failed(Problem("machine/endpoint-answer", what, where=address))
            if time.monotonic() > deadline:
                fix = "ask for less at once, or wait longer"
                what = "the endpoint did not answer in time"
                raise _Again(Problem("machine/endpoint-failed", what, where=address, fix=fix))
        return bytes(data)

    def _object(self, data: bytes, address: str) -> dict[str, Any]:
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if isinstance(answer, dict):
            return answer
        what = "the endpoint answered with something else than a JSON object"
        found, fix = self._excerpt(data), "see whether the address is that of the API, which often ends in /v1"
        raise _Again(Problem("machine/endpoint-answer", what, where=address, found=found, fix=fix))

    def _refused(self, response: Any, data: bytes, address: str) -> None:
        status = response.status_code
        found = f"HTTP {status}: {self._excerpt(data)}"
        if status in PASSING and b"insufficient_quota" not in data:
            what = "the endpoint is too busy or broken"
            problem = Problem("machine/endpoint-failed", what, where=address, found=found, fix="go on later")
            raise _Again(problem, wait=_retry_after(response.headers.get("retry-after")))
        fixes = {
            401: "see whether the environment holds the right key",
            403: "see whether the key may use this model",
            404: "correct the address or the model's name",
        }
        if status < 400:
            found = f"HTTP {status}, to {self._scrubbed(response.headers.get('location', ''))}"
            fixes[status] = "name the address that it leads to, if you trust it with the key"
        fix = fixes.get(status, "change what the endpoint complains about")
        problem = Problem("machine/endpoint-refused", "the endpoint refused", where=address, found=found, fix=fix)
        raise Failed(problem, everyone=status in EVERYONE or status < 400 or b"insufficient_quota" in data)

    def _excerpt(self, data: bytes) -> str:
        return self._scrubbed(data[:2000].decode("utf-8", "replace"))[:500]

    def _scrubbed(self, text: str) -> str:
        """Text of a server or a library, which may repeat what it was sent."""
        return text if self._key is None else text.replace(self._key, "[key]")


def is_near(host: str) -> bool:
    """Whether an address is on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_address(url: str, *, key: bool) -> None:
    """Make sure that an address is one to ask, and with `key`, one that a key can be sent to.

    Raises:
        RecipeError: recipe/bad-value. SecurityError: security/secret, security/key-in-clear.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.username is not None or parts.password is not None or parts.query:
        what = "the endpoint's address holds a name, a password or a query, which may be a key"
        fix = "take it out of the address, and name the environment variable that holds the key"
        raise SecurityError(Problem("security/secret", what, where=host, fix=fix))
    if parts.scheme not in ("http", "https") or not host:
        what, fix = "the endpoint's address is not one of the web", "write it like http://127.0.0.1:8000/v1"
        raise RecipeError(Problem("recipe/bad-value", what, where="url", found=url, fix=fix))
    if key and parts.scheme == "http" and not is_near(host) and not _is_private(host):
        what = "the key would be sent over the network for anyone to read"
        fix = "use https, or reach the server through a tunnel on this machine"
        raise SecurityError(Problem("security/key-in-clear", what, where=f"http://{host}", fix=fix))


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host  # A name of the local network, as in a cluster.


def _retry_after(value: str | None) -> float:
    """Seconds to wait, from a number of seconds or a date."""
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def _httpx() -> ModuleType:
    try:
        import httpx
    except ImportError as error:
        problem = Problem(
            "machine/missing-package",
            "asking an endpoint needs the package `httpx`",
            found="it is not installed",
            fix='pip install "tutelage[endpoint]"',
        )
        raise MachineError(problem) from error
    return httpx
