"""Trackers as they are: real ones on local folders and loopback, and broken ones, beside a trainer that never waits."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import tinyruns
from brokentracker import broken_tracker
from tutelage import commands, track
from tutelage.recipe import TrackOptions

PATIENCE = 240.0
"""Seconds that a follower may need on a busy machine: it runs at the lowest priority."""

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")

READ = {
    "tensorboard": """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(f"{run}/track/tensorboard", size_guidance={"scalars": 0})
events.Reload()
points = [(tag, e.step, e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)]
""",
    "mlflow": """
import os
from mlflow import MlflowClient
client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{run}/track/mlflow.db"))
(found,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
history = [m for key in found.data.metrics for m in client.get_metric_history(found.info.run_id, key)]
points = [(m.key, m.step, m.value) for m in history]
extra = {"status": found.info.status, "params": found.data.params, "name": found.info.run_name}
""",
    "wandb": """
from pathlib import Path
from tutelage.track.backends.wandb_files import history
rows = [row for path in sorted(Path(run, "track", "wandb").glob("offline-*/*.wandb")) for row in history(path)]
points = [(key, next(row[k] for k in row if k.endswith("/step")), value) for row in rows for key, value in row.items()
          if not key.startswith("_") and not key.endswith("/step")]
extra = {"ids": sorted({path.stem for path in Path(run, "track", "wandb").glob("offline-*/*.wandb")})}
""",
    "trackio": """
from trackio.sqlite_storage import SQLiteStorage
(name,) = SQLiteStorage.get_runs("mine")
rows = SQLiteStorage.get_logs("mine", run=name)
points = [(key, row["step"], value) for row in rows for key, value in row.items() if key not in ("step", "timestamp")]
extra = {"config": SQLiteStorage.get_run_config("mine", name)}
""",
}


def read(tracker: str, run: Path) -> tuple[list[tuple[str, int, float]], dict]:
    """What the tracker holds, by its own means: (name, step, value), and more where there is more to know."""
    code = (
        f"import json, sys\nrun, extra = sys.argv[1], {{}}\n{READ[tracker]}\nprint('@' + json.dumps([points, extra]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-2000:]
    points, extra = json.loads(done.stdout.rpartition("@")[2])
    return [(name, step, value) for name, step, value in points], extra


class Trainer:
    """Writes what a run writes, step by step, and looks at its followers as a run does."""

    def __init__(self, folder: Path, *to: str) -> None:
        self.folder = folder
        self.options = TrackOptions(to=to, project="mine")
        self.said: list[str] = []
        self.looks: list[float] = []
        folder.mkdir(exist_ok=True)
        (folder / "recipe.yaml").write_text("model: {path: m}\ntrack: {project: mine}\noutput: run\n")

    def start(self):
        began = time.perf_counter()
        self.followers = track.start(self.folder, self.options, self.said.append)
        self.starting = time.perf_counter() - began

    def steps(self, first: int, last: int, seconds: float = 0.02) -> None:
        for step in range(first, last + 1):
            time.sleep(seconds)
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "loss": 1 / step, "grad_norm": None}) + "\n")
            if step % 10 == 0:
                with (self.folder / "evaluations.jsonl").open("a") as file:
                    file.write(json.dumps({"step": step, "nll": 1 / step}) + "\n")
            began = time.perf_counter()
            self.followers.check()
            self.looks.append(time.perf_counter() - began)

    def cut_back(self, step: int) -> None:
        for name in ("metrics.jsonl", "evaluations.jsonl"):
            path = self.folder / name
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
            path.write_text("".join(line for line in lines if json.loads(line)["step"] <= step))

    def end(self, last: int, status: str = "done", seconds: float = 5.0) -> float:
        (self.folder / "result.json").write_text(json.dumps({"status": status, "steps": last}))
        began = time.perf_counter()
        self.followers.finish(seconds)
        return time.perf_counter() - began


@pytest.fixture
def trainer(tmp_path):
    """`trainer("mlflow")` is one with that follower; whatever still follows afterwards is ended."""
    made: list = []

    def make(*to: str) -> Trainer:
        one = Trainer(tmp_path / "run", *to)
        one.start()
        made.extend(one.followers.processes.values())
        return one

    yield make
    for process in made:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(autouse=True)
def _local(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """`fake("raises in log")` puts a package in the place of `wandb` that does so; what it was told so far."""

    def breaks(fault: str) -> Path:
        for name, value in broken_tracker(tmp_path, fault).items():
            monkeypatch.setenv(name, value)
        return tmp_path / "server.jsonl"

    return breaks


def needs(tracker: str) -> None:
    """Skip, with its reason, where the tracker's package is absent."""
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"the {tracker} package is absent")


def waited(until, seconds: float = PATIENCE) -> bool:
    """Whether something came true in time."""
    end = time.monotonic() + seconds
    while not (done := until()) and time.monotonic() < end:
        time.sleep(0.05)
    return bool(done)


def note(run: Path, tracker: str) -> dict:
    path = run / "track" / f"{tracker}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def expected(last: int) -> dict[tuple[str, int], float]:
    train = {("train/loss", step): 1 / step for step in range(1, last + 1)}
    heldout = {("heldout/nll", step): 1 / step for step in range(10, last + 1, 10)}
    return {**train, **heldout, ("result/steps", last): float(last)}


def assert_each_once(points: list[tuple[str, int, float]], last: int) -> None:
    assert len(points) == len({(name, step) for name, step, _ in points})
    found = {(name, step): value for name, step, value in points}
    assert found == pytest.approx(expected(last), rel=1e-6)


def assert_not_delayed(run: Trainer) -> None:
    """Of a step of 20 ms, looking at the followers takes less than a hundredth, and never waits for one."""
    assert statistics.median(run.looks) < 0.01 * 0.02
    assert max(run.looks) < 2


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_real_tracker_holds_each_point_once(tracker, trainer, tmp_path):
    """Followed live, killed in the middle, resumed from an earlier step, and caught up with at the end."""
    needs(tracker)
    run = tmp_path / "run"
    first = trainer(tracker)
    first.steps(1, 25)
    opened = lambda: note(run, tracker).get("sent") or (tracker == "wandb" and note(run, tracker).get("remote"))  # noqa: E731
    assert waited(opened), (run / "track" / f"{tracker}.log").read_text()
    first.steps(26, 40)
    os.kill(first.followers.processes[tracker].pid, signal.SIGKILL)
    first.steps(41, 45)
    assert waited(lambda: first.followers.check() or first.said)
    assert len(first.said) == 1
    assert f"tutelage track {run} --to {tracker}" in first.said[0]
    first.end(45, "failed")
    first.cut_back(30)
    second = trainer(tracker)
    second.steps(31, 60)
    second.end(60, seconds=PATIENCE)
    assert second.said == []
    for _ in range(2):
        outcome = tinyruns.process("track", run, "--to", tracker)
        assert (outcome.code, outcome.out) == (0, f"{tracker}: everything is sent, up to step 60\n"), outcome.err
    points, extra = read(tracker, run)
    assert_each_once(points, 60)
    if tracker == "mlflow":
        assert (extra["status"], extra["name"]) == ("FINISHED", "run")
        assert extra["params"]["model.path"] == "m"
    if tracker == "wandb":
        assert extra["ids"] == [f"run-{json.loads((run / 'track' / 'run.json').read_text())['id']}"]
    if tracker == "trackio":
        assert extra["config"]["model"] == {"path": "m"}


def test_an_event_file_that_was_torn_is_mended(trainer, tmp_path):
    needs("tensorboard")
    run = trainer("tensorboard")
    run.steps(1, 20, seconds=0)
    run.end(20, "failed", seconds=PATIENCE)
    (file,) = (tmp_path / "run" / "track" / "tensorboard").iterdir()
    whole = file.read_bytes()
    # As if the note had been lost, and the last record been cut in its middle.
    (tmp_path / "run" / "track" / "tensorboard.json").unlink()
    file.write_bytes(whole[: whole.rindex(b"heldout/nll") + 3])
    (tmp_path / "run" / "result.json").write_text('{"status": "done", "steps": 20}')
    assert tinyruns.process("track", tmp_path / "run", "--to", "tensorboard").code == 0
    points, _ = read("tensorboard", tmp_path / "run")
    assert_each_once(points, 20)


def test_a_real_mlflow_server(trainer, tmp_path, monkeypatch):
    needs("mlflow")
    pytest.importorskip("flask", reason="the server of MLflow needs flask")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *place, "--workers", "1"],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
    try:
        assert waited(lambda: _answers(port)), (tmp_path / "server.log").read_text()[-2000:]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        run = trainer("mlflow")
        run.steps(1, 40)
        run.end(40, seconds=PATIENCE)
        assert run.said == []
        points, extra = read("mlflow", tmp_path / "run")
        assert_each_once(points, 40)
        assert extra["status"] == "FINISHED"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.parametrize(
    "fault",
    [f"{what} in {where}" for what in ("raises", "sleeps") for where in ("init", "log", "finish")],
)
def test_a_broken_tracker_costs_the_run_nothing(fault, fake, trainer, tmp_path):
    server = fake(fault)
    run = trainer("wandb")
    run.steps(1, 40)
    # At its worst a run ends while its tracker is stuck, and waits its five seconds once.
    waits = 5.0 if fault == "sleeps in log" else 0.5
    if "finish" not in fault:
        assert waited(Path(f"{server}.reached").exists)
    took = run.end(40, seconds=waits)
    assert took < waits + 2  # Of which two seconds are the busy machine's.
    assert_not_delayed(run)
    assert len(run.said) == 1, run.said
    assert run.said[0].startswith("note    wandb ")
    assert "changes nothing in the run" in run.said[0]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 40
    if fault == "raises in init":
        assert waited(lambda: note(tmp_path / "run", "wandb").get("error") == "RuntimeError: the tracker is broken")
    if fault == "raises in init":  # It is not the only reason to end: some time later the follower gives up.
        assert waited(lambda: not _followers(tmp_path))
    for process in _followers(tmp_path):
        os.kill(process, signal.SIGKILL)
    fake("")
    outcome = tinyruns.process("track", tmp_path / "run", "--to", "wandb")
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in server.read_text().splitlines()]
    points = [
        (key, next(row[k] for k in row if k.endswith("/step")), value)
        for row in rows
        for key, value in row.items()
        if not key.endswith("/step")
    ]
    assert_each_once(points, 40)


@pytest.mark.parametrize("address", ["status 500", "nobody listens", "no such name"])
def test_a_server_that_cannot_be_reached(address, trainer, tmp_path, monkeypatch):
    needs("mlflow")
    with _broken_server() as port:
        host = {"status 500": f"127.0.0.1:{port}", "nobody listens": "127.0.0.1:9", "no such name": "tracker.invalid"}
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://canary-user:canary-word@{host[address]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        run = trainer("mlflow")
        run.steps(1, 40)
        assert run.end(40, seconds=1) < 3
        assert_not_delayed(run)
        assert len(run.said) == 1
        assert waited(lambda: note(tmp_path / "run", "mlflow").get("error"))
        for process in _followers(tmp_path, "mlflow"):
            os.kill(process, signal.SIGKILL)
        for path in (tmp_path / "run").rglob("*"):
            assert not path.is_file() or b"canary-" not in path.read_bytes(), path
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    outcome = tinyruns.process("track", tmp_path / "run", "--to", "mlflow", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)[0]["outcome"] == "sent"
    points, _ = read("mlflow", tmp_path / "run")
    assert_each_once(points, 40)


def test_a_follower_outlives_its_trainer_and_sends_the_rest(tmp_path):
    """The trainer is a process that is killed; its follower goes on by itself."""
    needs("tensorboard")
    code = (
        "import os, sys, time; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from test_track import Trainer\n"
        "run = Trainer(Path(sys.argv[1]), 'tensorboard'); run.start(); run.steps(1, 20)\n"
        "print(run.followers.processes['tensorboard'].pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    tests = Path(__file__).parent
    command = [sys.executable, "-c", code, str(tmp_path / "run"), str(tests)]
    path = os.pathsep.join(map(str, (tests, tests.parent)))
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=PATIENCE
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    follower = int(done.stdout)
    try:
        assert waited(lambda: note(tmp_path / "run", "tensorboard").get("sent") == {"train": 20, "heldout": 20})
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(follower, signal.SIGKILL)


@pytest.mark.parametrize("tracker", TRACKERS)
def test_no_secret_reaches_a_tracker(tracker, trainer, tmp_path, monkeypatch):
    """Neither keys of the environment nor the environment itself; and nothing but numbers and the recipe is sent."""
    needs(tracker)
    secrets = {"WANDB_API_KEY": "ca4a51" * 6 + "ca4a", "HF_TOKEN": "hf_canarycanarycanarycanary00", "PLAIN": "canary-9"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    run = trainer(tracker)
    run.steps(1, 10)
    run.end(10, seconds=PATIENCE)
    assert run.said == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for value in (*secrets.values(), os.environ["PATH"]):
        assert [path for path in files if value.encode() in path.read_bytes()] == [], value


def test_weights_are_the_same_with_and_without_a_tracker(workdir, tiny_model):
    needs("tensorboard")
    data = tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations())
    digests = []
    for name, to in (("plain", []), ("tracked", ["tensorboard"])):
        with pytest.MonkeyPatch.context() as patch:
            tinyruns.prove_here(patch)
            commands.train(tinyruns.recipe(tiny_model("llama"), data, workdir / name, track={"to": to}))
        if to and not (workdir / name / "track").exists():
            outcome = tinyruns.process("track", workdir / name)
            assert outcome.code == 0, outcome.err
        digests.append([path.read_bytes() for path in sorted((workdir / name / "model").glob("*.safetensors"))])
    assert digests[0]
    assert digests[0] == digests[1]
    assert waited(lambda: note(workdir / "tracked", "tensorboard").get("status") == "done")
    points, _ = read("tensorboard", workdir / "tracked")
    lines = [json.loads(line) for line in (workdir / "tracked" / "metrics.jsonl").read_text().splitlines()]
    losses = {step: value for name, step, value in points if name == "train/loss"}
    assert losses == pytest.approx({line["step"]: line["loss"] for line in lines}, rel=1e-6)


def test_the_command_refuses_what_it_cannot_do(tmp_path):
    missing = tinyruns.tutelage("track", tmp_path / "none", "--to", "wandb")
    assert (missing.code, missing.err.partition("\n")[0]) == (2, "error[usage/not-a-run]: the folder is not a run")
    Trainer(tmp_path / "run")
    unknown = tinyruns.tutelage("track", tmp_path / "run", "--to", "comet")
    assert unknown.code == 2
    assert "one of tensorboard, mlflow, wandb, trackio" in unknown.err


def _followers(folder: Path, tracker: str = "wandb") -> list[int]:
    """The processes that follow a run below a folder."""
    listed = subprocess.run(["ps", "-wweo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    wanted = f"tutelage.track {folder / 'run'} --to {tracker}"
    return [int(line.split()[0]) for line in listed.splitlines() if wanted in line and "defunct" not in line]


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as link:
        link.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        return b"200" in link.recv(100)
    return False


@contextlib.contextmanager
def _broken_server():
    """A server on loopback that answers everything with 500; its port."""

    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(500)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
