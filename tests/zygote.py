"""A process that has imported everything and computed nothing: it forks a child for each trial, in milliseconds.

One JSON object a line comes in for each child to start, and goes out when it began and when it ended:

    in    {"id": 1, "argv": ["train", "recipe.yaml", "--resume"], "before": [["patches:prove_here", {}]], ...}
    out   {"id": 1, "pid": 4711}
    out   {"id": 1, "status": 0}          as os.waitpid has it

An `argv` that begins with a script runs that. With `call` instead a child calls a function of ours; `before` names
what it calls first.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import sys
from pathlib import Path
from typing import Any


def warm() -> None:
    """Import what a training process imports. Nothing is computed here: threads of torch would not outlive a fork."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    for name in MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


MODULES = (
    *(
        "peft",
        "safetensors.torch",
        "transformers.models.llama.modeling_llama",
        "transformers.models.gpt2.modeling_gpt2",
    ),
    *("tutelage.cli.app", "tutelage.cli.screen", "tutelage.cli.show", "tutelage.commands", "tutelage.experiment"),
    *("tutelage.models.forward", "tutelage.models.load", "tutelage.models.training", "tutelage.models.adapters"),
    *("tutelage.evaluate.measure", "tutelage.evaluate.outcome", "tutelage.export.delivery", "tutelage.export.parity"),
    *("tutelage.train.rehearsal", "tutelage.train.probe", "tutelage.train.planner", "tutelage.train.choice"),
    *("tutelage.train.saver", "tutelage.train.loop", "tutelage.objectives.nll", "tutelage.report.page"),
    *("tutelage.train.joint", "tutelage.train.meeting", "tutelage.train.ranks", "tutelage.train.sharding"),
    *("tutelage.train.watchdog", "torch.distributed.checkpoint"),
)


def main() -> None:
    """Serve until the input ends."""
    here = Path(__file__).parent
    sys.path[:1] = [str(here / "faults"), str(here)]
    warm()
    pids: dict[int, int] = {}
    waiting = b""
    tell({"ready": True})
    while True:
        readable, _, _ = select.select([0], [], [], 0.005 if pids else None)
        if readable:
            data = os.read(0, 1 << 16)
            if not data:
                break
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if (pid := os.fork()) == 0:
                    sys.exit(child(request))
                pids[pid] = request["id"]
                tell({"id": request["id"], "pid": pid})
        for pid in list(pids):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                tell({"id": pids.pop(pid), "status": status})


def tell(value: dict[str, Any]) -> None:
    """To whoever started this process."""
    os.write(1, json.dumps(value).encode() + b"\n")


def child(request: dict[str, Any]) -> int | str | None:
    """Become the process that is asked for; what it would exit with."""
    os.setsid()  # A group of its own, so that what it leaves behind can be seen.
    for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(handle, number)
        os.close(handle)
    os.environ.update(request.get("environment") or {})
    if request.get("cwd"):
        os.chdir(request["cwd"])
    for name, arguments in request.get("before") or ():
        found(name)(**arguments)
    if "call" in request:
        name, arguments = request["call"]
        found(name)(**arguments)
        return 0
    from tutelage.cli import main as command_line

    script = request["argv"][0] if request["argv"][0].endswith(".py") else None
    sys.argv = request["argv"] if script else ["tutelage", *request["argv"]]
    try:
        if script:
            sys.path.insert(0, str(Path(script).parent))
            runpy.run_path(script, run_name="__main__")
        else:
            command_line()
    except SystemExit as stop:
        return stop.code
    return 0


def found(name: str) -> Any:
    """The function called `module:function`."""
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)


if __name__ == "__main__":
    main()
