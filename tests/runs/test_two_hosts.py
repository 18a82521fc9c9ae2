"""Two network namespaces as two hosts: a launcher and a process in each, and only a wire between them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tinyruns
from tutelage import commands

NAMES = ("tutelageA", "tutelageB")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two namespaces with the addresses 10.77.0.1 and 10.77.0.2."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command ip")
    made = []
    try:
        for name in NAMES:
            _ip("netns", "add", name)
            made.append(name)
        _ip("link", "add", "wireA", "netns", NAMES[0], "type", "veth", "peer", "name", "wireB", "netns", NAMES[1])
        for number, name in enumerate(NAMES, start=1):
            wire = f"wire{name[-1]}"
            _ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", wire)
            _ip("-n", name, "link", "set", wire, "up")
            _ip("-n", name, "link", "set", "lo", "up")
    except subprocess.CalledProcessError as error:
        for name in made:
            _ip("netns", "del", name)
        pytest.skip(f"no network namespace can be made here: {error.stderr.decode().strip()}")
    yield NAMES
    for name in NAMES:
        _ip("netns", "del", name)


def test_two_hosts_train_one_model(
    tmp_path: Path,
    hosts: tuple[str, str],
    tiny_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = tinyruns.write_rows(tmp_path / "rows.jsonl", tinyruns.demonstrations(24))
    recipes = [
        tinyruns.write_recipe(tmp_path / f"{name}.yaml", tinyruns.recipe(tiny_model("llama"), rows, tmp_path / name))
        for name in ("one", "two")
    ]
    with monkeypatch.context() as here:
        tinyruns.prove_here(here)
        commands.train(recipes[0])
    started = []
    for rank, name in enumerate(hosts):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank)]
        meeting = ["--nproc-per-node", "1", "--master-addr", "10.77.0.1", "--master-port", "29500"]
        started.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, *command, *meeting, "-m", "tutelage", "train", str(recipes[1])],
                env={**os.environ, "GLOO_SOCKET_IFNAME": f"wire{name[-1]}", "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        said = [process.communicate(timeout=200)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    one, two = (
        [json.loads(line) for line in (recipe.with_suffix("") / "metrics.jsonl").read_text().splitlines()]
        for recipe in recipes
    )
    assert [line["rows"] for line in one] == [line["rows"] for line in two]
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(one, two, strict=True)) <= 1e-6
    assert "2 processes, replicated" in said[0]
