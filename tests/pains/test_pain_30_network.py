"""Pain 30: once its inputs are on disk a run needs no network, and none changes nothing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from brokenoff import everything

import tinyruns
from tutelage import commands

ALONE = ["unshare", "--map-root-user", "--net"]
"""A command in a network of its own, in which there is nothing, not even the machine itself."""
REACH = "import socket; socket.create_connection(('127.0.0.1', {port}), 5)"


def alone(*command: object) -> subprocess.CompletedProcess[str]:
    """A command without network, and without a word that it should do without."""
    told = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in told}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    return subprocess.run(
        [*ALONE, sys.executable, *map(str, command)], capture_output=True, text=True, env=environment, check=False
    )


@pytest.fixture(scope="module")
def apart():
    """Skips where a process cannot be given a network of its own; makes sure that there it has none."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare command")
    tried = alone("-c", "")
    if tried.returncode != 0:
        pytest.skip(f"this system gives no network of its own: {tried.stderr.strip()[:100]}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach = REACH.format(port=server.getsockname()[1])
        assert subprocess.run([sys.executable, "-c", reach], check=False).returncode == 0
        assert "Network is unreachable" in alone("-c", reach).stderr


@pytest.fixture
def make(workdir, tiny_model):
    """`make(name)` is a recipe of five steps of an adapter."""
    data = tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations())

    def make(name: str) -> dict[str, object]:
        adapter = {"kind": "lora", "rank": 4}
        sections = {"model": {"adapter": adapter}, "train": {"steps": 5}, "export": {"merged": True}}
        return tinyruns.recipe(tiny_model("llama"), data, workdir / name, **sections)

    return make


def test_without_a_network_it_gives_the_same_weights(apart, make, workdir, monkeypatch):
    path = tinyruns.write_recipe(workdir / "alone.yaml", make("alone"))
    done = alone("-m", "tutelage", "train", path)
    assert done.returncode == 0, done.stderr[-2000:]
    tinyruns.prove_here(monkeypatch)
    commands.train(make("joined"))
    assert everything(workdir / "alone") == everything(workdir / "joined")


def test_a_run_opens_no_connection(make, workdir, monkeypatch):
    """Neither to another machine nor to this one; names are not asked for either."""
    tinyruns.prove_here(monkeypatch)
    asked = []

    def refuse(*given: object, **named: object) -> None:
        asked.append(given)
        raise OSError("there is no network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert commands.train(make("run"))["status"] == "done"
    assert asked == []
    with pytest.raises(OSError, match="there is no network"):
        socket.create_connection(("127.0.0.1", 9))
