"""The files of one task's results: an answer a line as it comes, and beside them the settings of all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tutelage.errors import DataError, Problem, RecipeError
from tutelage.files import ends_whole, strict
from tutelage.runs import Run
from tutelage.tasks.errand import Row
from tutelage.tasks.marking import Line


class Answers:
    """What is there of one task in a folder."""

    def __init__(self, folder: Run, stem: str) -> None:
        self._folder = folder
        self.file, self.summary_file = f"{stem}.jsonl", f"{stem}.json"

    @property
    def where(self) -> str:
        """The path of the lines."""
        return str(self._folder.folder / self.file)

    def summary(self) -> dict[str, Any]:
        """What was written beside the lines; empty where nothing was.

        Raises:
            ModelError: checkpoint/unreadable. RecipeError: usage/output-exists, for a file that is something else.
        """
        found = self._folder.read_json(self.summary_file)
        if found is not None and not (isinstance(found, dict) and found.get("kind") == "evaluation"):
            what, where = "the file is no summary of `tutelage eval`", str(self._folder.folder / self.summary_file)
            fix = "name another folder with --out"
            raise RecipeError(Problem("usage/output-exists", what, where, fix=fix))
        return dict(found or {})

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write it, whole or not at all."""
        self._folder.write_json(self.summary_file, summary)

    def add(self, lines: Sequence[Line]) -> None:
        """Add lines, all of them or none."""
        self._folder.append(self.file, lines)

    def lines(self) -> Iterator[Line]:
        """Every line, one at a time; what a killed process left of its last one is passed over.

        Raises:
            DataError: data/bad-json, for any other line that is none.
        """
        path = self._folder.folder / self.file
        if not path.is_file():
            return
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, text in enumerate(file, start=1):
                try:
                    line = json.loads(text)
                    yield {"row": line["row"], "sample": line["sample"], "prompt": line["prompt"], **line}
                except (ValueError, KeyError, TypeError) as error:
                    if not text.endswith("\n"):
                        return
                    what, fix = "a line of the results is damaged", "bring the file back, or remove it and ask again"
                    where = f"{path}:{number}"
                    raise DataError(Problem("data/bad-json", what, where, found=str(error), fix=fix)) from error

    def answered(self, rows: Sequence[Row], samples: int, settings: Mapping[str, Any]) -> set[str]:
        """The rows of these that are answered already; what is there of an answer that was cut short is removed.

        Raises:
            RecipeError: usage/other-settings, where what is there was made otherwise.
            DataError: data/bad-json.
        """
        known = {row.name: row for row in rows}
        found: dict[str, int] = {}
        strangers, reworded = 0, 0
        for line in self.lines():
            row = known.get(line["row"])
            strangers += row is None
            reworded += row is not None and row.prompt != line["prompt"]
            found[line["row"]] = found.get(line["row"], 0) + 1
        self._refuse(settings, found, strangers, reworded)
        done = {name for name, times in found.items() if times == samples}
        if len(done) < len(found) or not ends_whole(self._folder.folder / self.file):
            self._folder.write_lines(self.file, (line for line in list(self.lines()) if line["row"] in done))
        return done

    def arrange(self, names: Iterable[str]) -> None:
        """Put the lines into the order of the rows, whoever wrote them when; rows of other names come last."""
        place = {name: number for number, name in enumerate(names)}
        keys = [(place.get(line["row"], len(place)), line["sample"]) for line in self.lines()]
        order = sorted(range(len(keys)), key=lambda number: keys[number])
        if order != list(range(len(keys))):
            # Parted at line feeds alone: what a model wrote may hold other signs that end a line elsewhere.
            lines = (self._folder.folder / self.file).read_text("utf-8").split("\n")
            self._folder.write_text(self.file, "".join(f"{lines[number]}\n" for number in order))

    def _refuse(self, settings: Mapping[str, Any], found: Mapping[str, int], strangers: int, reworded: int) -> None:
        before = self.summary().get("settings")
        fix = "name another folder with --out, or remove the files of this task"
        if before is None and found:
            what = "the folder holds answers, and not the settings that they were made with"
            raise _other(what, self.where, f"no {self.summary_file} beside it", fix)
        changes = list(changes_of(before or {}, strict(dict(settings)), _shown)) if before else []
        if changes:
            what = "the answers in this folder were made with other settings"
            raise _other(what, self.where, "\n".join(changes), fix)
        if strangers or reworded:
            told = [f"{strangers:,} answers to rows that are not among those asked now"] if strangers else []
            told += [f"{reworded:,} answers to rows that were asked in other words"] if reworded else []
            raise _other("the answers in this folder are to other rows", self.where, "; ".join(told), fix)


def _other(what: str, where: str, found: str, fix: str) -> RecipeError:
    why = "a mean over answers that were made in two ways is the score of neither"
    return RecipeError(Problem("usage/other-settings", what, where, found, why, fix))


def changes_of(before: Any, now: Any, shown: Callable[[Any], str], name: str = "") -> Iterator[str]:
    """What differs between two settings, by name."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from changes_of(before.get(key), now.get(key), shown, f"{name}.{key}" if name else str(key))
    elif before != now:
        yield f"{name}: {shown(before)} there, {shown(now)} now"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
