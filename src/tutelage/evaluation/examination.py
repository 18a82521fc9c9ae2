"""Tasks asked of a model, portion by portion; each portion is on disk before the next one is begun."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tutelage.errors import MachineError, Problem, RecipeError
from tutelage.evaluation.answers import Answers
from tutelage.evaluation.errand import Errand, Row
from tutelage.evaluation.marking import marked
from tutelage.evaluation.subject import Subject
from tutelage.evaluation.summary import summed
from tutelage.generate.sampling import GREEDY, Sampling
from tutelage.runs import Run
from tutelage.scoring.choice import Likelihood
from tutelage.screen import SILENT, Advance, Screen

FIRST, LARGEST = 64, 1024
"""Rows of the first portion, and of any."""
QUICK = 30.0
"""Seconds: after a portion that took fewer, the next one is twice as large."""

Summary = dict[str, Any]


def evaluate(
    subject: Subject,
    errands: Sequence[Errand],
    folder: str | Path,
    sampling: Sampling = GREEDY,
    *,
    limit: int | None = None,
    screen: Screen = SILENT,
) -> list[Summary]:
    """Ask what is not answered yet, and sum up what the folder then holds; each summary stands in TASK.json, too.

    Raises:
        RecipeError: usage/other-settings, where the folder holds answers that were made otherwise;
            usage/output-exists, where it holds a run, or a file that is no result.
        MachineError: machine/run-in-use; what an endpoint said, where rows are left without an answer.
        TutelageError: what is wrong with the model or the rows.
    """
    run = Run(folder, say=screen.say)
    if run.holds_a_run():
        what, fix = "the folder holds a run, and results go into one of their own", "name another one with --out"
        raise RecipeError(Problem("usage/output-exists", what, str(folder), fix=fix))
    made: list[Summary] = []
    problems: list[Problem] = []
    with run.locked():
        run.claim()
        asked = [_Examination(subject, errand, run, sampling, limit) for errand in errands]
        for one in asked:
            one.look()
        for one in asked:
            made.append(one.finish(screen))
            problems += one.problems
    if problems:
        raise _unanswered(problems, made, run)
    return made


class _Examination:
    """One task."""

    def __init__(self, subject: Subject, errand: Errand, run: Run, sampling: Sampling, limit: int | None) -> None:
        self.subject, self.errand, self.sampling = subject, errand, sampling
        self.rated = isinstance(errand.task.scorer, Likelihood)
        self.answers = Answers(run, errand.stem)
        self.settings = {
            "task": errand.task.described(),
            "model": subject.settings(),
            # What compares likelihoods draws nothing.
            "sampling": asdict(GREEDY if self.rated else sampling),
        }
        self.chosen = errand.chosen(limit)
        self.left: list[Row] = []
        self.problems: list[Problem] = []
        self.before: Summary = {}

    def look(self) -> None:
        """Find out what is left to ask, and refuse what cannot be done before anything is asked."""
        samples = 1 if self.rated else self.sampling.samples
        done = self.answers.answered(self.errand.rows, samples, self.settings)
        self.before = self.answers.summary()
        self.left = [row for row in self.chosen if row.name not in done]
        if self.left and not self.rated:
            self.errand.task.scorer.mark("", self.left[0].asked.reference)

    def finish(self, screen: Screen) -> Summary:
        """Ask what is left."""
        name = self.errand.task.name
        if self.errand.note:
            screen.say(f"note    {name}: {self.errand.note}")
        known = len(self.chosen) - len(self.left)
        if known:
            screen.say(f"keep    {name}: {known:,} of {len(self.chosen):,} rows are answered already")
        if not self.left:
            return self._write("done", dict(self.before.get("model") or {}))
        self._write("unfinished", {})
        with screen.stage(name, len(self.left) * (1 if self.rated else self.sampling.samples)) as advance:
            self._ask(advance)
        return self._write("unfinished" if self.problems else "done", self.subject.described())

    def _ask(self, advance: Advance) -> None:
        size, place = FIRST, 0
        while place < len(self.left):
            began, used = time.perf_counter(), self.subject.usage()
            portion = self.left[place : place + size]
            lines, problems = marked(self.subject, self.errand.task, portion, self.sampling, lambda done: advance(done))
            self.answers.add(lines)
            self.problems += problems
            seconds = time.perf_counter() - began
            self._count(seconds, used)
            self._write("unfinished", {})
            place += len(portion)
            size = min(size * 2, LARGEST) if seconds < QUICK else size

    def _count(self, seconds: float, used: Mapping[str, int]) -> None:
        """Add to what earlier portions took, also those of a process that was killed."""
        self.before["seconds"] = (self.before.get("seconds") or 0.0) + seconds
        before = self.before.get("usage") or {}
        now = self.subject.usage()
        self.before["usage"] = {name: before.get(name, 0) + now[name] - used[name] for name in now}

    def _write(self, status: str, model: dict[str, Any]) -> Summary:
        task = self.errand.task
        found = summed(self.answers.lines()) if model or status == "done" else {}
        seconds, usage = self.before.get("seconds"), self.before.get("usage") or {}
        tokens = found.pop("tokens", None) or usage.get("completion_tokens")
        summary = {
            "kind": "evaluation",
            "status": status,
            "task": task.name,
            "version": task.version,
            "wording": task.described()["wording"],
            "metric": task.scorer.kind,
            "better": task.better,
            **found,
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_second": tokens / seconds if tokens and seconds else None,
            "unanswered": len(self.problems),
            "asked": len(self.chosen),
            "data": self.errand.data,
            "name": self.subject.name,
            "model": model,
            "usage": usage or None,
            "sampling": self.settings["sampling"],
            "settings": self.settings,
            "answers_file": self.answers.where,
            "note": self.errand.note,
        }
        self.answers.write_summary(summary)
        return summary


def _unanswered(problems: Sequence[Problem], made: Sequence[Summary], run: Run) -> MachineError:
    first = problems[0]
    answered = sum(summary.get("n") or 0 for summary in made)
    what = f"{len(problems):,} rows were not answered: {first.what}"
    found = first.found or f"{answered:,} rows are answered"
    fix = "the same command asks for these rows alone; those that are answered are kept"
    return MachineError(Problem(first.code, what, first.where or str(run.folder), found, fix=fix))
