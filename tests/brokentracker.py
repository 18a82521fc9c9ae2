"""A tracker that raises or sleeps where it is asked to, for the trackers' own tests and for the faults."""

from __future__ import annotations

from pathlib import Path

_WANDB = '''
"""Stands in for `wandb`: keeps what it is told in a file, and breaks as the variable FAULT says."""
import json, os, time
from pathlib import Path

class Settings:
    model_fields = {}

class Run:
    offline = False

    def __init__(self):
        self.file = Path(os.environ["FAKE_SERVER"])
        self.summary = {}
        for line in self.file.read_text().splitlines() if self.file.exists() else ():
            self.summary.update(json.loads(line))

    def define_metric(self, *names, **more):
        pass

    def log(self, row):
        fault("log")
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\\n")

    def finish(self, exit_code):
        fault("finish")

def fault(where):
    what, _, place = os.environ.get("FAULT", "").partition(" in ")
    if place == where:
        Path(os.environ["FAKE_SERVER"] + ".reached").touch()
        if what == "raises":
            raise RuntimeError("the tracker is broken")
        time.sleep(60)

def init(**options):
    fault("init")
    return Run()

def teardown(exit_code):
    raise RuntimeError("this is broken, too")
'''


def broken_tracker(folder: Path, fault: str) -> dict[str, str]:
    """The variables with which a process finds this in the place of `wandb`; as in "raises in log", or "" for none.

    What it is told goes into `server.jsonl` of the folder; `server.jsonl.reached` is there once it broke.
    """
    package = folder / "fake" / "wandb"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(_WANDB)
    return {"PYTHONPATH": str(package.parent), "FAKE_SERVER": str(folder / "server.jsonl"), "FAULT": fault}
