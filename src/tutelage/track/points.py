"""What is sent: numbers at a step, named after the file they come from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tutelage.runs import Run
from tutelage.track.lines import Lines


@dataclass(frozen=True, slots=True)
class Point:
    """Numbers at a step; their names begin with the stream's."""

    stream: str
    step: int
    values: Mapping[str, float]

    def beyond(self, held: Mapping[str, int]) -> Point:
        """Without what the tracker holds already: of this stream, or of single names, up to a step each."""
        if held.get(self.stream, -1) >= self.step:
            return replace(self, values={})
        return replace(self, values={k: v for k, v in self.values.items() if held.get(k, -1) < self.step})


class Stream:
    """One file of the run as points, in the order of their steps, each given once."""

    def __init__(self, name: str, run: Run, file: str) -> None:
        self.name = name
        self._lines = Lines(run.folder / file)

    def rewind(self) -> None:
        """Begin again at the first line."""
        self._lines.rewind()

    def new(self) -> Iterator[Point]:
        """The points of the lines that were added."""
        for line in self._lines.new():
            if isinstance(step := line.get("step"), int):
                yield Point(self.name, step, numbers(line, self.name))


def streams(run: Run) -> list[Stream]:
    """What a run writes down step by step."""
    return [Stream("train", run, "metrics.jsonl"), Stream("heldout", run, "evaluations.jsonl")]


def outcome(result: Mapping[str, Any]) -> Point | None:
    """The numbers of a finished run's `result.json`; None where it did not get as far as the last measurement."""
    if result.get("status") != "done":
        return None
    parts = {"heldout": result.get("heldout"), "tasks": result.get("tasks")}
    whole = {**result, **{name: part for name, part in parts.items() if isinstance(part, dict)}}
    return Point("result", int(result.get("steps") or 0), numbers(whole, "result"))


def numbers(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The finite numbers by name; a value that is not one was written as null, and is left out here as well."""
    found: dict[str, float] = {}
    for key, value in values.items():
        name = f"{prefix}/{key}"
        if isinstance(value, dict):
            found |= numbers(value, name)
        elif isinstance(value, int | float) and math.isfinite(value) and key != "step":
            found[name] = float(value)
    return found
