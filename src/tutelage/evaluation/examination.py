"""Tasks asked of a model, portion by portion; each portion is on disk before the next one is begun."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tutelage.errors import MachineError, Problem, RecipeError
from tutelage.evaluate.summary import spread, summed
from tutelage.evaluation.answers import Answers
from tutelage.evaluation.crew import Asking, asking
from tutelage.evaluation.subject import Subject
from tutelage.generate.sampling import GREEDY, Sampling
from tutelage.runs import Run
from tutelage.scoring.choice import Likelihood
from tutelage.screen import SILENT, Advance, Screen
from tutelage.tasks.errand import Errand, Row

Summary = dict[str, Any]


def evaluate(
    subject: Subject,
    errands: Sequence[Errand],
    folder: str | Path,
    sampling: Sampling = GREEDY,
    *,
    limit: int | None = None,
    screen: Screen = SILENT,
    processes: int = 1,
) -> list[Summary]:
    """Ask what is not answered yet, and sum up what the folder then holds; each summary stands in TASK.json, too.

    With several `processes`, each asks a share of the rows; what is written is the same.

    Raises:
        RecipeError: usage/other-settings, where the folder holds answers that were made otherwise;
            usage/output-exists, where it holds a run, or a file that is no result.
        WorkerError: worker/lost, where one of several processes died.
        MachineError: machine/run-in-use; what an endpoint said, where rows are left without an answer.
        TutelageError: what is wrong with the model or the rows.
    """
    run = Run(folder, say=screen.say)
    if run.holds_a_run():
        what, fix = "the folder holds a run, and results go into one of their own", "name another one with --out"
        raise RecipeError(Problem("usage/output-exists", what, str(folder), fix=fix))
    made: list[Summary] = []
    problems: list[Problem] = []
    with run.locked(), contextlib.closing(asking(subject, processes)) as crew:
        run.claim()
        asked = [_Examination(subject, crew, errand, run, sampling, limit) for errand in errands]
        for one in asked:
            one.look()
        for one in asked:
            made.append(one.finish(screen))
            problems += one.problems
        for own in asked:
            several = [one for one in asked if one.errand.task.name == own.errand.task.name]
            if own.errand.format == 1 and len(several) > 1:
                made[asked.index(own)] = own.add_spread(several)
    if problems:
        raise _unanswered(problems, made, run)
    return made


class _Examination:
    """One task."""

    def __init__(
        self, subject: Subject, crew: Asking, errand: Errand, run: Run, sampling: Sampling, limit: int | None
    ) -> None:
        self.subject, self.crew, self.errand, self.sampling = subject, crew, errand, sampling
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
        self.more = 0
        """Rows that are answered in the folder, and that are not asked for now."""
        self.problems: list[Problem] = []
        self.before: Summary = {}

    def look(self) -> None:
        """Find out what is left to ask, and refuse what cannot be done before anything is asked."""
        samples = 1 if self.rated else self.sampling.samples
        done = self.answers.answered(self.errand.rows, samples, self.settings)
        self.before = self.answers.summary()
        self.left = [row for row in self.chosen if row.name not in done]
        self.more = len(done - {row.name for row in self.chosen})
        if self.left and not self.rated:
            self.errand.task.scorer.mark("", self.left[0].asked.reference)

    def finish(self, screen: Screen) -> Summary:
        """Ask what is left."""
        name = self.errand.task.name + (f", wording {self.errand.format}" if self.errand.format > 1 else "")
        if self.errand.note:
            screen.say(f"note    {name}: {self.errand.note}")
        known = len(self.chosen) - len(self.left)
        if known:
            screen.say(f"keep    {name}: {known:,} of {len(self.chosen):,} rows are answered already")
        if self.more:
            screen.say(f"note    {name}: {self._counted()}")
        if not self.left:
            # A process that was killed after its last answer has not said what answered.
            return self._write("done", dict(self.before.get("model") or self.subject.described()))
        self._write("unfinished", {})
        with screen.stage(name, len(self.left) * (1 if self.rated else self.sampling.samples)) as advance:
            self._ask(advance)
        self.answers.arrange(row.name for row in self.errand.rows)
        return self._write("unfinished" if self.problems else "done", self.crew.described())

    def add_spread(self, several: Sequence[_Examination]) -> Summary:
        """Say in the summary of a task what its other wordings came to."""
        summary = {**self.answers.summary(), "formats": spread([(one.errand, one.answers.lines()) for one in several])}
        self.answers.write_summary(summary)
        return summary

    def _counted(self) -> str:
        return f"{self.more:,} more rows are answered in the folder than are asked for now; all are counted"

    def _ask(self, advance: Advance) -> None:
        began, used = time.perf_counter(), self.subject.usage()
        for lines, problems in self.crew.ask(self.errand.task, self.left, self.sampling, advance):
            self.answers.add(lines)
            self.problems += problems
            self._count(time.perf_counter() - began, used)
            self._write("unfinished", {})
            began, used = time.perf_counter(), self.subject.usage()

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
            "format": self.errand.format,
            "version": task.version,
            "wording": task.described()["wording"],
            "metric": task.scorer.kind,
            "better": task.better,
            **found,
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_second": tokens / seconds if tokens and seconds else None,
            "unanswered": len(self.problems),
            "asked": len(self.chosen) + self.more,
            "data": self.errand.data,
            "name": self.subject.name,
            "model": model,
            "usage": usage or None,
            "sampling": self.settings["sampling"],
            "settings": self.settings,
            "answers_file": self.answers.where,
            "note": "; ".join(filter(None, (self.errand.note, self._counted() if self.more else ""))),
        }
        formats = self.before.get("formats")
        if formats and found.get("n") == formats["rows"]:  # What other wordings came to still holds.
            summary["formats"] = formats
        self.answers.write_summary(summary)
        return summary


def _unanswered(problems: Sequence[Problem], made: Sequence[Summary], run: Run) -> MachineError:
    first = problems[0]
    answered = sum(summary.get("n") or 0 for summary in made)
    what = f"{len(problems):,} rows were not answered: {first.what}"
    found = first.found or f"{answered:,} rows are answered"
    fix = "the same command asks for these rows alone; those that are answered are kept"
    return MachineError(Problem(first.code, what, first.where or str(run.folder), found, fix=fix))
