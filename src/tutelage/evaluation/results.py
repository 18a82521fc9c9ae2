"""What is compared: the results that `tutelage eval` left in a folder, or the answers of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.errors import Problem, RecipeError
from tutelage.evaluation.answers import Answers, Line
from tutelage.evaluation.summary import summed
from tutelage.runs import Run

Key = tuple[str, int]
"""A row's name and the number of the sample."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One task of one model, by row."""

    task: str
    settings: dict[str, Any]
    """What of the task can change a score."""
    sampling: dict[str, Any]
    better: str
    finished: bool
    lines: dict[Key, Line]
    health: dict[str, Any] | None
    file: str


@dataclass(frozen=True, slots=True)
class Results:
    """Everything in one folder."""

    name: str
    folder: str
    tasks: dict[str, Scored]
    heldout: dict[str, Any] | None = None
    """Of a run: its loss on held-out rows before and after, as sums over all of them."""
    notes: tuple[str, ...] = field(default=())
    """What is there and cannot be compared row by row, and why."""


def results(folder: str | Path, name: str | None = None) -> Results:
    """What a folder holds.

    Raises:
        RecipeError: usage/no-results. DataError, ModelError: what cannot be read.
    """
    path = Path(folder)
    run = Run(path)
    label = name or path.resolve().name
    if run.holds_a_run():
        return _run(run, label)
    tasks = {}
    for file in sorted(path.glob("*.json")) if path.is_dir() else ():
        summary = _summary(file)
        if summary is not None:
            tasks[summary["task"]] = _scored(run, file.stem, summary)
    if not tasks:
        found = "no such folder" if not path.is_dir() else "neither results nor a run"
        what, fix = (
            f"there is nothing to compare in `{folder}`",
            f"make results: tutelage eval MODEL --task TASK --out {folder}",
        )
        raise RecipeError(Problem("usage/no-results", what, str(folder), found=found, fix=fix))
    return Results(label, str(folder), tasks)


def labels(folders: Sequence[str | Path]) -> list[str]:
    """A short name for each folder: the last part of its path that tells it from the others."""
    paths = [Path(folder).resolve() for folder in folders]
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path} ({number})" for number, path in enumerate(paths, start=1)]


def _summary(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("kind") == "evaluation" else None


def _scored(run: Run, stem: str, summary: dict[str, Any]) -> Scored:
    answers = Answers(run, stem)
    lines = {(line["row"], line["sample"]): line for line in answers.lines()}
    return Scored(
        task=summary["task"],
        settings=summary["settings"]["task"],
        sampling=summary["settings"]["sampling"],
        better=summary["better"],
        finished=summary["status"] == "done",
        lines=lines,
        health=summary.get("health") or (summed(lines.values())["health"] if lines else None),
        file=answers.where,
    )


def _run(run: Run, name: str) -> Results:
    """The answers of the trained model to held-out prompts, where they were scored; and its losses."""
    result = run.read_json("result.json", needed=False) or {}
    heldout = result.get("heldout")
    notes = []
    if heldout:
        notes.append(
            f"{name}: a run keeps the trained model's held-out loss as a sum over all rows, so it cannot be paired row "
            "by row; the figures stand side by side"
        )
    samples = [line for line in run.read_lines("samples.jsonl", whole=False) if line.get("model") == "tuned"]
    last = max((line["step"] for line in samples), default=0)
    samples = [line for line in samples if line["step"] == last]
    scored = [line for line in samples if line.get("correct") is not None]
    tasks = {}
    if scored:
        tasks["held-out answers"] = _answered(run, scored)
    elif samples:
        notes.append(f"{name}: its {len(samples):,} held-out answers were not scored (evaluate.score: none)")
    else:
        notes.append(f"{name}: it holds no answers of a trained model")
    if not tasks and not heldout:
        what = "the run has no answers of a trained model, and no result"
        fix = "finish it with `tutelage train RECIPE --resume`, or use `tutelage eval` on its model"
        raise RecipeError(Problem("usage/no-results", what, str(run.folder), fix=fix))
    return Results(name, str(run.folder), tasks, heldout, tuple(notes))


def _answered(run: Run, samples: Sequence[dict[str, Any]]) -> Scored:
    lines: dict[Key, Line] = {}
    for one in samples:
        asked = one["messages"] or [{"role": "prompt", "content": one["prompt"]}]
        words = json.dumps([asked, one["reference"]], ensure_ascii=False, sort_keys=True)
        name = hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        number = sum(key[0] == name for key in lines)
        lines[name, number] = {
            "row": name,
            "sample": number,
            "prompt": name,
            "origin": one["origin"],
            "asked": asked,
            "reference": one["reference"],
            "answer": one["answer"],
            "score": float(one["correct"]),
            "found": one["answer"],
            "why": "",
            "stopped": one["stopped"],
        }
    first = samples[0]
    stopped = sum(bool(one["stopped"]) for one in samples) / len(samples)
    return Scored(
        task="held-out answers",
        settings={"score": _score(run), "max_new_tokens": first["decoding"]["max_new_tokens"]},
        sampling={"method": first["decoding"]["method"]},
        better="higher",
        finished=True,
        lines=lines,
        health={"n": len(samples), "stopped": stopped, "hit_limit": 1 - stopped},
        file=str(run.folder / "samples.jsonl"),
    )


def _score(run: Run) -> str:
    tasks = (run.read_json("result.json", needed=False) or {}).get("tasks") or {}
    return ", ".join(sorted(str(table.get("metric")) for table in tasks.values())) or "unknown"
