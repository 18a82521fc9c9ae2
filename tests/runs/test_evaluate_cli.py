"""`tutelage eval` and `tutelage compare` as a user meets them."""

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

TASK = """\
name: colours
data: {data}
prompt: "Colour {{n}}?"
reference: colour
scorer: {{kind: exact}}
max_new_tokens: 6
"""


@pytest.fixture
def colours(workdir):
    """A task whose right answer is always red, with 30 rows, in the current folder."""
    data = tinyruns.write_rows(workdir / "colours.jsonl", [{"n": n, "colour": "red"} for n in range(100, 130)])
    (workdir / "colours.yaml").write_text(TASK.format(data=data.name))
    return "colours.yaml"


def lines(folder):
    return [json.loads(line) for line in (folder / "colours.jsonl").read_text("utf-8").splitlines()]


def test_base_against_tuned(colours, workdir, learned_run):
    base, tuned = learned_run.parent / "base", learned_run
    done = tinyruns.process("eval", base, "--task", colours, folder=workdir, OMP_NUM_THREADS="1")
    assert done.code == 0, done.err
    heads, row, *rest = done.out.splitlines()
    assert heads.split()[:3] == ["TASK", "METRIC", "SCORE"]
    assert row.split()[:5] == ["colours", "v1", "exact", "0.0", "%"]
    assert rest[-1] == "results evaluations/base"
    # The base model has no chat template, and the tuned one does; a run goes by its own name.
    assert json.loads((workdir / "evaluations/base/colours.json").read_text())["model"]["asked_as"] == "plain text"
    outcome = tinyruns.tutelage("eval", tuned, "--task", colours, "--json")
    assert outcome.code == 0, outcome.err
    (summary,) = json.loads(outcome.out)
    assert summary["model"]["asked_as"] == "chat"
    assert (summary["n"], summary["mean"], summary["health"]["stopped"]) == (30, 1.0, 1.0)
    assert summary["tokens_per_second"] > 0
    folder = workdir / "evaluations" / tuned.name

    outcome = tinyruns.tutelage("compare", workdir / "evaluations/base", folder, "--html", "page.html")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("better        colours: run is better: 0.0 % -> 100.0 % (+100.0 points")
    assert "n = 30; 30 won, 0 lost, 0 the same" in outcome.out
    assert "  lost: 0\n  won: 30\n" in outcome.out
    assert outcome.out.endswith("page    page.html\n")
    assert "red" in (workdir / "page.html").read_text("utf-8")
    found = json.loads(tinyruns.tutelage("compare", workdir / "evaluations/base", folder, "--json").out)
    assert found["tasks"][0]["verdict"] == "better"
    assert len(found["tasks"][0]["won"]) == 30

    outcome = tinyruns.tutelage("eval", tuned, "--task", colours)
    assert "keep    colours: 30 of 30 rows are answered already" in outcome.err
    outcome = tinyruns.tutelage("eval", tuned, "--task", colours, "--temperature", "0.7")
    assert outcome.code == 2
    assert outcome.err.startswith("error[usage/other-settings]")
    assert "sampling.temperature: 0.0 there, 0.7 now" in outcome.err


def test_a_killed_evaluation_goes_on(colours, workdir, learned_run):
    code = (
        "import sys, time\n"
        "from tutelage.evaluation import crew\n"
        "crew.FIRST = 4\n"
        "crew.QUICK = 0.0\n"
        "marked = crew.marked\n"
        "def slow(*given):\n"
        "    time.sleep(0.3)\n"
        "    return marked(*given)\n"
        "crew.marked = slow\n"
        f"sys.argv = ['tutelage', 'eval', {str(learned_run)!r}, '--task', {colours!r}, '--out', 'out']\n"
        "from tutelage.cli import main\n"
        "main()\n"
    )
    out = workdir / "out"
    started = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not (out / "colours.jsonl").is_file() or len((out / "colours.jsonl").read_bytes().splitlines()) < 8:
            assert started.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        os.kill(started.pid, signal.SIGKILL)
        started.wait()
    before = (out / "colours.jsonl").read_bytes()
    known = len(before.splitlines())
    assert 8 <= known < 30
    outcome = tinyruns.tutelage("eval", learned_run, "--task", colours, "--out", out)
    assert outcome.code == 0, outcome.err
    assert f"keep    colours: {known} of 30 rows are answered already" in outcome.err
    assert (out / "colours.jsonl").read_bytes().startswith(before)
    at_once = workdir / "at-once"
    assert tinyruns.tutelage("eval", learned_run, "--task", colours, "--out", at_once, "--in-flight", 3).code == 0
    kept = ("row", "prompt", "answer", "score", "found", "stopped", "tokens")
    one, other = ([{key: line[key] for key in kept} for line in lines(folder)] for folder in (out, at_once))
    assert one == other


def test_the_answers_of_runs_are_compared(workdir, learned_run):
    outcome = tinyruns.tutelage("compare", learned_run, learned_run)
    assert outcome.code == 0, outcome.err
    assert "held-out answers were not scored (evaluate.score: none)" in outcome.out
    assert "held-out loss of " in outcome.out


def test_what_models_write_cannot_steer_the_terminal(colours, workdir, learned_run):
    for name, answer in (("a", "red"), ("b", "\x1b[31m\x07red \u009b2J")):
        folder = workdir / name
        assert tinyruns.tutelage("eval", learned_run, "--task", colours, "--out", folder).code == 0
        changed = [{**line, "answer": answer, "score": float(name == "a")} for line in lines(folder)]
        tinyruns.write_rows(folder / "colours.jsonl", changed)
    outcome = tinyruns.tutelage("compare", workdir / "a", workdir / "b")
    assert "lost: 30" in outcome.out
    assert "␛[31m␇red" in outcome.out
    assert not set("\x1b\x07\x9b") & set(outcome.out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["eval", "--task", "json"], "no model is named"),
        (["eval", "m"], "no task is named"),
        (["eval", "m", "--task", "json", "--model", "x"], "`--model` goes with --endpoint"),
        (["eval", "m", "--task", "json", "--key", "X"], "`--key` goes with --endpoint"),
        (["eval", "--task", "json", "--endpoint", "http://127.0.0.1:1/v1"], "not told which model"),
        (
            ["eval", "m", "--model", "n", "--task", "json", "--endpoint", "http://127.0.0.1:1/v1"],
            "two models are named",
        ),
        (["eval", "m", "--task", "json", "--samples", "3"], "greedy decoding writes the same one"),
        (["eval", "m", "--task", "json", "--temperature", "-1"], "`temperature` is out of its range"),
        (["eval", "m", "--task", "json", "--formats", "2"], "names no rows"),
        (["eval", "m", "--task", "jsn"], "did you mean json?"),
        (["compare", "a"], "one folder cannot be compared"),
        (["compare", "a", "b"], "there is nothing to compare"),
    ],
)
def test_what_does_not_fit_is_refused(workdir, arguments, said):
    outcome = tinyruns.tutelage(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert list(workdir.iterdir()) == []


def test_comparing_loads_no_model():
    code = (
        "import sys\n"
        "from tutelage import evaluation\n"
        "import tutelage.evaluation.page\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class _Server(BaseHTTPRequestHandler):
    """Speaks OpenAI's protocol, and fails for good where a question holds a word."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        self.server.asked.append(question)
        if self.server.refuses and self.server.refuses in question:
            self.send_error(400)
            return
        choice = {"message": {"role": "assistant", "content": "red"}, "finish_reason": "stop"}
        answer = {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def test_a_served_model_is_asked_for_what_is_missing(colours, workdir):
    pytest.importorskip("httpx")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        server.asked, server.refuses = [], "Colour 107?"
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/v1"
            command = ("eval", "--endpoint", url, "--model", "served", "--task", colours)
            outcome = tinyruns.tutelage(*command)
            assert outcome.code == 5
            assert "1 rows were not answered" in outcome.err
            assert "the same command asks for these rows alone" in outcome.err
            assert len(lines(workdir / "evaluations" / "served")) == 29
            server.refuses = ""
            del server.asked[:]
            prices = ("--prompt-price", "2", "--completion-price", "1e5")
            outcome = tinyruns.tutelage(*command, *prices, "--json")
            assert outcome.code == 0, outcome.err
            assert server.asked == ["Colour 107?"]
            told = tinyruns.tutelage(*command, *prices)
        finally:
            server.shutdown()
    (summary,) = json.loads(outcome.out)
    assert (summary["n"], summary["mean"], summary["status"]) == (30, 1.0, "done")
    usage = summary["usage"]
    assert (summary["tokens"], usage["requests"]) == (60, 30)
    assert summary["cost"] == pytest.approx((usage["prompt_tokens"] * 2 + 60 * 1e5) / 1e6)
    assert f"tokens  colours: {usage['prompt_tokens']:,} read, 60 written, cost 6.0" in told.out
    assert summary["health"]["stopped"] == 1.0


def test_other_wordings_and_other_processes(colours, workdir, learned_run):
    """The tuned model knows one wording; in others it may still answer, and the spread says how often."""
    outcome = tinyruns.tutelage("eval", learned_run, "--task", colours, "--formats", "3", "--out", "a", "--json")
    assert outcome.code == 0, outcome.err
    summaries = json.loads(outcome.out)
    assert [one["format"] for one in summaries] == [1, 2, 3]
    assert summaries[0]["formats"]["n"] == 3
    assert [one["mean"] for one in summaries[0]["formats"]["scores"]] == [one["mean"] for one in summaries]
    outcome = tinyruns.tutelage("eval", learned_run, "--task", colours, "--formats", "3", "--out", "a")
    assert "colours v1, wording 2" in outcome.out
    assert "spread  colours: 3 wordings of 30 rows: lowest" in outcome.out
    assert "keep    colours, wording 3: 30 of 30 rows are answered already" in outcome.err
    outcome = tinyruns.tutelage("compare", "a", "a")
    assert outcome.out.count("3 wordings of 30 rows") == 2
    arguments = ("--task", colours, "--processes", "2", "--out", "b")
    outcome = tinyruns.tutelage("eval", learned_run, *arguments)
    assert outcome.code == 0, outcome.err
    one, other = ([{**line, "logprob": None} for line in lines(workdir / name)] for name in "ab")
    assert one == other
    outcome = tinyruns.tutelage("eval", "--endpoint", "http://127.0.0.1:1/v1", "--model", "m", *arguments)
    assert outcome.code == 2
    assert "an endpoint is asked by one process" in outcome.err
