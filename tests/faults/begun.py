"""A run stopped after its second step of four, and for each option another value than it was begun with."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tinyruns
from tinyruns import Listening
from tutelage import commands
from tutelage.recipe.resume import MEANINGS

CHANGED: dict[str, tuple[str, ...]] = {
    "model.template": ("alpaca",),
    "model.adapter.kind": ("model.adapter={kind: full}",),
    "model.adapter.rank": ("8",),
    "model.adapter.alpha": ("4.0",),
    "model.adapter.dropout": ("0.2",),
    "data.train.N.format": ("alpaca",),
    "data.train.N.split": ("train",),
    "data.train.N.subset": ("main",),
    "data.train.N.streaming": ("true", "data.train.0.limit=20"),
    "data.train.N.fields": ("{instruction: instruction}",),
    "data.train.N.where": ("{box: 1}",),
    "data.train.N.join": ("null",),
    "data.train.N.join.on": ("box",),
    "data.train.N.limit": ("20",),
    "data.train.N.completion_after": ("is",),
    "data.train.N.name": ("colours",),
    "data.train.N.weight": ("0.5",),
    "data.train.N.share": ("2.0",),
    "data.train.N.cap": ("10",),
    "data.heldout": ("0.25",),
    "data.heldout.format": ("alpaca",),
    "data.heldout.split": ("test",),
    "data.heldout.subset": ("main",),
    "data.heldout.streaming": ("true", "data.heldout.limit=4"),
    "data.heldout.fields": ("{instruction: instruction}",),
    "data.heldout.where": ("{box: 1}",),
    "data.heldout.join": ("null",),
    "data.heldout.join.on": ("box",),
    "data.heldout.limit": ("4",),
    "data.heldout.completion_after": ("is",),
    **dict.fromkeys(
        (name for name in MEANINGS if name.startswith("data.clean.") or name.endswith((".exact", ".prompt", ".near"))),
        ("drop",),
    ),
    "data.duplicates.threshold": ("0.5",),
    "data.duplicates.words": ("4",),
    "data.decontaminate.words": ("5",),
    "data.decontaminate.threshold": ("0.5",),
    "data.mixture.by": ("tokens",),
    "data.mixture.temperature": ("2.0",),
    "data.mixture.epoch_examples": ("12",),
    "data.renderings.train": ("[terse]",),
    "data.renderings.heldout": ("[terse]",),
    "data.max_length": ("120",),
    "data.over_long": ("drop",),
    "data.thinking_weight": ("0.5",),
    "data.on_bad_row": ("quarantine",),
    "train.global_batch_size": ("5",),
    "train.learning_rate": ("0.002",),
    "train.schedule.kind": ("linear",),
    "train.schedule.warmup": ("0.1",),
    "train.weight_decay": ("0.1",),
    "train.betas": ("[0.9, 0.95]",),
    "train.eps": ("1e-6",),
    "train.max_grad_norm": ("0.5",),
    "train.seed": ("1",),
    "precision.weights": ("bfloat16",),
    "precision.compute": ("float32",),
    "precision.optimizer": ("float32",),
    "precision.master": ("none",),
    "evaluate.examples": ("3",),
    "evaluate.samples": ("1",),
    "evaluate.max_new_tokens": ("5",),
    "evaluate.score": ("exact",),
    "evaluate.score_rows": ("3",),
    "evaluate.tasks": ("[json]",),
    "evaluate.task_rows": ("3",),
    "evaluate.drift": ("false",),
    "evaluate.knowledge": ("3",),
    "evaluate.canaries": ("2",),
    # To extend.
    "evaluate.patience": ("50",),
    "evaluate.margin": ("2.0",),
    "train.epochs": ("2", "train.steps=null"),
    "train.steps": ("6",),
    "guard.non_finite": ("stop",),
    "guard.spikes": ("skip",),
    "guard.limit": ("5",),
    # Compared by content; the folders and files named here are made as equal copies.
    "model.path": ("MODEL",),
    "model.revision": ("main",),
    "data.train": ("[{path: ROWS, join: {path: JOINED, on: id}, name: rows}]",),
    "data.train.N.path": ("ROWS",),
    "data.train.N.join.path": ("JOINED",),
    "data.heldout.path": ("HELDOUT",),
    "data.heldout.join.path": ("JOINED",),
    "data.decontaminate.against": ("[]",),
    "data.adjust": ("null",),
    "evaluate.general": ("[]",),
    # Of no matter.
    "model.device": ("auto",),
    "train.token_budget": ("150",),
    "train.checkpointing": ("full",),
    "train.compile": ("true",),
    "model.trust_remote_code": ("true",),
    "track.to": ("[tensorboard]",),
    "track.project": ("other",),
    "train.parallel": ("sharded",),
    "data.max_quarantined": ("0.5",),
    "data.store": ("STORE",),
    "data.store_limit": ("30000000000",),
    "checkpoint.every": ("1",),
    "checkpoint.keep": ("5",),
    "checkpoint.wait": ("1",),
    "evaluate.points": ("2",),
    "evaluate.confidence": ("0.9",),
    "export.merged": ("true",),
    "export.step": ("last",),
    "budget.memory": ("8GB",),
    "budget.time": ("2h",),
    "output": ("OUTPUT",),
}
"""For each option another value than the run below was begun with, and what has to be given with it."""

CANNOT_GO_ON_HERE = {
    "model.revision": "a folder has no revisions, so only the comparison is made",
    "train.compile": "takes minutes",
}


@dataclass
class Begun:
    """A run that was stopped after its second step of four, and what it was made of, all in a folder of their own."""

    folder: Path
    recipe: dict[str, Any]

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def override(self, name: str) -> list[str]:
        """What changes the option, as on the command line."""
        value, *more = CHANGED[name]
        for made, copy in {
            "MODEL": _copied(self.folder / "model"),
            "ROWS": _copied(self.folder / "rows.jsonl"),
            "JOINED": _copied(self.folder / "joined.jsonl"),
            "HELDOUT": _copied(self.folder / "heldout.jsonl"),
            "STORE": self.folder / "store",
            "OUTPUT": self.folder / "moved",
        }.items():
            value = value.replace(made, str(copy)) if made in value else value
        if name == "output":
            shutil.move(self.run, value)
        return [value if "=" in value else f"{name.replace('.N', '.0')}={value}", *more]

    def go_on(self, *overrides: str, said: list[str] | None = None, **options: Any) -> dict[str, Any]:
        """What `--resume` gives."""
        screen = Listening([] if said is None else said)
        return commands.train(self.recipe, overrides, screen, resume=True, **options)

    def sessions(self, run: Path | None = None) -> list[dict[str, Any]]:
        return json.loads(((run or self.run) / "run.json").read_text())["sessions"]


def _copied(path: Path) -> Path:
    copy = path.with_name(f"copy-of-{path.name}")
    if path.is_dir() and not copy.exists():
        shutil.copytree(path, copy)
    elif not copy.exists():
        shutil.copy(path, copy)
    return copy


class StopAfter(tinyruns.Silent):
    """A screen that asks the process to stop when so many steps were shown."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Callable[..., None]]:
        def advance(done: int = 1, note: str = "") -> None:
            self.left -= done if name == "training" else 0
            if self.left == 0:
                self.left = -1
                signal.raise_signal(signal.SIGTERM)

        yield advance


def at(folder: Path) -> Begun:
    join = {"path": str(folder / "joined.jsonl"), "on": "id"}
    recipe = tinyruns.recipe(
        folder / "model",
        folder / "rows.jsonl",
        folder / "run",
        model={"adapter": {"kind": "lora", "rank": 4, "dropout": 0.1}},
        data={
            "train": [{"path": str(folder / "rows.jsonl"), "join": join, "name": "rows"}],
            "heldout": {"path": str(folder / "heldout.jsonl"), "join": join},
        },
        train={"steps": 4, "learning_rate": 1e-2},
        checkpoint={"every": 50, "wait": 0},
    )
    return Begun(folder, recipe)
