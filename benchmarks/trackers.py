"""What a tracker costs training: the processor time of its follower, beside a loop that writes a line at a time.

    python benchmarks/trackers.py [--to tensorboard mlflow wandb] [--seconds 60] [--every 0.5]

A step writes a line to `metrics.jsonl`, as training does; the loop itself computes nothing, so that all processor time
is the follower's. It is a fixed part, for the tracker's own import and start, and one for each second that it follows.
The trackers write to a local folder, W&B offline.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from tutelage.recipe.track import TrackOptions
from tutelage.runs import Run
from tutelage.track import Followers, start

LINE = {"loss": 1.25, "grad_norm": 0.5, "learning_rate": 1e-4, "tokens": 2048, "supervised_tokens": 900, "seconds": 0.5}


def main() -> None:
    """Print one JSON object a tracker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", nargs="+", default=["tensorboard", "mlflow", "wandb"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=0.5)
    given = parser.parse_args()
    os.environ["WANDB_MODE"] = "offline"
    for name in given.to:
        print(json.dumps(measure(name, given.seconds, given.every)), flush=True)


def measure(name: str, seconds: float, every: float) -> dict[str, object]:
    """Of one tracker: two runs, of which the shorter one tells what the start costs."""
    short, long = (followed(name, length, every) for length in (every, seconds))
    looked, calls = long["check"]
    return {
        "tracker": name,
        "seconds_to_start_and_end": round(short["processor"], 2),
        "seconds_a_second_followed": round(
            (long["processor"] - short["processor"]) / (long["lasted"] - short["lasted"]), 5
        ),
        "microseconds_of_a_look_by_the_loop": round(1e6 * looked / calls, 1),
        "seconds_waited_at_the_end": round(long["waited"], 2),
    }


def followed(name: str, seconds: float, every: float) -> dict[str, object]:
    """A run of that length with a follower: processor time of the follower, and seconds that the loop was held up."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        os.environ["WANDB_DIR"] = folder
        run = Run(Path(folder) / "run")
        run.create()
        run.write_text("recipe.yaml", "output: run\n")
        run.write_text("metrics.jsonl", "")
        before, began = children(), time.perf_counter()
        followers = start(run.folder, TrackOptions(to=(name,)), print)
        looked, calls = steps(run, followers, seconds, every)
        ended = time.perf_counter()
        run.write_json("result.json", {"status": "done", "steps": calls})
        followers.finish(120)
        waited = time.perf_counter() - ended
        return {"processor": children() - before, "lasted": ended - began, "waited": waited, "check": (looked, calls)}


def steps(run: Run, followers: Followers, seconds: float, every: float) -> tuple[float, int]:
    """Write a line at a time; the seconds that looking at the followers took, and how often that was."""
    looked, until = 0.0, time.perf_counter() + seconds
    step = 0
    while time.perf_counter() < until:
        step += 1
        run.append("metrics.jsonl", [{"step": step, **LINE}])
        at = time.perf_counter()
        followers.check()
        looked += time.perf_counter() - at
        time.sleep(every)
    return looked, step


def children() -> float:
    """Processor seconds of all processes that this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
