"""`tutelage judge` as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import tinyruns

pytest.importorskip("httpx")

ROWS = 12


class _Judge(BaseHTTPRequestHandler):
    """Prefers the answer that says red, and takes its time where it is told to."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(self.server.seconds)
        first, second = (body["messages"][-1]["content"].split(f"<<<answer {n} ")[1] for n in (1, 2))
        first = first.split("<<<end")[0]
        second = second.split("<<<end")[0]
        said = "tie" if ("red" in first) == ("red" in second) else "1" if "red" in first else "2"
        choice = {"message": {"role": "assistant", "content": f"<i>So</i>\x1b[31m.\nVerdict: {said}"}}
        data = json.dumps(
            {"choices": [choice | {"finish_reason": "stop"}], "usage": {"prompt_tokens": 9, "completion_tokens": 0}}
        ).encode()
        self.server.asked += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Judge) as server:
        server.asked, server.seconds = 0, 0.0
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def folders(workdir):
    """Results of two models: `a` says red once, `b` nine times; the last two rows are answered alike."""
    said = {"a": ["blue"] * 9 + ["red", "grey", "grey"], "b": ["red"] * 9 + ["<b>green</b>", "grey", "grey"]}
    for name, answers in said.items():
        lines = [
            {
                **{"row": f"r{n}", "sample": 0, "prompt": f"p{n}", "origin": {"file": "c.jsonl", "line": n + 1}},
                **{"asked": [{"role": "user", "content": f"Colour {n}?"}], "reference": "red", "hinted": False},
                **{"answer": answer, "score": 0.0, "found": answer, "why": "", "parts": {}, "stopped": True},
                **{"cut_at_text": False, "tokens": 1, "logprob": None, "health": {}},
            }
            for n, answer in enumerate(answers)
        ]
        tinyruns.write_rows(workdir / name / "colours.jsonl", lines)
        summary = {"kind": "evaluation", "task": "colours", "better": "higher", "status": "done", "health": {"n": ROWS}}
        summary["settings"] = {"task": {}, "sampling": {}}
        (workdir / name / "colours.json").write_text(json.dumps(summary))
    return "a", "b"


def asking(server) -> list[str]:
    return ["--endpoint", f"http://127.0.0.1:{server.server_port}/v1", "--model", "the-judge"]


def test_a_judgement(server, folders, workdir):
    labels = workdir / "labels.csv"
    labels.write_text("row,label\n" + "".join(f"r{n},{'B' if n < 7 else 'A'}\n" for n in range(10)) + "zz,A\n")
    options = ["--labels", labels, "--html", "page.html", "--prompt-price", "1000000"]
    outcome = tinyruns.tutelage("judge", *folders, *asking(server), *options)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == (
        "better        colours, judged by the-judge: b is better: it wins 75.0 % of the pairs and loses 8.3 % "
        "(+66.7 points, 95% interval +19.0 to +95.3; n = 12; 9 won, 1 lost, 2 tied)."
    )
    assert lines[1].strip() == ("win rate 83.3%, interval 59.5% to 97.6%, with ties as halves; chance 0.021 (McNemar)")
    assert lines[2].strip() == "ties: 0 in both orders, 0 where the orders disagree, 2 equal answers"
    assert "  says the same in both orders     100.0%   interval 72.2% to 100.0%, of 10 pairs" in lines
    assert "  chooses the first place          50.0%" in outcome.out
    assert "  says what people say             80.0%" in outcome.out
    assert "Cohen's kappa 0.41" in outcome.out
    assert "  tokens                           180 read, 0 written, cost 180.0000" in lines
    assert "note    1 of 11 labels are of rows that were not judged" in lines
    assert lines[-2:] == ["results judgements/a-b", "page    page.html"]
    page = (workdir / "page.html").read_text("utf-8")
    assert "b is better" in page
    assert "&lt;b&gt;green&lt;/b&gt;" in page
    assert "<b>green" not in page
    assert "<i>So" not in page
    assert "<script" not in page
    assert server.asked == 20

    outcome = tinyruns.tutelage("judge", *folders, *asking(server), "--json")
    assert "keep    20 of 20 judgements are there already" in outcome.err
    found = json.loads(outcome.out)
    assert (found["tasks"][0]["wins"], found["judge"], found["seed"], found["labels"]) == (9, "the-judge", 0, None)
    assert json.loads((workdir / "judgements" / "a-b" / "judgement.json").read_text()) == found
    assert server.asked == 20

    outcome = tinyruns.tutelage("judge", *folders, *asking(server), "--temperature", "0.7")
    assert outcome.code == 2
    assert outcome.err.startswith("error[usage/other-settings]")
    outcome = tinyruns.tutelage("judge", *folders, *asking(server), "--html", "page.html")
    assert outcome.code == 2
    assert outcome.err.startswith("error[usage/output-exists]")


def test_a_killed_judgement_goes_on(server, folders, workdir):
    server.seconds = 0.1
    code = (
        "from pathlib import Path\n"
        "from tutelage.cli.judge import judge\n"
        "from tutelage.judge import hearing\n"
        "hearing.PORTION = 4\n"
        f"url = {asking(server)[1]!r}\n"
        "judge(Path('a'), Path('b'), 'the-judge', endpoint=url, out=Path('out'))\n"
    )
    started = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    path = workdir / "out" / "judgements.jsonl"
    try:
        until = time.monotonic() + 120
        while not path.is_file() or len(path.read_bytes().splitlines()) < 4:
            assert started.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        os.kill(started.pid, signal.SIGKILL)
        started.wait()
    before = path.read_bytes()
    known = len(before.splitlines())
    assert 4 <= known < 20
    server.seconds = 0.0
    outcome = tinyruns.tutelage("judge", *folders, *asking(server), "--out", "out")
    assert outcome.code == 0, outcome.err
    assert f"keep    {known} of 20 judgements are there already" in outcome.err
    assert path.read_bytes().startswith(before)
    assert "n = 12; 9 won, 1 lost, 2 tied" in outcome.out


def test_what_people_and_judges_write_cannot_steer_the_terminal(server, folders, workdir):
    outcome = tinyruns.tutelage("judge", *folders, *asking(server), "--rows", "3")
    assert outcome.code == 0, outcome.err
    assert not set("\x1b\x07\x9b") & set(outcome.out)
    assert "n = 3;" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "b"], "Missing option '--model'"),
        (["a", "b", "--model", "m", "--key", "X"], "`--key` goes with --endpoint"),
        (["a", "b", "--model", "m", "--endpoint", "ftp://x"], "is not one of the web"),
        (["a", "c", "--model", "m", "--endpoint", "http://127.0.0.1:1/v1"], "nothing to compare in `c`"),
        (["a", "b", "--model", "m", "--prompt", "pairwize"], "did you mean pairwise?"),
        (["a", "b", "--model", "m", "--labels", "none.csv"], "the file of labels does not exist"),
        (["a", "b", "--model", "m", "--temperature", "-1"], "`temperature` is out of its range"),
    ],
)
def test_what_does_not_fit_is_refused(folders, workdir, arguments, said):
    outcome = tinyruns.tutelage("judge", *arguments)
    assert outcome.code in (2, 3)
    assert outcome.out == ""
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert sorted(path.name for path in workdir.iterdir()) == ["a", "b"]
