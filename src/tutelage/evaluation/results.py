"""What is compared: the results that `tutelage eval` left in a folder, or the answers and losses of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tutelage.errors import Problem, RecipeError
from tutelage.evaluate.journal import Recorded, recorded
from tutelage.evaluate.pairing import JOURNAL, Key
from tutelage.evaluate.summary import summed
from tutelage.evaluation.answers import Answers
from tutelage.generate.sampling import GREEDY
from tutelage.runs import Run
from tutelage.tasks.marking import Line


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
    formats: dict[str, Any] | None = None
    """The spread of the score over other wordings of the task, where it was measured."""
    asked: int | None = None
    """How many rows were to be answered, where that is known."""


@dataclass(frozen=True, slots=True)
class Results:
    """Everything in one folder."""

    name: str
    folder: str
    tasks: dict[str, Scored]
    heldout: dict[str, Any] | None = None
    """Of a run: its loss on held-out rows before and after, as sums over all of them."""
    recorded: Recorded | None = None
    """Of a run: the same row by row."""
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
        if summary is not None and summary.get("format", 1) == 1:
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
    if not isinstance(found, dict) or found.get("kind") != "evaluation":
        return None
    settings = found.get("settings")
    parts = {**found, **{f"settings.{name}": part for name, part in settings.items()}} if _table(settings) else found
    missing = [name for name in ("task", "better", "status") if not isinstance(parts.get(name), str)]
    missing += [name for name in ("settings.task", "settings.sampling") if not _table(parts.get(name))]
    if missing:
        what, fix = "the summary is damaged", "bring the file back, or remove it with its answers and ask again"
        raise RecipeError(Problem("usage/no-results", what, str(file), f"it lacks {', '.join(missing)}", fix=fix))
    return found


def _table(found: Any) -> bool:
    return isinstance(found, dict)


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
        formats=summary.get("formats"),
        asked=summary.get("asked"),
    )


def _run(run: Run, name: str) -> Results:
    """The trained model's losses on held-out rows, its answers to their prompts where they were scored, its tasks."""
    result = run.read_json("result.json", needed=False) or {}
    heldout, kept = result.get("heldout"), recorded(run, name)
    notes = []
    if heldout and kept is None:
        notes.append(f"{name}: it kept no held-out losses by row (heldout.json), so the figures stand side by side")
    samples = [line for line in run.read_lines("samples.jsonl", whole=False) if line.get("model") == "tuned"]
    last = max((line["step"] for line in samples), default=0)
    samples = [line for line in samples if line["step"] == last]
    scored = [line for line in samples if line.get("correct") is not None]
    tasks = _tasks(run, result)
    if scored:
        tasks["held-out answers"] = _answered(run, scored)
    elif samples:
        notes.append(f"{name}: its {len(samples):,} held-out answers were not scored (evaluate.score: none)")
    elif not tasks:
        notes.append(f"{name}: it holds no answers of a trained model")
    if not tasks and not heldout and not (kept and "tuned" in kept.losses):
        what = "the run has no answers of a trained model, and no result"
        fix = "finish it with `tutelage train RECIPE --resume`, or use `tutelage eval` on its model"
        raise RecipeError(Problem("usage/no-results", what, str(run.folder), fix=fix))
    return Results(name, str(run.folder), tasks, heldout, kept, tuple(notes))


def _tasks(run: Run, result: dict[str, Any]) -> dict[str, Scored]:
    """The tasks that were asked while training, as the trained model answered them."""
    lines: dict[str, dict[Key, Line]] = {}
    for line in run.read_lines(JOURNAL, whole=False):
        if line.get("model") == "tuned":
            lines.setdefault(line["task"], {})[line["row"], line["sample"]] = line
    found = {}
    for name, entry in (result.get("tasks") or {}).items():
        if name in lines and "settings" in entry:
            settings, better = entry["settings"], entry["better"]
            health, where = (entry.get("health") or {}).get("tuned"), str(run.folder / JOURNAL)
            found[name] = Scored(name, settings, asdict(GREEDY), better, True, lines[name], health, where)
    return found


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
