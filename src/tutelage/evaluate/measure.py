"""One measurement of a model, before, during or after training: held-out loss and answers, written down."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.data.dataset import Dataset
from tutelage.data.encode import Encoder
from tutelage.data.encode.tokenizer import Tokenizer
from tutelage.data.examples import Examples
from tutelage.evaluate.anatomy import Anatomy
from tutelage.evaluate.asking import Examined, examine
from tutelage.evaluate.breakdown import stop_probability
from tutelage.evaluate.canaries import Planted
from tutelage.evaluate.course import standard_error
from tutelage.evaluate.drift import Drift, Reference, drift
from tutelage.evaluate.general import General
from tutelage.evaluate.heldout import HeldoutLoss, heldout_loss
from tutelage.evaluate.journal import describe, line
from tutelage.evaluate.knowledge import knowledge
from tutelage.evaluate.samples import Answered, Question, ask, questions
from tutelage.generate.engine import Answer
from tutelage.models.adapters import base_of, own_stop_ids
from tutelage.models.forward import Forward
from tutelage.models.precision import Precision, computing
from tutelage.recipe import EvaluateOptions
from tutelage.runs import Run
from tutelage.scoring.exact import SCORERS
from tutelage.screen import Screen
from tutelage.tasks.errand import Errand

if TYPE_CHECKING:
    from tutelage.train.ranks import Ranks

NOTHING = HeldoutLoss(np.zeros(0), np.zeros(0), 0)
ROUNDED = 64
"""Held-out examples on which the effect of approximate products is measured."""


@dataclass(slots=True)
class Measured:
    """One model, before or after."""

    loss: HeldoutLoss
    answers: list[Answered] = field(default_factory=list)
    step: int = 0
    """After which the model is as it was measured."""
    drift: Drift | None = None
    """On general text; None for the base model, and where it is not measured."""
    tasks: list[Examined] = field(default_factory=list)
    knowledge: dict[str, Any] | None = None
    """Of the base model alone."""
    exposures: list[float] = field(default_factory=list)
    """Of the canaries, in bits."""

    def as_json(self) -> dict[str, Any]:
        """Everything that a later process needs to compare with it."""
        return {
            **self.loss.as_json(),
            "answers": [{"ids": one.answer.input_ids, "stopped": one.answer.stopped} for one in self.answers],
            "tasks": [one.as_json() for one in self.tasks],
            "knowledge": self.knowledge,
            "exposures": self.exposures,
        }


@dataclass(slots=True)
class Measure:
    """What is measured on, and how."""

    dataset: Dataset
    heldout: Examples
    encoder: Encoder
    options: EvaluateOptions
    stop_ids: list[int]
    """What the data ends its answers with."""
    max_length: int
    folder: Run
    screen: Screen
    ranks: Ranks
    """The processes that share the work; the first of them answers prompts."""
    anatomy: Anatomy
    general: General | None
    """Text that nothing is trained on; None where drift is not measured."""
    tasks: list[Errand]
    planted: Planted
    """The canaries."""
    reference: Reference | None = None
    """What the base model says of the general text."""

    @property
    def tokenizer(self) -> Tokenizer:
        return self.encoder.tokenizer

    def questions(self, limit: int) -> list[Question]:
        """Held-out prompts to answer."""
        return questions(self.dataset, self.tokenizer, self.stop_ids, limit)

    def base(self, forward: Forward, asked: list[Question], *, token_budget: int) -> Measured:
        """The base model: what `model` measures, what general text is compared with, and what it knows already."""
        if self.general is not None:
            with self.screen.stage("base: general text", len(self.general.examples)) as advance:
                given = {"token_budget": token_budget, "progress": advance, "ranks": self.ranks}
                self.reference = Reference.measure(forward, self.general, **given)
            self.reference.save(self.folder)
        if self.heldout:
            self.folder.write_json("heldout.json", describe(self.anatomy))
        known = self._knowledge(forward, token_budget=token_budget)
        found = self.model(forward, asked, "base", step=0, token_budget=token_budget)
        return replace(found, knowledge=known)

    def model(
        self,
        forward: Forward,
        asked: list[Question],
        name: str,
        *,
        step: int,
        token_budget: int,
        loss: HeldoutLoss | None = None,
    ) -> Measured:
        """Held-out loss, which may be known, general text, and answers to held-out prompts and tasks."""
        if loss is None or (self.heldout and loss.pieces is None):
            loss = self._heldout_loss(forward, name, token_budget=token_budget)
        drift = self._drift(forward, name, token_budget=token_budget)
        self._write_down(loss, drift, name, step)
        exposures = self.planted.exposures(forward, token_budget=token_budget, ranks=self.ranks)
        if not self.ranks.first:
            return Measured(loss, [], step, drift, exposures=exposures)
        # What ends an answer is the same for base and tuned: the data's stop tokens and the model's own.
        stop_ids = list(dict.fromkeys([*self.stop_ids, *own_stop_ids(base_of(forward.model))]))
        answers = self._answers(forward, asked, name, step, stop_ids)
        examined = examine(
            forward,
            self.encoder,
            stop_ids,
            self.tasks,
            self.options.task_rows,
            name=name,
            screen=self.screen,
            beat=self.ranks.pulse.beat,
        )
        if examined:
            self.folder.append("tasks.jsonl", [line for one in examined for line in one.journal(step, name)])
        return Measured(loss, answers, step, drift, examined, exposures=exposures)

    def recalled(self, known: dict[str, Any] | None, asked: list[Question]) -> Measured:
        """What `Measured.as_json` kept, with the questions that were asked; nothing where another process has it."""
        self.reference = self._reference()
        if known is None:
            return Measured(NOTHING)
        answers = [Answer(tuple(one["ids"]), bool(one["stopped"])) for one in known["answers"]]
        texts = [self.tokenizer.decode(answer.input_ids) for answer in answers]
        answered = [Answered(*each) for each in zip(asked, answers, texts, strict=True)]
        tasks = [Examined(**one) for one in known.get("tasks") or ()]
        told = {name: known[name] for name in ("knowledge", "exposures") if name in known}
        return Measured(HeldoutLoss.restored(known), answered, tasks=tasks, **told)

    def point(self, forward: Forward, *, step: int, token_budget: int, pause: bool = False) -> HeldoutLoss:
        """The loss on held-out examples and on general text after a step, written down; with `pause`, as one more."""
        name = f"step {step}"
        loss = self._heldout_loss(forward, name, token_budget=token_budget)
        self._write_down(loss, self._drift(forward, name, token_budget=token_budget), name, step, pause=pause)
        return loss

    def _heldout_loss(self, forward: Forward, name: str, *, token_budget: int) -> HeldoutLoss:
        if not self.heldout:
            return NOTHING
        with self.screen.stage(f"{name}: held-out loss", len(self.heldout)) as advance:
            given = {"token_budget": token_budget, "progress": advance, "ranks": self.ranks}
            return heldout_loss(forward, self.heldout, anatomy=self.anatomy, **given)

    def _drift(self, forward: Forward, name: str, *, token_budget: int) -> Drift | None:
        if self.reference is None or name == "base":
            return None
        with self.screen.stage(f"{name}: general text", len(self.reference.general.examples)) as advance:
            given = {"token_budget": token_budget, "progress": advance, "ranks": self.ranks}
            return drift(forward, self.reference, confidence=self.options.confidence, **given)

    def _reference(self) -> Reference | None:
        """What an earlier process of the run measured; read where the run folder is."""
        if self.general is None:
            return None
        found = Reference.load(self.folder, self.general, self.ranks)
        if found is not None:
            return found
        self.screen.say("note    drift is not measured: what the base model said of general text is not there any more")
        return None

    def _knowledge(self, forward: Forward, *, token_budget: int) -> dict[str, Any] | None:
        if not self.options.knowledge:
            return None
        with self.screen.stage("base: held-out answers after examples", 3 * self.options.knowledge) as advance:
            found = knowledge(
                forward,
                self.dataset,
                self.encoder,
                stop_ids=self.stop_ids,
                limit=self.options.knowledge,
                max_length=self.max_length,
                token_budget=token_budget,
                confidence=self.options.confidence,
                progress=advance,
                ranks=self.ranks,
            )
        return None if found is None else found.as_json()

    def _answers(
        self, forward: Forward, asked: list[Question], name: str, step: int, stop_ids: list[int]
    ) -> list[Answered]:
        limit = self.options.max_new_tokens
        with self.screen.stage(f"{name}: answering held-out prompts", len(asked)) as advance:

            def progress(answers: int) -> None:
                advance(answers)
                self.ranks.pulse.beat()

            answers = ask(forward, asked, self.tokenizer, stop_ids=stop_ids, max_new_tokens=limit, progress=progress)
        lines = (
            answered.as_json(
                model=name,
                step=step,
                prompt=self.tokenizer.decode(answered.question.prompt_ids),
                max_new_tokens=limit,
                correct=self._correct(answered),
            )
            for answered in answers
        )
        self.folder.append("samples.jsonl", lines)
        return answers

    def _write_down(self, loss: HeldoutLoss, drift: Drift | None, name: str, step: int, *, pause: bool = False) -> None:
        """In `evaluations.jsonl` what people read, then in `heldout.jsonl` what is paired."""
        record: dict[str, Any] = {"step": step, "model": name}
        if self.heldout:
            record |= {"nll": loss.nll, "tokens": loss.tokens, "examples": len(self.heldout)}
            record["se"] = standard_error(loss.sums, loss.weights, self.dataset.rows_of(self.heldout))
            record["stop_probability"] = stop_probability(loss, self.anatomy)
        if self.reference is not None:
            record["general_nll"] = self.reference.mean_nll if drift is None else drift.nll
            record["kl"] = 0.0 if drift is None else drift.kl
        if len(record) > 2:
            self.folder.append("evaluations.jsonl", [record])
        if self.heldout:
            self.folder.append("heldout.jsonl", [{**line(step, name, loss), **({"pause": True} if pause else {})}])

    def rounding(self, forward: Forward, precision: Precision, *, token_budget: int) -> dict[str, Any] | None:
        """What approximate products change of the held-out loss, on a few examples; None where they are exact."""
        few = self.heldout[:ROUNDED]
        if precision.compute == "float32" or precision.weights != "float32" or not few:
            return None  # Weights that are rounded already have no float32 to compare with.
        with self.screen.stage("the held-out loss in float32", len(few)) as advance:
            exact = heldout_loss(forward, few, token_budget=token_budget, progress=advance)
        with computing(precision, forward.device):
            rounded = heldout_loss(forward, few, token_budget=token_budget)
        change = rounded.nll - exact.nll
        self.screen.say(
            f"note    products in {precision.compute} are approximate: they change the held-out loss before training "
            f"by {change:+.5f} ({exact.nll:.4f} in float32; {len(few)} examples, {exact.tokens:,} tokens)"
        )
        return {"float32_nll": exact.nll, "nll": rounded.nll, "change": change, "examples": len(few)}

    def _correct(self, answered: Answered) -> bool | None:
        scorer = SCORERS.get(self.options.score)
        return None if scorer is None else scorer(answered.text, answered.question.reference)
