"""`tutelage data suspects RUN`: a table, two files, and JSON for machines."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

import tinyruns
from tutelage import commands
from tutelage.cli.suspects import suspects


@pytest.fixture
def command():
    app = typer.Typer()
    app.command()(suspects)
    return lambda *words: CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


@pytest.fixture
def run(workdir, tiny_model):
    rows = tinyruns.demonstrations(12)
    rows += [{**rows[3], "output": "It is \x1b[31m<b>another</b>."}]
    data = tinyruns.write_rows(workdir / "rows.jsonl", rows)
    quick = {"drift": False, "knowledge": 0}
    commands.train(tinyruns.recipe(tiny_model("llama"), data, workdir / "run", data={"heldout": 0}, evaluate=quick))
    return workdir / "run"


def test_the_rows_are_listed_and_the_weights_written(command, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    done = command(run)
    assert done.exit_code == 0
    assert "in conflict" in done.stdout
    assert "rows.jsonl:13" in done.stdout
    assert "another" in done.stdout
    assert "\x1b[31m" not in done.stdout
    assert f"train with data.adjust={run / 'adjust.jsonl'}" in " ".join(done.stdout.split())
    adjust = [json.loads(line) for line in (run / "adjust.jsonl").read_text().splitlines()]
    assert {line["origin"].rpartition(":")[2] for line in adjust} >= {"4", "13"}
    assert all(line.keys() == {"row", "origin", "weight", "why"} for line in adjust)


def test_machines_get_json(command, run, tmp_path):
    done = command(run, "--json", "--top", 1, "--out", tmp_path / "weights.jsonl")
    told = json.loads(done.stdout)
    assert len(told["suspects"]) == 1
    assert told["found"]["in conflict"] == 2
    assert told["adjust"] == str(tmp_path / "weights.jsonl")
    assert len((tmp_path / "weights.jsonl").read_text().splitlines()) == 1
    assert not (run / "adjust.jsonl").exists()
