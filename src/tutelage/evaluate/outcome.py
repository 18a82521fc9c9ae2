"""What the measurements say: the parts of `result.json` that answer whether the model is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.evaluate.compare import loss_sentence, paired_ratio
from tutelage.evaluate.heldout import HeldoutLoss
from tutelage.evaluate.samples import Answered
from tutelage.evaluate.tasks import score
from tutelage.recipe import EvaluateOptions


def heldout_verdict(base: HeldoutLoss, tuned: HeldoutLoss, *, confidence: float) -> dict[str, Any] | None:
    """Base against tuned on the held-out examples, in nats per token; None where nothing was held out."""
    if not base.tokens:
        return None
    loss = paired_ratio(base.sums, tuned.sums, base.weights, confidence=confidence)
    return {
        "examples": loss.n,
        "tokens": base.tokens,
        "base_nll": loss.base,
        "tuned_nll": loss.tuned,
        "difference": loss.difference,
        "interval": list(loss.interval),
        "confidence": confidence,
        "verdict": loss.verdict(lower_is_better=True),
        "sentence": loss_sentence(loss, base.tokens),
    }


def task_scores(base: Sequence[Answered], tuned: Sequence[Answered], options: EvaluateOptions) -> dict[str, Any]:
    """The scores of the answers by task; empty where the recipe asks for none or there was nothing to ask."""
    if options.score == "none" or not base:
        return {}
    limit = options.score_rows
    result = score(
        options.score,
        [answered.text for answered in base[:limit]],
        [answered.text for answered in tuned[:limit]],
        [answered.question.reference for answered in base[:limit]],
        confidence=options.confidence,
    )
    return {f"{options.score} match": result.as_json()}


def stopped(answers: Sequence[Answered]) -> float | None:
    """Share of the answers that ended by themselves; None without answers."""
    return sum(answered.answer.stopped for answered in answers) / len(answers) if answers else None
