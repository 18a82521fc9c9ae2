"""One measurement of a model, before, during or after training: held-out loss and answers, written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.data.dataset import Dataset
from tutelage.data.encode.tokenizer import Tokenizer
from tutelage.data.examples import Examples
from tutelage.evaluate.heldout import HeldoutLoss, heldout_loss
from tutelage.evaluate.samples import Answered, Question, ask, questions
from tutelage.generate.engine import Answer
from tutelage.models.adapters import base_of, own_stop_ids
from tutelage.models.forward import Forward
from tutelage.models.precision import Precision, computing
from tutelage.recipe import EvaluateOptions
from tutelage.runs import Run
from tutelage.scoring.exact import SCORERS
from tutelage.screen import Screen

if TYPE_CHECKING:
    from tutelage.train.ranks import Ranks

ROUNDED = 64
"""Held-out examples on which the effect of approximate products is measured."""


@dataclass(slots=True)
class Measured:
    """One model, before or after."""

    loss: HeldoutLoss
    answers: list[Answered]

    def as_json(self) -> dict[str, Any]:
        """Everything that a later process needs to compare with it."""
        return {
            "sums": self.loss.sums.tolist(),
            "weights": self.loss.weights.tolist(),
            "tokens": self.loss.tokens,
            "answers": [{"ids": one.answer.input_ids, "stopped": one.answer.stopped} for one in self.answers],
        }


@dataclass(frozen=True, slots=True)
class Measure:
    """What is measured on, and how."""

    dataset: Dataset
    heldout: Examples
    tokenizer: Tokenizer
    options: EvaluateOptions
    stop_ids: list[int]
    """What the data ends its answers with."""
    folder: Run
    screen: Screen
    ranks: Ranks | None = None
    """The processes that share the work; the first of them answers prompts."""

    def questions(self, limit: int) -> list[Question]:
        """Held-out prompts to answer."""
        return questions(self.dataset, self.tokenizer, self.stop_ids, limit)

    def model(self, forward: Forward, asked: list[Question], name: str, *, step: int, token_budget: int) -> Measured:
        """Held-out loss, and answers to held-out prompts."""
        loss = self.loss(forward, name, step=step, token_budget=token_budget)
        if self.ranks is not None and not self.ranks.first:
            return Measured(loss, [])
        # What ends an answer is the same for base and tuned: the data's stop tokens and the model's own.
        stop_ids = list(dict.fromkeys([*self.stop_ids, *own_stop_ids(base_of(forward.model))]))
        limit = self.options.max_new_tokens
        with self.screen.stage(f"{name}: answering held-out prompts", len(asked)) as advance:
            answers = ask(forward, asked, self.tokenizer, stop_ids=stop_ids, max_new_tokens=limit, progress=advance)
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
        return Measured(loss, answers)

    def recalled(self, known: dict[str, Any] | None, asked: list[Question]) -> Measured:
        """What `Measured.as_json` kept, with the questions that were asked; nothing where another process has it."""
        if known is None:
            return Measured(HeldoutLoss(np.zeros(0), np.zeros(0), 0), [])
        loss = HeldoutLoss(np.array(known["sums"]), np.array(known["weights"]), int(known["tokens"]))
        answers = [Answer(tuple(one["ids"]), bool(one["stopped"])) for one in known["answers"]]
        texts = [self.tokenizer.decode(answer.input_ids) for answer in answers]
        return Measured(loss, [Answered(*each) for each in zip(asked, answers, texts, strict=True)])

    def loss(self, forward: Forward, name: str, *, step: int, token_budget: int) -> HeldoutLoss:
        """The loss on the held-out examples."""
        if not self.heldout:
            return HeldoutLoss(np.zeros(0), np.zeros(0), 0)
        with self.screen.stage(f"{name}: held-out loss", len(self.heldout)) as advance:
            loss = heldout_loss(forward, self.heldout, token_budget=token_budget, progress=advance, ranks=self.ranks)
        record: dict[str, Any] = {"step": step, "nll": loss.nll, "tokens": loss.tokens, "examples": len(self.heldout)}
        record["model"] = name
        self.folder.append("evaluations.jsonl", [record])
        return loss

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
