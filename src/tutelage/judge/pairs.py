"""What is judged: a request with the answers of two models, from results of `tutelage eval` or from runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import Problem, RecipeError
from tutelage.evaluate.summary import draw
from tutelage.evaluation.results import labels, results
from tutelage.runs import Run

HELDOUT = "held-out answers"
"""The name of the task whose rows a run holds out."""

Key = tuple[str, int]
Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one request."""

    task: str
    row: str
    sample: int
    draw: str
    """What the answers are a draw of: a prompt, or a cluster of rows."""
    origin: Mapping[str, Any]
    request: str
    reference: str
    a: str
    b: str

    @property
    def name(self) -> str:
        """The name that its judgements go by."""
        return f"{self.task}/{self.row}/{self.sample}"

    @property
    def digest(self) -> str:
        """Of all that a judge could be shown, and of whose answer is which."""
        return _hash([self.request, self.reference, self.a, self.b])

    @property
    def mark(self) -> str:
        """What its parts stand between, whichever answer comes first; no text can hold a hash of itself."""
        return _hash([self.request, self.reference, *sorted((self.a, self.b))])[:12]

    @property
    def identical(self) -> bool:
        """Whether there is nothing to choose from: the answers differ by white space at their ends at most."""
        return self.a.strip() == self.b.strip()


@dataclass(frozen=True, slots=True)
class Material:
    """All pairs of two folders."""

    names: tuple[str, str]
    folders: tuple[str, str]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    def chosen(self, rows: int | None, seed: int = 0) -> tuple[Pair, ...]:
        """At most so many of each task, those with the lowest hashes: a higher number only adds some."""
        if rows is None:
            return self.pairs
        taken: set[str] = set()
        for task in dict.fromkeys(pair.task for pair in self.pairs):
            own = sorted((pair for pair in self.pairs if pair.task == task), key=lambda pair: _rank(seed, pair))
            taken |= {pair.name for pair in own[:rows]}
        return tuple(pair for pair in self.pairs if pair.name in taken)


def material(a: str | Path, b: str | Path) -> Material:
    """The pairs of two folders; of a run that is named twice, its base model's answers and the trained one's.

    Raises:
        RecipeError: usage/no-results; usage/not-paired, where the rows are not the same.
        DataError, ModelError: what cannot be read.
    """
    folders = (str(a), str(b))
    if Path(a).resolve() == Path(b).resolve() and Run(a).holds_a_run():
        name = Path(a).resolve().name
        sides = [_samples(Run(a), "base"), _samples(Run(a), "tuned")]
        return _paired((f"{name} before", f"{name} after"), folders, sides, [])
    names = labels(folders) if Path(a).resolve() != Path(b).resolve() else [f"{a} (1)", f"{b} (2)"]
    notes: list[str] = []
    both = [_answers(folder, name, notes) for folder, name in zip(folders, names, strict=True)]
    return _paired((names[0], names[1]), folders, both, notes)


def _answers(folder: str, name: str, notes: list[str]) -> dict[str, dict[Key, Line]]:
    """By task and row; a task of which no answer was written by a model has nothing to be judged."""
    if Run(folder).holds_a_run():
        return _samples(Run(folder), "tuned")
    tasks: dict[str, dict[Key, Line]] = {}
    for task, scored in results(folder, name).tasks.items():
        if scored.lines and all(line.get("health") is None for line in scored.lines.values()):
            notes.append(f"not judged, because its answers are chosen, or lm-eval's: {task} of {name}")
            continue
        if not scored.finished:
            notes.append(f"{task} of {name} did not come to an end")
        tasks[task] = dict(scored.lines)
    return tasks


def _samples(run: Run, model: str) -> dict[str, dict[Key, Line]]:
    """The last answers of a run to its held-out rows, by a model of it."""
    samples = [line for line in run.read_lines("samples.jsonl", whole=False) if line.get("model") == model]
    if not samples:
        of = "its base model" if model == "base" else "its trained model"
        what, fix = f"the run holds no answers of {of}", "finish it, with `evaluate.samples` above 0"
        raise RecipeError(Problem("usage/no-results", what, str(run.folder), fix=fix))
    last = max(line["step"] for line in samples)
    lines: dict[Key, Line] = {}
    times: dict[str, int] = {}
    for line in samples:
        if line["step"] != last:
            continue
        asked = line["messages"] or [{"role": "prompt", "content": line["prompt"]}]
        row = _hash([asked, line["reference"]])[:16]
        times[row] = times.get(row, -1) + 1
        lines[row, times[row]] = {**line, "row": row, "sample": times[row], "prompt": row, "asked": asked}
    return {HELDOUT: lines}


def _paired(
    names: tuple[str, str],
    folders: tuple[str, str],
    sides: Sequence[Mapping[str, Mapping[Key, Line]]],
    notes: Sequence[str],
) -> Material:
    one, two = sides
    shared = [task for task in one if task in two]
    said = [*notes]
    for mine, theirs, name in ((one, two, names[1]), (two, one, names[0])):
        missing = [task for task in mine if task not in theirs]
        if missing:
            said.append(f"not judged, because {name} does not have them: {', '.join(missing)}")
    pairs = [pair for task in shared for pair in _of_task(task, one[task], two[task], names)]
    if not pairs:
        found = "; ".join(f"{name}: {', '.join(side) or 'none'}" for name, side in zip(names, sides, strict=True))
        what, fix = "the folders have no answers to the same task", "tutelage eval MODEL --task TASK, for each model"
        raise RecipeError(Problem("usage/not-paired", what, found=found, fix=fix))
    return Material(names, folders, tuple(pairs), tuple(dict.fromkeys(said)))


def _of_task(task: str, one: Mapping[Key, Line], two: Mapping[Key, Line], names: tuple[str, str]) -> Iterator[Pair]:
    same = [key for key in one if key in two and one[key]["prompt"] == two[key]["prompt"]]
    if len(same) < max(len(one), len(two)):
        found = f"{names[0]} has {len(one):,} answers, {names[1]} has {len(two):,}; {len(same):,} are to the same rows"
        what, why = f"`{task}` was not asked of the same rows", "which of two answers is better takes one request"
        fix = "evaluate both on the same rows: the same task, --data and --limit"
        raise RecipeError(Problem("usage/not-paired", what, found=found, why=why, fix=fix))
    for key in same:
        line = one[key]
        yield Pair(
            task=task,
            row=key[0],
            sample=key[1],
            draw=draw(line),
            origin=line.get("origin") or {},
            request=_request(line["asked"]),
            reference=_text(line.get("reference")),
            a=_text(line.get("answer")),
            b=_text(two[key].get("answer")),
        )


def _request(asked: Sequence[Mapping[str, Any]]) -> str:
    """The turns as text; a single one without its role."""
    if len(asked) == 1:
        return _text(asked[0].get("content"))
    return "\n\n".join(f"[{turn.get('role')}]\n{_text(turn.get('content'))}" for turn in asked)


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _rank(seed: int, pair: Pair) -> str:
    return _hash([seed, pair.task, pair.row])


def _hash(value: Any) -> str:
    whole = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
