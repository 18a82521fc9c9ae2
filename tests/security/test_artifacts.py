"""Malicious files of every kind: none runs code, reaches the network or takes the machine, and each has its error."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from artifacts import ARTIFACTS, Case

import tinyruns
from tutelage.errors import CLASSES


class Port:
    """A port of this machine that counts who calls."""

    def __init__(self) -> None:
        self.calls = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.number = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._server.accept()
            last = connection.recv(4) == b"stop"
            connection.close()
            if last:
                return
            self.calls += 1

    def close(self) -> None:
        """Stop listening; every call until now is counted then."""
        if not self._thread.is_alive():
            return
        with socket.create_connection(("127.0.0.1", self.number)) as connection:
            connection.sendall(b"stop")
        self._thread.join()
        self._server.close()


@pytest.fixture
def port() -> Iterator[Port]:
    port = Port()
    yield port
    port.close()


@pytest.fixture
def case(workdir: Path, tiny_model, port: Port) -> Case:
    return Case(workdir, tiny_model("llama"), port.number)


def run(case: Case) -> tinyruns.Outcome:
    recipe = case.folder / "recipe.yaml"
    if "raw" in case.values:
        recipe.write_text(case.values["raw"])
    else:
        tinyruns.write_recipe(recipe, case.values)
    return tinyruns.tutelage("train", "recipe.yaml")


def test_there_are_forty():
    assert len(ARTIFACTS) >= 40


@pytest.mark.parametrize("name", ARTIFACTS)
def test_it_runs_nothing_and_is_refused_or_left_alone(case, port, monkeypatch, name):
    make, code = ARTIFACTS[name]
    tinyruns.prove_here(monkeypatch)
    make(case)
    outcome = run(case)
    assert not case.canary.exists()
    assert not list(case.folder.rglob("CANARY"))
    port.close()
    assert port.calls == 0
    if code is None:
        assert outcome.code == 0, outcome.err
        return
    assert outcome.code == CLASSES[code.partition("/")[0]].exit_code, outcome.err
    assert re.findall(r"^error\[(.*?)\]", outcome.err, re.MULTILINE)[0] == code, outcome.err
    assert "Traceback" not in outcome.err
    assert not (case.folder / "run").exists()


def test_the_canaries_sing(case, port):
    """The payloads do what they are meant to where nothing stops them, so a silent one says something."""
    import pickle

    pickle.loads(case.pickled())
    assert case.canary.exists()
    case.canary.unlink()
    case.script()
    exec((case.model / "own.py").read_text(), {})
    assert case.canary.exists()
    port.close()
    assert port.calls == 2
