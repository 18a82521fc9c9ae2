"""The judgements in a folder: one a line, as they come, and beside them the settings of all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from tutelage.errors import DataError, Problem, RecipeError
from tutelage.evaluation.answers import changes_of
from tutelage.files import ends_whole, strict
from tutelage.judge.pairs import Pair
from tutelage.judge.verdict import RAW, Reading
from tutelage.runs import Run

LINES, SUMMARY = "judgements.jsonl", "judgement.json"

Order = Literal["AB", "BA"]
"""Whose answer comes first."""
ORDERS: tuple[Order, ...] = ("AB", "BA")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the judge said of a pair in one order."""

    pair: str
    task: str
    row: str
    sample: int
    digest: str
    """Of what was judged."""
    order: Order
    verdict: str | None
    """`A`, `B` or `tie`, whatever the order was; None where it cannot be read."""
    said: str | None
    """`1`, `2` or `tie`."""
    reason: str
    why: str
    """Why there is no verdict."""
    tries: int
    tokens: int | None
    """That the judge wrote, where a model in this process did."""
    raw: str
    """What it wrote in the last try, cut."""


def judgement(pair: Pair, order: Order, reading: Reading, *, raw: str, tries: int, tokens: int | None) -> Judgement:
    """The line for a reading."""
    verdict = reading.said if reading.said in (None, "tie") else order[int(reading.said or 1) - 1]
    return Judgement(
        pair=pair.name,
        task=pair.task,
        row=pair.row,
        sample=pair.sample,
        digest=pair.digest,
        order=order,
        verdict=verdict,
        said=reading.said,
        reason=reading.reason,
        why=reading.why,
        tries=tries,
        tokens=tokens,
        raw=raw[:RAW],
    )


class Judgements:
    """What is there."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.where = str(run.folder / LINES)

    def summary(self) -> dict[str, Any]:
        """What was written beside the lines; empty where nothing was.

        Raises:
            ModelError: checkpoint/unreadable. RecipeError: usage/output-exists, for a file that is something else.
        """
        found = self._run.read_json(SUMMARY)
        if found is not None and not (isinstance(found, dict) and found.get("kind") == "judgement"):
            what, where = "the file is no summary of `tutelage judge`", str(self._run.folder / SUMMARY)
            raise RecipeError(Problem("usage/output-exists", what, where, fix="name another folder with --out"))
        return dict(found or {})

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write it, whole or not at all."""
        self._run.write_json(SUMMARY, summary)

    def add(self, lines: Sequence[Judgement]) -> None:
        """Add lines, all of them or none."""
        self._run.append(LINES, [asdict(line) for line in lines])

    def known(self, pairs: Sequence[Pair], settings: Mapping[str, Any]) -> dict[tuple[str, Order], Judgement]:
        """The judgements of these pairs that are there; a last line that was cut short is removed.

        Raises:
            RecipeError: usage/other-settings, where what is there was made otherwise, or is of other answers.
            DataError: data/bad-json.
        """
        lines = list(self._read())
        before = self.summary().get("settings")
        fix = "name another folder with --out, or remove this one"
        if before is None and lines:
            what = "the folder holds judgements, and not the settings that they were made with"
            raise _other(what, self.where, f"no {SUMMARY} beside it", fix)
        changes = (
            list(changes_of(before, strict(dict(settings)), partial(json.dumps, ensure_ascii=False))) if before else []
        )
        if changes:
            raise _other(
                "the judgements in this folder were made with other settings", self.where, "\n".join(changes), fix
            )
        digests = {pair.name: pair.digest for pair in pairs}
        strangers = sum(digests.get(line.pair) != line.digest for line in lines)
        if strangers:
            found = f"{strangers:,} of {len(lines):,} are of answers that are not those of the folders named"
            raise _other("the judgements in this folder are of other answers", self.where, found, fix)
        if not ends_whole(self._run.folder / LINES):
            self._run.write_lines(LINES, (asdict(line) for line in lines))
        return {(line.pair, line.order): line for line in lines}

    def _read(self) -> Iterator[Judgement]:
        path = self._run.folder / LINES
        if not path.is_file():
            return
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, text in enumerate(file, start=1):
                try:
                    yield Judgement(**json.loads(text))
                except (ValueError, TypeError) as error:
                    if not text.endswith("\n"):
                        return
                    what, fix = "a line of the judgements is damaged", "bring the file back, or remove it"
                    where = f"{path}:{number}"
                    raise DataError(Problem("data/bad-json", what, where, found=str(error), fix=fix)) from error


def _other(what: str, where: str, found: str, fix: str) -> RecipeError:
    why = "a share over judgements that were made in two ways is the opinion of neither judge"
    return RecipeError(Problem("usage/other-settings", what, where, found, why, fix))
