"""Who is let in: every rule by itself, and nothing that is not on a list."""

from __future__ import annotations

import itertools
from urllib.parse import quote

import pytest

from tutelage.dashboard.gate import ROUTES, Admitted, Asked, Entered, Gate, Refused

PORT = 8123
HOST = ("Host", f"127.0.0.1:{PORT}")


@pytest.fixture
def gate() -> Gate:
    return Gate(PORT)


@pytest.fixture
def cookie(gate: Gate) -> tuple[str, str]:
    return cookie_of(gate)


def cookie_of(gate: Gate, port: int = PORT) -> tuple[str, str]:
    entered = gate.decide(Asked("GET", f"/?token={gate.token}", (("Host", f"127.0.0.1:{port}"),)))
    assert isinstance(entered, Entered)
    return ("Cookie", entered.cookie.partition(";")[0])


def status(gate: Gate, *headers: tuple[str, str], method: str = "GET", target: str = "/") -> int:
    decided = gate.decide(Asked(method, target, headers))
    return decided.status if isinstance(decided, Refused) else 200


def test_the_token_is_good_once_and_gives_a_cookie_that_scripts_and_other_sites_do_not_have(gate):
    token = gate.token
    entered = gate.decide(Asked("GET", f"/?token={token}", (HOST,)))
    assert isinstance(entered, Entered)
    assert entered.cookie.startswith(f"tutelage-{PORT}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(entered.cookie.split("; "))
    assert token not in entered.cookie
    assert status(gate, HOST, target=f"/?token={token}") == 403
    assert gate.token != token
    cookie = ("Cookie", entered.cookie.partition(";")[0])
    assert isinstance(gate.decide(Asked("GET", "/", (HOST, cookie))), Admitted)
    # Who is in already may reload the first address.
    assert isinstance(gate.decide(Asked("GET", f"/?token={token}", (HOST, cookie))), Entered)


def test_without_cookie_or_with_a_wrong_one_nothing_is_shown(gate, cookie):
    name, value = cookie
    other = Gate(PORT + 1)
    wrong = [
        "",
        "x",
        value[:-1],
        value + "x",
        value.replace(f"-{PORT}", ""),
        cookie_of(other, PORT + 1)[1],
        "tutelage-8123=é",
    ]
    for text in wrong:
        assert status(gate, HOST, (name, text)) == 403
    assert status(gate, HOST) == 403
    assert status(gate, HOST, (name, f"theme=dark; {value}; other=1")) == 200
    for guess in ("", "x", gate.token[:-1], f"{gate.token}&token={gate.token}"):
        assert status(gate, HOST, target=f"/?token={guess}") == 403


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"[::1]:{PORT}"])
def test_the_names_of_this_machine_are_the_servers(gate, cookie, host):
    assert status(gate, ("Host", host), cookie) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.com", f"evil.com:{PORT}", f"127.0.0.1.evil.com:{PORT}", f"localhost.evil.com:{PORT}", "127.0.0.1"),
        *("localhost", f"localhost.:{PORT}", f"LOCALHOST:{PORT}", f"0.0.0.0:{PORT}", f"127.0.0.2:{PORT}"),
        *("127.0.0.1:1", f"[::1]:{PORT}x", "[::1]:x", "::1", f"[::]:{PORT}", "", f"user@127.0.0.1:{PORT}"),
        *(f" 127.0.0.1:{PORT}x", f"127.0.0.1:{PORT}, evil.com", f"127.1:{PORT}", f"2130706433:{PORT}", "null"),
    ],
)
def test_any_other_name_is_refused(gate, cookie, host):
    assert status(gate, ("Host", host), cookie) == 403
    assert status(gate, ("Host", host), target=f"/?token={gate.token}") == 403


def test_no_host_and_two_hosts_are_refused(gate, cookie):
    assert status(gate, cookie) == 403
    assert status(gate, HOST, HOST, cookie) == 403
    assert status(gate, HOST, ("host", "evil.com"), cookie) == 403


@pytest.mark.parametrize(
    "origin",
    ["null", "", "http://evil.com", f"https://127.0.0.1:{PORT}", "http://127.0.0.1:1", f"http://localhost:{PORT}"],
)
def test_another_origin_is_refused(gate, cookie, origin):
    assert status(gate, HOST, cookie, ("Origin", origin)) == 403
    assert status(gate, HOST, cookie, ("Origin", f"http://127.0.0.1:{PORT}")) == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "other", ""])
def test_what_a_browser_says_comes_from_another_page_is_refused(gate, cookie, site):
    assert status(gate, HOST, cookie, ("Sec-Fetch-Site", site)) == 403
    assert status(gate, HOST, cookie, ("Sec-Fetch-Site", "same-origin")) == 200
    assert status(gate, HOST, cookie, ("Sec-Fetch-Site", "none")) == 200


METHODS = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD", "CONNECT", "PROPFIND", "get", "GET ", "X" * 99]


@pytest.mark.parametrize(("method", "route"), itertools.product(METHODS, [*ROUTES, "*", "/new"]))
def test_no_method_but_one_is_answered_on_any_address(gate, cookie, method, route):
    """Of every route that there is, so that a new one is covered by itself."""
    assert status(gate, HOST, cookie, method=method, target=route) == 405
    assert status(gate, HOST, cookie, method=method, target=f"{route}?token={gate.token}") == 405


def test_requests_with_bodies_are_refused(gate, cookie):
    assert status(gate, HOST, cookie, ("Content-Length", "1")) == 400
    assert status(gate, HOST, cookie, ("Content-Length", "0")) == 200
    assert status(gate, HOST, cookie, ("Transfer-Encoding", "chunked")) == 400


TRAVERSALS = [
    "../",
    "..%2f",
    "%2e%2e/",
    "%2e%2e%2f",
    "..%252f",
    "%252e%252e%252f",
    "..\\",
    "..%5c",
    "....//",
    "..%c0%af",
]


@pytest.mark.parametrize("piece", TRAVERSALS)
@pytest.mark.parametrize(
    "shape", ["/{p}{p}etc/passwd", "/run/{p}recipe.yaml", "/run?id={p}etc/passwd", "/run/{p}", "{p}run"]
)
def test_no_address_leads_anywhere(gate, cookie, piece, shape):
    assert status(gate, HOST, cookie, target=shape.format(p=piece)) in (400, 404)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "http://evil.com/",
            f"http://127.0.0.1:{PORT}/",
            "//evil.com/",
            "*",
            "",
            "/run#x",
            "/ ",
            "/\x00",
            "/é",
            "/run?id",
        ),
        *("/?id=0123456789ab", "/run?id=0123456789abc", "/run?id=0123456789AB", "/run?x=1", "/" + "a" * 2001),
        *("/run?" + "&".join(["id=0123456789ab"] * 17), "/run?id=" + quote("<script>"), "/favicon.ico?id=0123456789ab"),
    ],
)
def test_what_is_no_address_here_is_refused(gate, cookie, target):
    assert status(gate, HOST, cookie, target=target) in (400, 404)


def test_runs_are_named_by_ids_each_once(gate, cookie):
    asked = Asked(
        "GET", "/run?id=0123456789ab&id=ba9876543210&id=0123456789ab", (HOST, cookie, ("If-None-Match", '"v"'))
    )
    assert gate.decide(asked) == Admitted("/run", ("0123456789ab", "ba9876543210"), '"v"')
