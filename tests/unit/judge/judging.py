"""Results of two models that are none, and a server that plays the judge by a rule."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tutelage.evaluation import evaluate
from tutelage.evaluation.subject import Served
from tutelage.generate.exchange import Patience
from tutelage.generate.generation import Generation, Prompt
from tutelage.generate.sampling import Sampling
from tutelage.judge import judge
from tutelage.judge.wording import load
from tutelage.tasks import Asked, Task
from tutelage.tasks.errand import errand

HASTY = Patience(each=5.0, altogether=20.0, tries=4, first_wait=0.01, longest_wait=0.05)
SHOWN = re.compile(r"<<<(request|answer 1|answer 2) ([0-9a-f]{12})>>>\n(.*?)\n<<<end of \1 \2>>>", re.DOTALL)

Rule = Callable[[str, str, str], Any]
"""From the request and both answers to what the judge says, or to (status, body)."""


class Speaker:
    """Says what it is told to each question; a subject and its own writer."""

    name = "speaker"

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers = answers

    def settings(self) -> dict[str, Any]:
        return {}

    def described(self) -> dict[str, Any]:
        return {"asked_as": "chat"}

    def usage(self) -> dict[str, int]:
        return {}

    def writer(self) -> Speaker:
        return self

    def prompt(self, asked: Asked, name: str) -> Prompt:
        return Prompt(asked.messages, row=name)

    def write(self, prompts: Sequence[Prompt], sampling: Sampling, **options: Any) -> list[Generation]:
        """The answer of the number that the question holds."""
        numbers = [int(re.findall(r"\d+", prompt.content[-1].content)[0]) for prompt in prompts]
        return [Generation((1,), True, (-0.5, -0.5), text=self.answers[number]) for number in numbers]


def results(folder: Path, answers: Sequence[str], *, task: str = "talk") -> Path:
    """What `tutelage eval` leaves of a model that gives these answers."""
    rows = folder.parent / f"{task}.jsonl"
    rows.parent.mkdir(exist_ok=True)
    rows.write_text("".join(json.dumps({"q": f"Question {n}?", "a": "yes"}) + "\n" for n in range(len(answers))))
    given = {"name": task, "data": str(rows), "prompt": "{q}", "reference": "a", "scorer": {"kind": "exact"}}
    evaluate(Speaker(answers), [errand(Task.model_validate(given))], folder)
    return folder


class Bench:
    """A judge behind an address."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.bodies.append(body)
                    outer.headers.append(dict(self.headers))
                shown = {name: text for name, _, text in SHOWN.findall(body["messages"][-1]["content"])}
                said = outer.rule(shown["request"], shown["answer 1"], shown["answer 2"])
                status, answer = said if isinstance(said, tuple) else (200, reply(said))
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def subject(self, **options: Any) -> Served:
        """The judge as it is asked, by a hasty client."""
        served = Served(self.url, "the-judge", **options)
        object.__setattr__(served.endpoint, "patience", HASTY)
        return served

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self._thread.join()


def reply(text: str, reason: str = "stop") -> dict[str, Any]:
    """An answer of a server that counts 100 tokens read and 7 written."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 100, "completion_tokens": 7}
    return {"choices": [{"message": message, "finish_reason": reason}], "usage": usage}


def judged(bench: Bench, a: Path, b: Path, **options: Any) -> dict[str, Any]:
    """What the judge makes of two folders."""
    out = options.pop("out", a.parent / "out")
    return judge(a, b, options.pop("subject", bench.subject()), load(options.pop("prompt", "pairwise")), out, **options)


def honest(request: str, first: str, second: str) -> str:
    """The answer that holds `good`, if only one does."""
    if ("good" in first) == ("good" in second):
        return "Neither is better.\nVerdict: tie"
    return f"One of them is good.\nVerdict: {1 if 'good' in first else 2}"


def longer(request: str, first: str, second: str) -> str:
    return f"Verdict: {1 if len(first) > len(second) else 2}"


def slowly(rule: Rule) -> Rule:
    def late(*shown: str) -> Any:
        time.sleep(0.05)
        return rule(*shown)

    return late
