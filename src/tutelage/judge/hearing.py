"""Pairs put before a judge, portion by portion; each portion is on disk before the next one is begun."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tutelage.errors import MachineError, Problem, RecipeError
from tutelage.evaluation.subject import Subject
from tutelage.generate.generation import Generation, Prompt
from tutelage.generate.prices import Prices
from tutelage.generate.sampling import GREEDY, Sampling
from tutelage.judge.figures import figures
from tutelage.judge.judgements import LINES, ORDERS, Judgement, Judgements, Order, judgement
from tutelage.judge.labels import Labels
from tutelage.judge.pairs import Material, Pair, material
from tutelage.judge.verdict import reading
from tutelage.judge.wording import Wording
from tutelage.runs import Run
from tutelage.screen import SILENT, Advance, Screen
from tutelage.tasks import Asked
from tutelage.types import Origin

PORTION = 64
"""Judgements that are asked for together."""
MAX_NEW_TOKENS = 1024
"""Longest judgement, so that a judge that thinks first comes to an end."""

Summary = dict[str, Any]


def judge(
    a: str | Path,
    b: str | Path,
    subject: Subject,
    wording: Wording,
    folder: str | Path,
    *,
    rows: int | None = None,
    sampling: Sampling = GREEDY,
    max_new_tokens: int = MAX_NEW_TOKENS,
    labels: Labels | None = None,
    prices: Prices | None = None,
    screen: Screen = SILENT,
) -> Summary:
    """Have the pairs judged that are not judged yet, and sum up; the summary stands in judgement.json, too.

    Raises:
        RecipeError: usage/no-results, usage/not-paired, usage/other-settings, usage/output-exists.
        MachineError: machine/run-in-use; what an endpoint said, where pairs are left without a judgement.
        TutelageError: what is wrong with the judge's model or the rows.
    """
    run = Run(folder, say=screen.say)
    if run.holds_a_run():
        what, fix = "the folder holds a run, and judgements go into one of their own", "name another one with --out"
        raise RecipeError(Problem("usage/output-exists", what, str(folder), fix=fix))
    found = material(a, b)
    with run.locked():
        run.claim()
        return _Hearing(found, subject, wording, run, rows, sampling, max_new_tokens, labels, prices, screen).hold()


class _Hearing:
    """All pairs before one judge."""

    def __init__(
        self,
        found: Material,
        subject: Subject,
        wording: Wording,
        run: Run,
        rows: int | None,
        sampling: Sampling,
        max_new_tokens: int,
        labels: Labels | None,
        prices: Prices | None,
        screen: Screen,
    ) -> None:
        self.material, self.subject, self.wording = found, subject, wording
        self.sampling, self.limit, self.screen = sampling, max_new_tokens, screen
        self.labels, self.prices = labels, prices
        self.chosen = found.chosen(rows)
        self.judgements = Judgements(run)
        self.settings = {
            "judge": subject.settings(),
            "prompt": wording.described(),
            "sampling": asdict(sampling),
            "max_new_tokens": max_new_tokens,
        }
        self.known = self.judgements.known(found.pairs, self.settings)
        self.usage: dict[str, int] = dict(self.judgements.summary().get("usage") or {})
        self.problems: list[Problem] = []

    def hold(self) -> Summary:
        """Ask what is left, and sum up."""
        sent = [pair for pair in self.chosen if not pair.identical]
        left = [(pair, order) for pair in sent for order in ORDERS if (pair.name, order) not in self.known]
        known = 2 * len(sent) - len(left)
        if known:
            self.screen.say(f"keep    {known:,} of {2 * len(sent):,} judgements are there already")
        if left:
            self.judgements.write_summary(self._begun())
            with self.screen.stage("judging", len(left)) as advance:
                for start in range(0, len(left), PORTION):
                    self._ask(left[start : start + PORTION], advance)
                    self.judgements.write_summary(self._begun())
        summary = self._begun() | self._summed("unfinished" if self.problems else "done")
        self.judgements.write_summary(summary)
        if self.problems:
            raise self._unanswered()
        return summary

    def _ask(self, portion: Sequence[tuple[Pair, Order]], advance: Advance) -> None:
        """Both tries of some; one without an answer has no line, and is asked for the next time."""
        used = self.subject.usage()
        first = self._written(portion, again=False, advance=advance)
        unread = [place for place, one in enumerate(first) if _unread(one)]
        second = dict(zip(unread, self._written([portion[place] for place in unread], again=True), strict=True))
        lines = []
        for place, (pair, order) in enumerate(portion):
            tries = [first[place], *([second[place]] if place in second else [])]
            if any(_failed(one) for one in tries):
                self.problems += [one.problem for one in tries if _failed(one) and one.problem is not None][:1]
                continue
            tokens = sum(len(one.input_ids) for one in tries) or None
            raw = tries[-1].text or ""
            lines.append(judgement(pair, order, reading(tries[-1]), raw=raw, tries=len(tries), tokens=tokens))
        self.judgements.add(lines)
        self.known |= {(line.pair, line.order): line for line in lines}
        now = self.subject.usage()
        self.usage = {name: self.usage.get(name, 0) + now[name] - used[name] for name in now}

    def _written(
        self, portion: Sequence[tuple[Pair, Order]], *, again: bool, advance: Advance = lambda done: None
    ) -> list[Generation]:
        if not portion:
            return []
        prompts = [self._prompt(pair, order, again) for pair, order in portion]
        try:
            return self.subject.writer().write(
                prompts, self.sampling, max_new_tokens=self.limit, progress=lambda done: advance(done)
            )
        except MachineError as error:
            # Not one was answered: with the second try, what the first one brought is not lost over it.
            if not again:
                raise
            return [Generation((), False, problem=error.problems[0])] * len(portion)

    def _prompt(self, pair: Pair, order: Order, again: bool) -> Prompt:
        messages = self.wording.messages(pair, swapped=order == "BA", again=again)
        origin = Origin(str(pair.origin.get("file", "")), int(pair.origin.get("line") or 0))
        name = f"{pair.name}/{order}{'/again' if again else ''}"
        return self.subject.prompt(Asked(origin, messages, None, ()), name)

    def _begun(self) -> Summary:
        return {
            "kind": "judgement",
            "status": "unfinished",
            "settings": self.settings,
            "judge": self.subject.name,
            "seed": self.sampling.seed,
            "base": self.material.names[0],
            "other": self.material.names[1],
            "folders": list(self.material.folders),
            "usage": self.usage or None,
            "judgements_file": self.judgements.where,
        }

    def _summed(self, status: str) -> Summary:
        known: Mapping[tuple[str, Order], Judgement] = self.known
        found = figures(self.chosen, known, self.subject.name, self.material.names, self.labels)
        own = [known[pair.name, order] for pair in self.chosen for order in ORDERS if (pair.name, order) in known]
        written = [line.tokens for line in own if line.tokens is not None]
        tokens = {
            "prompt": self.usage.get("prompt_tokens"),
            "completion": self.usage.get("completion_tokens", sum(written) or None),
        }
        cost = None
        if self.prices is not None:
            cost = self.prices.cost(**tokens)
        notes = [*self.material.notes, *found.pop("notes"), *self._cost_notes()]
        return {**found, "status": status, "tokens": tokens, "cost": cost, "notes": notes}

    def _cost_notes(self) -> Iterator[str]:
        untold = self.usage.get("untold")
        if untold:
            yield f"the endpoint did not say how many tokens {untold:,} of its answers took; they are not counted"

    def _unanswered(self) -> MachineError:
        first = self.problems[0]
        what = f"{len(self.problems):,} judgements were not given: {first.what}"
        fix = "the same command asks for these alone; those that are there are kept"
        where = first.where or self.judgements.where
        return MachineError(Problem(first.code, what, where, first.found or f"the others are in {LINES}", fix=fix))


def _failed(answer: Generation) -> bool:
    """Whether a request failed, and may not the next time; an answer that was withheld is one."""
    return answer.problem is not None and answer.text is None


def _unread(answer: Generation) -> bool:
    return not _failed(answer) and reading(answer).said is None
