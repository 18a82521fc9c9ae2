"""A run folder to one frozen `Report`: everything the page shows, read once, with nothing drawn yet.

The folder may be that of a run still in progress: a file that is not there yet is None or empty here, and a
last line that is still being written is left out. Anything else that cannot be read is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tutelage.errors import DataError, Problem, RecipeError
from tutelage.report.contents import (
    Answer,
    Dropped,
    Ledger,
    Measurement,
    Report,
    Row,
    Sample,
    Setting,
    Step,
    Table,
    Turn,
)

_TABLES = ("origins", "environment", "data", "plan", "heldout")
_LINES = ("metrics", "evaluations", "samples", "rows", "suspects", "tasks")


def collect(folder: Path) -> Report:
    """The run in `folder`.

    Raises `RecipeError` when the folder is not a run, `DataError` when one of its files cannot be read.
    """
    if not (folder / "recipe.yaml").is_file():
        raise RecipeError(
            Problem(
                "usage/not-a-run",
                "the folder is not a run",
                where=str(folder),
                found="no `recipe.yaml` in it" if folder.is_dir() else "no such folder",
                fix="name the folder that `tutelage train` wrote, for example `tutelage report runs/NAME`",
            )
        )
    recipe = (folder / "recipe.yaml").read_text(encoding="utf-8", errors="replace")
    options = _options(recipe, folder / "recipe.yaml")
    problems: list[Problem] = []
    tables = {name: _table(folder / f"{name}.json", problems) for name in _TABLES}
    result = _table(folder / "result.json", problems)
    lines = {name: _lines(folder / f"{name}.jsonl", problems) for name in _LINES}
    if problems:
        raise DataError.of(problems)
    data = tables["data"] or {}
    return Report(
        name=folder.resolve().name,
        recipe=recipe,
        options=options,
        given=_given(options, tables["origins"] or {}),
        environment=tables["environment"] or {},
        data=data,
        plan=tables["plan"] or {},
        ledger=read_ledger(data.get("ledger") or (result or {}).get("ledger")),
        steps=_steps(lines["metrics"]),
        measurements=_measurements(lines["evaluations"]),
        samples=_samples(lines["samples"]),
        rows=tuple(map(read_row, lines["rows"])),
        suspects=tuple(lines["suspects"]),
        asked=tuple(lines["tasks"]),
        heldout_rows=frozenset(map(_text, sequence((tables["heldout"] or {}).get("rows")))),
        result=result,
    )


def mapping(value: Any) -> Table:
    """The value when it is an object, otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Table]:
    """The objects in a list; none where the value is no list."""
    return [one for one in sequence(value) if isinstance(one, Mapping)]


def sequence(value: Any) -> Sequence[Any]:
    """The value when it is a list, otherwise an empty one."""
    return value if isinstance(value, list) else ()


def number(value: Any) -> float | None:
    """The value when it is a finite number, otherwise None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -1e300 < value < 1e300 else None


def _options(recipe: str, path: Path) -> Table:
    try:
        options = YAML(typ="safe", pure=True).load(recipe)
    except YAMLError as error:
        raise RecipeError(
            Problem("recipe/bad-yaml", "the run's recipe is not valid YAML", where=str(path), found=str(error))
        ) from error
    return options if isinstance(options, dict) else {}


def _table(path: Path, problems: list[Problem]) -> Table | None:
    """The object in a JSON file, None where there is no file."""
    if not path.is_file():
        return None
    return _object(path.read_text(encoding="utf-8", errors="replace"), str(path), problems)


def _lines(path: Path, problems: list[Problem]) -> list[Table]:
    """The objects of a JSONL file, without a last line that is still being written."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    if not _is_json(lines[-1]):
        lines.pop()
    numbered = ((line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip())
    objects = (_object(line, where, problems) for line, where in numbered)
    return [one for one in objects if one is not None]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _object(text: str, where: str, problems: list[Problem]) -> Table | None:
    try:
        value = json.loads(text)
    except ValueError as error:
        problems.append(Problem("data/bad-json", "a file of the run is not valid JSON", where=where, found=str(error)))
        return None
    if not isinstance(value, dict):
        problems.append(Problem("data/bad-json", "a file of the run does not hold a JSON object", where=where))
        return None
    return value


def _given(options: Table, origins: Table) -> tuple[Setting, ...]:
    given = {option: str(origin) for option, origin in origins.items() if origin != "default"}
    return tuple(Setting(option, _value(options, option), origin) for option, origin in sorted(given.items()))


def _value(options: Any, option: str) -> Any:
    """The value at `data.train.0.path` or `data.train[0].path`; None where the recipe has none."""
    for key in re.findall(r"[^.\[\]]+", option):
        if isinstance(options, list) and key.isdecimal() and int(key) < len(options):
            options = options[int(key)]
        elif isinstance(options, dict):
            options = options.get(key)
        else:
            return None
    return options


def read_ledger(table: Table | None) -> Ledger | None:
    """The ledger as a run folder holds it."""
    if not table:
        return None
    origins = table.get("origins") or {}
    return Ledger(
        rows=int(number(table.get("rows")) or 0),
        trained=int(number(table.get("trained")) or 0),
        heldout=int(number(table.get("heldout")) or 0),
        dropped=tuple(
            Dropped(reason, int(number(rows) or 0), tuple(map(_origin, origins.get(reason) or ())))
            for reason, rows in (table.get("dropped") or {}).items()
        ),
        duplicates=int(number(table.get("duplicates")) or 0),
        notices=tuple(map(str, table.get("notices") or ())),
        examples=table.get("examples") or {},
    )


def _steps(lines: Sequence[Table]) -> tuple[Step, ...]:
    """In order; a step that was written twice, before and after a resume, counts once: the later line."""
    steps = {int(line["step"]): _step(line) for line in lines if number(line.get("step")) is not None}
    return tuple(steps[step] for step in sorted(steps))


def _step(line: Table) -> Step:
    return Step(
        step=int(line["step"]),
        loss=number(line.get("loss")),
        learning_rate=number(line.get("learning_rate")),
        grad_norm=number(line.get("grad_norm")),
        tokens=number(line.get("tokens")),
        supervised_tokens=number(line.get("supervised_tokens")),
        seconds=number(line.get("seconds")),
        peak_memory_bytes=number(line.get("peak_memory_bytes")),
        skipped=bool(line.get("skipped")),
    )


def _measurements(lines: Sequence[Table]) -> tuple[Measurement, ...]:
    """In order of step; of several after one step, the last value of each quantity."""
    names = ("nll", "se", "stop_probability", "general_nll", "kl")
    found: dict[int, dict[str, float | None]] = {}
    for line in lines:
        if number(line.get("step")) is not None:
            known = {name: number(line[name]) for name in names if line.get(name) is not None}
            found.setdefault(int(line["step"]), dict.fromkeys(names)).update(known)
    return tuple(Measurement(step, **found[step]) for step in sorted(found))


def _samples(lines: Sequence[Table]) -> tuple[Sample, ...]:
    """Answers to one prompt joined; of several by the tuned model, the one of the latest step."""
    groups: dict[str, dict[str, Table]] = {}
    for line in sorted(lines, key=lambda line: number(line.get("step")) or 0):
        prompt = json.dumps([line.get("origin"), line.get("messages"), line.get("prompt")], sort_keys=True)
        groups.setdefault(prompt, {})[str(line.get("model"))] = line
    return tuple(_sample(group) for group in groups.values())


def _sample(group: Mapping[str, Table]) -> Sample:
    line = next(iter(group.values()))
    prompt = tuple(Turn(_text(one.get("role")), _text(one.get("content"))) for one in line.get("messages") or ())
    return Sample(
        origin=_origin(line.get("origin")),
        prompt=prompt or (Turn("prompt", _text(line.get("prompt"))),),
        reference=_text(line.get("reference")),
        base=_answer(group.get("base")),
        tuned=_answer(group.get("tuned")),
    )


def _answer(line: Table | None) -> Answer | None:
    if line is None:
        return None
    return Answer(
        text=_text(line.get("answer")),
        step=int(number(line.get("step")) or 0),
        tokens=number(line.get("tokens")),
        stopped=_flag(line.get("stopped")),
        correct=_flag(line.get("correct")),
    )


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def read_row(line: Table) -> Row:
    """A line of `rows.jsonl`."""
    tokens = tuple((_text(text), number(weight) or 0.0) for text, weight in line.get("tokens") or ())
    return Row(_origin(line.get("origin")), _text(line.get("split")), tokens)


def _origin(value: Any) -> str:
    return f"{value.get('file')}:{value.get('line')}" if isinstance(value, dict) else _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
