"""Every option says where its value came from."""

from __future__ import annotations

from pathlib import Path

from goodrecipe import GOOD, values, write

from tutelage.config import load, options, resolve


def test_origins_name_every_option(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    resolved = load(file, ["train.epochs=3", "data.train.1.path=c.jsonl", "train.schedule={kind: linear}"])
    expected = {
        "model.path": f"{file}:3",
        "data.train.0.path": f"{file}:6",
        "data.train.0.weight": "default",
        "data.train.1.path": "command line",
        "data.train.1.weight": f"{file}:8",
        "train.learning_rate": f"{file}:10",
        "train.epochs": "command line",
        "train.steps": "default",
        "train.betas": "default",
        "train.schedule.kind": "command line",
        "train.schedule.warmup": "default",
        "model.adapter.kind": "default",
        "data.heldout": "default",
        "output": f"{file}:11",
    }
    assert {name: resolved.origins[name] for name in expected} == expected
    declared = {option.name for option in options()} - {"data.train"}
    unused = ("data.heldout.", "data.train.N.join.")
    without_unused = {name for name in declared if not name.startswith(unused)}
    assert {name.replace(".0.", ".N.").replace(".1.", ".N.") for name in resolved.origins} == without_unused


def test_origin_of_a_list_with_one_number_overridden(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD.replace("train:\n  learning", "train:\n  betas: [0.8, 0.9]\n  learning"))
    assert load(file).origins["train.betas"] == f"{file}:10"
    resolved = load(file, ["train.betas.1=0.95"])
    assert resolved.recipe.train.betas == (0.8, 0.95)
    assert resolved.origins["train.betas"] == "command line"


def test_an_override_replaces_the_origins_inside_it(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    resolved = load(file, ["data.train=[{path: x, weight: 3}, {path: y}]"])
    assert {resolved.origins[f"data.train.{i}.path"] for i in (0, 1)} == {"command line"}
    assert resolved.origins["data.train.1.weight"] == "default"


def test_origins_of_python_values() -> None:
    resolved = resolve(values(), lines={"output": 7}, file="a.py")
    assert (resolved.origins["output"], resolved.origins["model.path"]) == ("a.py:7", "a.py")
