"""Some rows of a task asked and marked: a line for each answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

from tutelage.errors import DataError, ModelError, Problem
from tutelage.generate.generation import Generation, Progress, Prompt, Writer
from tutelage.generate.sampling import Sampling
from tutelage.scoring.choice import Likelihood, Option
from tutelage.scoring.health import Expects, health
from tutelage.scoring.mark import Mark, Scored
from tutelage.scoring.structured import Json, unfenced
from tutelage.tasks.asked import Asked
from tutelage.tasks.errand import Row
from tutelage.tasks.task import Task

Line = dict[str, Any]


class Answering(Protocol):
    """What is asked."""

    def writer(self) -> Writer:
        """What answers."""
        ...

    def prompt(self, asked: Asked, name: str) -> Prompt:
        """What it is asked."""
        ...

    def continuations(self, asked: Asked) -> list[tuple[int, ...]]:
        """The options of a row as tokens that follow its prompt."""
        ...


def marked(
    subject: Answering, task: Task, rows: Sequence[Row], sampling: Sampling, progress: Progress
) -> tuple[list[Line], list[Problem]]:
    """The lines of these rows, and why some of them have none.

    A line depends on its row, the model and the sampling alone. A row of which one answer is missing has no line.

    Raises:
        TutelageError: what the model, the endpoint or the scorer cannot do.
    """
    try:
        if isinstance(task.scorer, Likelihood):
            return _rated(subject, task.scorer, rows, progress), []
        prompts = [subject.prompt(row.asked, row.name) for row in rows]
        plain = any(isinstance(prompt.content, str) for prompt in prompts)
        answers = subject.writer().write(
            prompts, sampling, max_new_tokens=task.max_new_tokens, stop=task.stops(plain=plain), progress=progress
        )
    except (DataError, ModelError) as error:
        raise type(error).of([_located(problem, rows) for problem in error.problems]) from None
    lines: list[Line] = []
    problems: list[Problem] = []
    for place, row in enumerate(rows):
        own = answers[place * sampling.samples : (place + 1) * sampling.samples]
        # Without a text the request failed, and the next try may not; an answer that was withheld is an answer.
        failed = [one.problem for one in own if one.problem is not None and one.text is None]
        problems += failed[:1]
        if not failed:
            lines += [_line(task, row, sample, answer, plain) for sample, answer in enumerate(own)]
    return lines, problems


def _located(problem: Problem, rows: Sequence[Row]) -> Problem:
    """The same of a row's place, where it speaks of the row's name or of its number among those asked together."""
    name = problem.where.removeprefix("prompt ")
    origins = {key: row.asked.origin for place, row in enumerate(rows) for key in (row.name, str(place))}
    return replace(problem, where=str(origins[name])) if name in origins else problem


def _line(task: Task, row: Row, sample: int, answer: Generation, plain: bool) -> Line:
    text = task.cut(answer.text or "", plain=plain)
    mark = task.scorer.mark(text, row.asked.reference)
    if answer.problem is not None:
        mark = Mark(0.0, None, answer.problem.what)
    looked = health(text, stopped=answer.stopped, expects=_expects(task.scorer, text))
    tokens = len(answer.logprobs) or len(answer.input_ids) or None
    return {
        **_beginning(row, sample),
        "answer": text,
        **_marked(mark),
        "stopped": answer.stopped,
        "cut_at_text": _at_text(answer) if answer.stopped else False,
        "tokens": tokens,
        "logprob": sum(answer.logprobs) if answer.logprobs else None,
        "health": asdict(looked),
    }


def _rated(subject: Answering, scorer: Likelihood, rows: Sequence[Row], progress: Progress) -> list[Line]:
    options = [subject.continuations(row.asked) for row in rows]
    prompts = [subject.prompt(row.asked, row.name) for row in rows]
    found = subject.writer().likelihoods(prompts, options, progress=progress)
    lines = []
    for row, rated in zip(rows, found, strict=True):
        given = [Option(text, one.sum, len(one.logprobs)) for text, one in zip(row.asked.options, rated, strict=True)]
        mark = scorer.mark_options(given, row.asked.reference)
        best = next((one for one in given if one.text == mark.found), None)
        line = {**_beginning(row, 0), "answer": mark.found, **_marked(mark)}
        line |= {"stopped": None, "cut_at_text": None, "tokens": None, "health": None}
        lines.append(line | {"logprob": None if best is None else best.logprob})
    return lines


def _beginning(row: Row, sample: int) -> Line:
    origin = row.asked.origin
    return {
        "row": row.name,
        "sample": sample,
        "prompt": row.prompt,
        "origin": {"file": origin.file, "line": origin.line},
        "asked": [{"role": message.role, "content": message.content} for message in row.own],
        "reference": row.asked.reference,
        "hinted": row.hinted,
        **({} if row.asked.cluster is None else {"cluster": row.asked.cluster}),
    }


def _marked(mark: Mark) -> dict[str, Any]:
    return {"score": mark.score, "found": mark.found, "why": mark.why, "parts": dict(mark.parts)}


def _at_text(answer: Generation) -> bool | None:
    """Whether a stop text ended it and no stop token did; None where an endpoint does not tell."""
    if not answer.input_ids and not answer.logprobs:
        return None
    return len(answer.logprobs) == len(answer.input_ids)


def _expects(scorer: Scored, answer: str) -> Expects:
    if not isinstance(scorer, Json):
        return "text"
    fenced = scorer.fence == "require" or (scorer.fence == "allow" and unfenced(answer) is not None)
    return "fenced json" if fenced else "json"
