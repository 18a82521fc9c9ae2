"""The client of an endpoint, against a real server on this machine that answers well, badly, late or not at all."""

from __future__ import annotations

import json
import logging
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tutelage.errors import MachineError, RecipeError, SecurityError
from tutelage.generate.client import Endpoint
from tutelage.generate.exchange import Exchange, Patience
from tutelage.generate.generation import Prompt
from tutelage.generate.prices import Prices
from tutelage.generate.protocol import generation
from tutelage.generate.sampling import GREEDY, Sampling
from tutelage.types import Message

httpx = pytest.importorskip("httpx")

HASTY = Patience(each=5.0, altogether=20.0, tries=4, first_wait=0.01, longest_wait=0.05)
KEY = "sk-very-secret-123456"


def reply(text: str, *, chat: bool = True, reason: str = "stop", tokens: int = 3) -> dict:
    """A good answer."""
    said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
    return {"choices": [{"index": 0, "finish_reason": reason, **said}], "usage": usage}


class Server:
    """A server whose answers a test decides: `answer(body, number)` gives (status, headers, object or bytes)."""

    def __init__(self) -> None:
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.paths: list[str] = []
        self.at: list[float] = []
        self.most, self._now = 0, 0
        self.answer = lambda body, number: (200, {}, reply(f"to {body['messages'][-1]['content']}"))
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.bodies.append(body)
                    outer.headers.append(dict(self.headers))
                    outer.paths.append(self.path)
                    outer.at.append(time.monotonic())
                    number = len(outer.bodies)
                    outer._now += 1
                    outer.most = max(outer.most, outer._now)
                try:
                    status, headers, data = outer.answer(body, number)
                finally:
                    with outer._lock:
                        outer._now -= 1
                if status is None:
                    self.close_connection = True
                    return
                data = data if isinstance(data, bytes) else json.dumps(data).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self._thread.join()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def endpoint(server, **options) -> Endpoint:
    return Endpoint(**{"url": server.url, "model": "m", "patience": HASTY} | options)


def prompts(count: int) -> list[Prompt]:
    return [Prompt(f"question {i}", row=f"r{i}") for i in range(count)]


def test_answers_come_in_the_order_of_the_prompts_some_at_a_time(server):
    def answer(body, number):
        time.sleep(0.05 if number % 2 else 0.01)
        return 200, {}, reply("to " + body["messages"][0]["content"])

    server.answer = answer
    asked = endpoint(server, concurrency=3)
    counted = []
    found = asked.write(prompts(9), GREEDY, max_new_tokens=7, progress=counted.append)
    assert [one.text for one in found] == [f"to question {i}" for i in range(9)]
    assert all(one.stopped and one.problem is None for one in found)
    assert sum(counted) == 9
    assert 2 <= server.most <= 3
    assert server.paths == ["/v1/chat/completions"] * 9
    assert (asked.usage.requests, asked.usage.prompt_tokens, asked.usage.completion_tokens) == (9, 90, 27)
    assert Prices(prompt=2.0, completion=10.0).cost(90, 27) == pytest.approx((90 * 2 + 27 * 10) / 1e6)


def test_a_request_says_what_was_asked_and_no_more(server):
    conversation = Prompt((Message("system", "Be brief."), Message("user", "Hi")), row="a")
    endpoint(server).write([conversation], GREEDY, max_new_tokens=5)
    assert server.bodies[0] == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "max_tokens": 5,
        "temperature": 0.0,
    }
    assert "Authorization" not in server.headers[0]
    warm = Sampling(temperature=0.7, top_p=0.9, top_k=5, min_p=0.1, samples=2, seed=3)
    asked = endpoint(server, extra={"max_tokens": None, "max_completion_tokens": 5, "top_k": None})
    found = asked.write([conversation], warm, max_new_tokens=5, stop=["\n"])
    assert len(found) == 2
    first, second = sorted(server.bodies[1:], key=lambda body: body["seed"])
    assert first.pop("seed") != second.pop("seed")
    assert first == second
    assert {name: first[name] for name in ("temperature", "top_p", "min_p", "stop", "max_completion_tokens")} == {
        "temperature": 0.7,
        "top_p": 0.9,
        "min_p": 0.1,
        "stop": ["\n"],
        "max_completion_tokens": 5,
    }
    assert not {"max_tokens", "top_k"} & set(first)


def test_text_and_ids_are_continued(server):
    told = {"token_logprobs": [-0.5, -1.5], "tokens": ["a", "b"]}

    def answer(body, number):
        said = reply("ab", chat=False, reason="length")
        said["choices"][0]["logprobs"] = told
        return 200, {}, said

    server.answer = answer
    asked = endpoint(server, chat=False, logprobs=True, concurrency=1)
    found = asked.write([Prompt("Once"), Prompt((5, 6))], GREEDY, max_new_tokens=2)
    assert [body["prompt"] for body in server.bodies] == ["Once", [5, 6]]
    assert server.paths == ["/v1/completions"] * 2
    assert found[0].logprobs == (-0.5, -1.5)
    assert not found[0].stopped
    with pytest.raises(RecipeError):
        asked.write([Prompt((Message("user", "Hi"),))], GREEDY, max_new_tokens=2)
    with pytest.raises(RecipeError):
        endpoint(server).write([Prompt((5, 6))], GREEDY, max_new_tokens=2)


def test_likelihoods_are_read_from_the_repeated_prompt(server):
    def answer(body, number):
        said = reply("x", chat=False)
        said["choices"][0]["logprobs"] = {"token_logprobs": [None, *[-float(id) for id in body["prompt"][1:]], -99.0]}
        return 200, {}, said

    server.answer = answer
    found = endpoint(server).likelihoods([Prompt((1, 2)), Prompt((3,))], [[(4, 5), (6,)], [(7,)]])
    assert [[one.logprobs for one in row] for row in found] == [[(-4.0, -5.0), (-6.0,)], [(-7.0,)]]
    assert all(body["echo"] and body["max_tokens"] == 1 for body in server.bodies)
    server.answer = lambda body, number: (200, {}, reply("x", chat=False))
    with pytest.raises(MachineError) as refused:
        endpoint(server).likelihoods([Prompt((1, 2))], [[(4, 5)]])
    assert refused.value.code == "machine/endpoint-answer"


@pytest.mark.parametrize("status", [429, 500, 503, "cut", "no json", "late"])
def test_what_may_go_better_later_is_tried_again(server, status):
    def answer(body, number):
        if number > 2:
            return 200, {}, reply("fine")
        if status == "late":
            time.sleep(0.5)
        if status == "cut":
            return None, {}, b""
        if status in ("no json", "late"):
            return 200, {}, b"<html>busy</html>"
        return status, {}, {"error": {"message": "later"}}

    server.answer = answer
    patience = Patience(each=0.2, altogether=20.0, tries=4, first_wait=0.01) if status == "late" else HASTY
    asked = endpoint(server, patience=patience)
    assert [one.text for one in asked.write(prompts(1), GREEDY, max_new_tokens=3)] == ["fine"]
    assert len(server.bodies) == 3
    assert asked.usage.retries == 2
    assert asked.usage.requests == 1


@pytest.mark.parametrize("when", ["seconds", "date"])
def test_a_server_that_says_when_is_not_asked_sooner(server, when):
    def answer(body, number):
        if number > 1:
            return 200, {}, reply("fine")
        wait = "0.4" if when == "seconds" else formatdate(time.time() + 2, usegmt=True)
        return 429, {"Retry-After": wait}, {}

    server.answer = answer
    endpoint(server).write(prompts(1), GREEDY, max_new_tokens=3)
    assert server.at[1] - server.at[0] >= (0.4 if when == "seconds" else 0.9)
    server.bodies.clear()
    server.answer = lambda body, number: (429, {"Retry-After": "3600"}, {})
    began = time.monotonic()
    with pytest.raises(MachineError) as refused:
        endpoint(server).write(prompts(1), GREEDY, max_new_tokens=3)
    assert refused.value.code == "machine/endpoint-failed"
    assert time.monotonic() - began < 5  # An hour is longer than the patience, so it is not waited for.
    assert len(server.bodies) == 1


def test_a_drip_of_bytes_is_not_waited_for(server):
    """Each byte comes in time; the whole does not."""
    import socketserver

    class Drip(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(65536)
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            try:
                for _ in range(200):
                    self.request.sendall(b" ")
                    time.sleep(0.02)
            except OSError:
                pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Drip) as drip:
        drip.daemon_threads = True
        threading.Thread(target=drip.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        url = f"http://127.0.0.1:{drip.server_address[1]}/v1"
        patience = Patience(each=0.3, altogether=5.0, tries=1)
        began = time.monotonic()
        with pytest.raises(MachineError) as refused:
            Endpoint(url, "m", patience=patience).write(prompts(1), GREEDY, max_new_tokens=3)
        assert time.monotonic() - began < 2
        drip.shutdown()
    assert "in time" in refused.value.problems[0].what


def test_a_request_that_fails_for_good_loses_no_other(server):
    def answer(body, number):
        text = body["messages"][0]["content"]
        if text == "question 2":
            return 400, {}, {"error": {"message": "the prompt is too long"}}
        if text == "question 4":
            return 200, {}, {"choices": []}
        return 200, {}, reply(text)

    server.answer = answer
    found = endpoint(server).write(prompts(6), GREEDY, max_new_tokens=3)
    assert [one.text for one in found] == ["question 0", "question 1", None, "question 3", None, "question 5"]
    assert [found[i].problem.code for i in (2, 4)] == ["machine/endpoint-refused", "machine/endpoint-answer"]
    assert "too long" in found[2].problem.found
    assert len(server.bodies) == 6  # Neither was tried again.


@pytest.mark.parametrize("status", [401, 404, 302])
def test_what_would_refuse_everything_is_asked_once(server, status):
    server.answer = lambda body, number: (status, {"Location": "http://127.0.0.1:1/"}, {})
    with pytest.raises(MachineError) as refused:
        endpoint(server, concurrency=1).write(prompts(50), GREEDY, max_new_tokens=3)
    assert refused.value.code == "machine/endpoint-refused"
    assert len(refused.value.problems) == 1
    assert len(server.bodies) <= 2


def test_a_server_that_stays_broken_is_given_up(server):
    server.answer = lambda body, number: (200, {}, reply("ok")) if number <= 2 else (503, {}, {})
    hasty = Patience(each=5.0, altogether=5.0, tries=2, first_wait=0.01)
    found = endpoint(server, concurrency=1, patience=hasty).write(prompts(40), GREEDY, max_new_tokens=3)
    assert [one.text for one in found[:2]] == ["ok", "ok"]
    assert {one.problem.code for one in found[2:]} == {"machine/endpoint-failed"}
    assert len(server.bodies) <= 2 + 2 * 4


def test_nobody_there(server):
    server.close()
    with pytest.raises(MachineError) as refused:
        endpoint(server).write(prompts(3), GREEDY, max_new_tokens=3)
    assert refused.value.code == "machine/endpoint-failed"
    assert "cannot be reached" in refused.value.problems[0].what


def test_a_broken_evaluation_goes_on_where_it_was(server, tmp_path, monkeypatch):
    path = tmp_path / "kept" / "answers.jsonl"
    warm = Sampling(temperature=1.0, samples=2, seed=1)

    def answer(body, number):
        if body["messages"][0]["content"] == "question 3":
            return 400, {}, {}
        return 200, {}, reply(f"{body['messages'][0]['content']} {body['seed']}")

    server.answer = answer
    first = endpoint(server, answers=path).write(prompts(5), warm, max_new_tokens=3)
    assert sum(one.problem is not None for one in first) == 2
    with path.open("ab") as file:
        file.write(b'{"request": "torn, answ')  # As a crash leaves it.
    server.bodies.clear()
    server.answer = lambda body, number: (200, {}, reply(f"{body['messages'][0]['content']} {body['seed']}"))
    again = endpoint(server, answers=path, key=None)
    counted = []
    second = again.write(prompts(5), warm, max_new_tokens=3, progress=counted.append)
    assert [body["messages"][0]["content"] for body in server.bodies] == ["question 3"] * 2
    assert [b.text for a, b in zip(first, second, strict=True) if a.problem is None] == [
        a.text for a in first if a.text
    ]
    assert (again.usage.requests, again.usage.reused, sum(counted)) == (2, 8, 10)
    server.bodies.clear()
    monkeypatch.delenv("A_TEST_KEY", raising=False)  # Where nothing is to be asked, no key is needed.
    assert endpoint(server, answers=path, key="A_TEST_KEY").write(prompts(5), warm, max_new_tokens=3) == second
    assert server.bodies == []
    endpoint(server, answers=path).write(prompts(1), warm, max_new_tokens=4)
    endpoint(server, answers=path, model="other").write(prompts(1), warm, max_new_tokens=3)
    assert len(server.bodies) == 4  # Another request is another answer.


def test_the_key_comes_from_the_environment_and_is_never_shown(server, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("A_TEST_KEY", KEY)
    path = tmp_path / "answers.jsonl"
    asked = endpoint(server, key="A_TEST_KEY", answers=path)
    asked.write(prompts(1), GREEDY, max_new_tokens=3)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    server.answer = lambda body, number: (401, {}, {"error": f"bad key {KEY}"})
    with pytest.raises(MachineError) as refused:
        asked.write(prompts(2), Sampling(temperature=1.0), max_new_tokens=3)
    exchange = Exchange(server.url, KEY, HASTY, connections=1)
    exchange.close()
    shown = [str(refused.value), repr(refused.value), repr(asked), repr(exchange), caplog.text, path.read_text()]
    shown += [repr(vars(refused.value)), repr(refused.value.__cause__), repr(refused.value.__context__)]
    assert not any(KEY in text for text in shown)
    assert "[key]" in refused.value.problems[0].found
    monkeypatch.delenv("A_TEST_KEY")
    with pytest.raises(MachineError) as unset:
        asked.write(prompts(2), GREEDY, max_new_tokens=9)
    assert unset.value.code == "machine/no-key"


def test_a_key_is_not_taken_where_it_could_be_seen(monkeypatch):
    with pytest.raises(SecurityError) as given:
        Endpoint("http://127.0.0.1:1/v1", "m", key=KEY)
    assert given.value.code == "security/secret"
    assert KEY not in str(given.value)
    for address in ("https://me:hunter2@example.com/v1", "https://example.com/v1?key=hunter2"):
        with pytest.raises(SecurityError) as in_address:
            Endpoint(address, "m")
        assert in_address.value.code == "security/secret"
        assert "hunter2" not in str(in_address.value)
    with pytest.raises(SecurityError) as clear:
        Endpoint("http://api.example.com/v1", "m", key="SOME_KEY")
    assert clear.value.code == "security/key-in-clear"
    for fine in ("https://api.example.com/v1", "http://127.0.0.1:1/v1", "http://192.168.1.5:8000/v1"):
        Exchange(fine, KEY, HASTY, connections=1).close()
    with pytest.raises(RecipeError):
        Endpoint("ftp://example.com", "m")


def test_this_machine_is_reached_without_a_proxy(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert endpoint(server).write(prompts(1), GREEDY, max_new_tokens=3)[0].text == "to question 0"


def test_an_answer_that_a_filter_withheld_is_a_problem(server):
    server.answer = lambda body, number: (200, {}, reply("", reason="content_filter"))
    (found,) = endpoint(server).write(prompts(1), GREEDY, max_new_tokens=3)
    assert found.problem.code == "machine/endpoint-refused"
    assert not found.stopped


@pytest.mark.parametrize(
    ("reason", "stopped"),
    [
        *((reason, True) for reason in ("stop", "eos_token", "stop_sequence", "end_turn", "tool_calls")),
        *((reason, False) for reason in ("length", "max_tokens", "MAX_TOKENS", "model_length")),
    ],
)
def test_whatever_a_server_calls_stopping_only_a_limit_cuts_off(reason, stopped):
    assert generation(reply("x", reason=reason), chat=True).stopped is stopped


@pytest.mark.parametrize(
    "told", [None, "many", {"prompt_tokens": "many"}, {"prompt_tokens": {}, "completion_tokens": 3}]
)
def test_usage_that_says_nothing_is_counted_as_untold(told, server):
    server.answer = lambda body, number: (200, {}, {**reply("fine"), "usage": told})
    asked = endpoint(server)
    assert [one.text for one in asked.write(prompts(2), GREEDY, max_new_tokens=3)] == ["fine", "fine"]
    assert (asked.usage.requests, asked.usage.untold, asked.usage.prompt_tokens) == (2, 2, 0)


def test_without_httpx_the_extra_is_named(server, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(MachineError) as refused:
        endpoint(server).write(prompts(1), GREEDY, max_new_tokens=3)
    assert refused.value.code == "machine/missing-package"
    assert "tutelage[endpoint]" in refused.value.problems[0].fix


def test_a_stopped_command_waits_for_no_answer(server, tmp_path):
    over = threading.Event()

    def answer(body, number):
        if number > 1:
            over.wait(20)
        return 200, {}, reply("fine")

    def stop(answers):
        if answers:
            raise KeyboardInterrupt

    server.answer = answer
    path = tmp_path / "answers.jsonl"
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        endpoint(server, concurrency=3, answers=path).write(prompts(20), GREEDY, max_new_tokens=3, progress=stop)
    assert time.monotonic() - began < 10
    assert len(path.read_text().splitlines()) == 1  # What was answered is kept.
    over.set()
    for thread in threading.enumerate():
        if thread.name == "endpoint":
            thread.join(10)
    assert len(server.bodies) <= 4


def test_a_file_of_answers_that_cannot_be_written_ends_it(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError) as refused:
        endpoint(server, answers=tmp_path / "file" / "answers.jsonl").write(prompts(3), GREEDY, max_new_tokens=3)
    assert refused.value.code == "machine/read-only"
