"""What a run is, by content: the recipe's values, the rows, the model. A run goes on as itself or not at all.

`run.json` holds the run's name for itself, what it was begun with, and each session of work on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tutelage import config, files
from tutelage.config import Resolved
from tutelage.config.names import general, join
from tutelage.data.encode import clock
from tutelage.errors import DataError, ModelError, Problem, RecipeError, TutelageError
from tutelage.prepared import Prepared
from tutelage.recipe import Recipe
from tutelage.recipe.resume import MEANINGS
from tutelage.runs import Run

FILE = "run.json"
MATTERS = (
    "processes",
    "threads",
    "torch",
    "device",
    "kernels",
    "attention",
    "python",
    "transformers",
    "tutelage",
    "code",
)
"""Of the environment, what may change how sums are rounded."""


@dataclass(slots=True)
class Lineage:
    """A run's identity, and what this session of it found otherwise than before."""

    run: str
    """Its name for itself; every checkpoint carries it."""
    begun_with: dict[str, Any] | None = None
    """What `describe` said at the beginning; None for a run that begins now."""
    sessions: list[dict[str, Any]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    other_rows: bool = False
    """Whether the run goes on with other rows than before, so that nothing measured on them can be compared."""
    begun: str = field(default_factory=lambda: datetime.now().isoformat())
    """When, in local time: what a chat template that writes the date writes for as long as the run lasts."""

    @staticmethod
    def new() -> Lineage:
        """Of a run that begins."""
        return Lineage(secrets.token_hex(8))

    @staticmethod
    def of(known: Mapping[str, Any]) -> Lineage:
        """Of a run that goes on, from its `run.json`."""
        lineage = Lineage(str(known["run"]), known["begun_with"], known["sessions"])
        lineage.begun = known.get("begun", lineage.begun)
        return lineage

    @property
    def resumed(self) -> bool:
        """Whether the run was begun by an earlier process."""
        return self.begun_with is not None

    def clock(self) -> AbstractContextManager[None]:
        """While this holds, chat templates write the date of the run's beginning."""
        return clock.at(datetime.fromisoformat(self.begun))

    def refuse_other_content(self, prepared: Prepared, *, allow_data_change: bool = False) -> None:
        """Make sure that rows and model are those that the run was begun with.

        Raises:
            ModelError: model/changed.
            DataError: data/changed.
        """
        if self.begun_with is None:
            return
        now = describe(prepared)
        _refuse(
            ModelError,
            "model/changed",
            "the model is not the one that the run was begun with",
            *_differ(self.begun_with["model"], now["model"]),
        )
        found = _differ(self.begun_with["data"], now["data"])
        if found and allow_data_change:
            self.changes += [f"{name}: {before} before, {after} now" for name, before, after in found]
            self.begun_with["data"] = now["data"]
            self.other_rows = True
            return
        _refuse(DataError, "data/changed", "the rows are not those that the run was begun with", *found)

    def compare_environment(self, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
        """Notes on what may keep the run from going on bit for bit as it would have."""
        known = before or {}
        found = [
            f"{name}: {known[name]} before, {now[name]} now"
            for name in MATTERS
            if name in known and known[name] != now[name]
        ]
        self.changes += found
        return [f"from here on not bit for bit as it would have gone on; {change}" for change in found]

    def write(self, folder: Run, prepared: Prepared, *, environment: Mapping[str, Any]) -> None:
        """Add this session."""
        session = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "changes": self.changes,
            "environment": {name: environment.get(name) for name in MATTERS},
        }
        begun_with = self.begun_with or describe(prepared)
        said = {"run": self.run, "begun": self.begun, "begun_with": begun_with}
        folder.write_json(FILE, {**said, "sessions": [*self.sessions, session]})


def begin(folder: Run, resolved: Resolved, *, resume: bool) -> tuple[Lineage, Resolved]:
    """The run that the folder calls for: a new one, or with `resume` the one that it holds; and its recipe.

    Values that an earlier session's plan chose come with it.

    Raises:
        RecipeError: recipe/run-exists without `resume`; recipe/changed.
    """
    if not resume or folder.is_empty():
        folder.refuse_if_taken()
        return Lineage.new(), resolved
    known = folder.read_json(FILE)
    if known is None:
        folder.refuse_if_taken()
    if not (folder.folder / "recipe.yaml").is_file():  # Broken off before anything else was written.
        return Lineage.of(known), resolved
    before = config.load(folder.folder / "recipe.yaml")
    origins = folder.read_json("origins.json") or {}
    recipe = _with_planned(before.recipe, origins, resolved)
    lineage = Lineage.of(known)
    lineage.changes = _compare_recipes(before.recipe, recipe.recipe)
    return lineage, recipe


def with_steps(resolved: Resolved, steps: int | None, origin: str) -> Resolved:
    """The recipe with so many steps, and where that number comes from."""
    train = resolved.recipe.train.model_copy(update={"steps": steps})
    return Resolved(resolved.recipe.model_copy(update={"train": train}), {**resolved.origins, "train.steps": origin})


def describe(prepared: Prepared) -> dict[str, Any]:
    """What the run is made of, by content."""
    template = prepared.encoder.template
    tokenizer = prepared.encoder.tokenizer
    return {
        "model": {
            "weights": weights_digest(Path(prepared.location.path), prepared.location.gguf_file)
            or f"{prepared.location.path} at {prepared.location.commit}",
            "tokenizer": hashlib.sha256(tokenizer.backend.to_str().encode()).hexdigest(),
            "template": None if template is None else template.sha256,
            "stop tokens": prepared.stop_ids,
        },
        "data": _describe_rows(prepared),
    }


def rows_digest(prepared: Prepared) -> str:
    """Of everything that is compared of the rows, by which processes know that they read the same."""
    return hashlib.sha256(json.dumps(_describe_rows(prepared), sort_keys=True).encode()).hexdigest()


def _describe_rows(prepared: Prepared) -> dict[str, Any]:
    dataset = prepared.dataset
    return {
        **{
            f"rows of source {number}": source.get("sha256") or source.get("revision")
            for number, source in enumerate(dataset.sources, start=1)
        },
        "encoded rows": dataset.store.digest(),
        **({"weights of single rows": adjusted} if (adjusted := dataset.selection.adjusted.digest()) else {}),
        **({"general text": general} if (general := general_digest(prepared.recipe)) else {}),
        **({"tasks": tasks} if (tasks := tasks_digest(prepared)) else {}),
        "trained examples": hashlib.sha256(prepared.training.at(0).tobytes()).hexdigest(),
        "held-out examples": hashlib.sha256(prepared.heldout.indices.tobytes()).hexdigest(),
    }


def general_digest(recipe: Recipe) -> str | None:
    """Of the files that `evaluate.general` names; None without any."""
    paths = recipe.evaluate.general
    known = [files.sha256(Path(path)) if Path(path).is_file() else path for path in paths]
    return hashlib.sha256("\n".join(known).encode()).hexdigest() if known else None


def tasks_digest(prepared: Prepared) -> str | None:
    """Of the tasks that the run is asked, with their rows; None without any."""
    made = [errand.digest() for errand in prepared.tasks]
    return hashlib.sha256("\n".join(made).encode()).hexdigest() if made else None


def weights_digest(folder: Path, gguf_file: str | None) -> str | None:
    """Of the files that hold a model's weights and shape; None for a model that is not a local folder."""
    if not folder.is_dir():
        return None
    names = [gguf_file] if gguf_file else [*sorted(p.name for p in folder.glob("*.safetensors")), "config.json"]
    whole = hashlib.sha256()
    for name in names:
        if (folder / name).is_file():
            whole.update(f"{name} {files.sha256(folder / name)}\n".encode())
    return whole.hexdigest()


def _with_planned(before: Recipe, origins: Mapping[str, str], now: Resolved) -> Resolved:
    """The recipe with the number of steps that an earlier plan chose for `budget.time`."""
    if origins.get("train.steps") != "budget.time" or now.recipe.train.steps is not None:
        return now
    return with_steps(now, before.train.steps, "budget.time")


def _compare_recipes(before: Recipe, now: Recipe) -> list[str]:
    """What was extended, in words.

    Raises:
        RecipeError: recipe/changed, naming every option that may not change, with both values.
    """
    old, new = _flat(before.model_dump(mode="json")), _flat(now.model_dump(mode="json"))
    changed = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    meaning = {name: MEANINGS[_declared(name)] for name in changed}
    problems = [
        Problem(
            "recipe/changed",
            f"`{name}` is not what the run was begun with",
            where=name,
            found=f"{old.get(name)!r} before, {new.get(name)!r} now",
            fix=f"{name}={_typed(old.get(name))} continues the run; output=runs/NAME begins another",
        )
        for name in changed
        if meaning[name] == "identity"
    ]
    if problems:
        raise RecipeError(*problems)
    return [f"{name}: {old.get(name)} before, {new.get(name)} now" for name in changed if meaning[name] == "extend"]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Each value by its dotted name; what is no section stays whole."""
    if isinstance(value, Mapping) and (not name or _is_section(name)):
        return {n: v for key, part in value.items() for n, v in _flat(part, join(name, str(key))).items()}
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        return {n: v for place, part in enumerate(value) for n, v in _flat(part, join(name, str(place))).items()}
    return {name: value}


def _is_section(name: str) -> bool:
    return any(option.startswith(f"{general(name)}.") for option in MEANINGS)


def _declared(name: str) -> str:
    """The option that a name is of; a section that came or went counts as what stands in it."""
    known = general(name)
    return known if known in MEANINGS else next(option for option in MEANINGS if option.startswith(f"{known}."))


def _typed(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _differ(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    names = dict.fromkeys([*before, *now])
    return [(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]


def _refuse(kind: type[TutelageError], code: str, what: str, *found: tuple[str, Any, Any]) -> None:
    if found:
        raise kind(
            *(
                Problem(
                    code,
                    f"{what}: {name}",
                    found=f"{str(before)[:64]} before, {str(now)[:64]} now",
                    why="going on would give a model that neither of them describes",
                    fix="bring back what was there, or begin another run with output=runs/NAME",
                )
                for name, before, now in found
            )
        )
