"""What the measurements say: the parts of `result.json` that answer whether the model is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data.dataset import Dataset
from tutelage.data.examples import Examples
from tutelage.evaluate.compare import Difference, loss_sentence, paired_ratio
from tutelage.evaluate.heldout import HeldoutLoss
from tutelage.evaluate.measure import Measured
from tutelage.evaluate.samples import Answered
from tutelage.evaluate.tasks import score
from tutelage.recipe import EvaluateOptions


def answer(
    base: Measured, tuned: Measured, dataset: Dataset, heldout: Examples, options: EvaluateOptions
) -> dict[str, Any]:
    """Whether the model is better: on the held-out rows, on their tasks, and in stopping by itself."""
    return {
        "heldout": heldout_verdict(
            base.loss,
            tuned.loss,
            confidence=options.confidence,
            rows=dataset.rows_of(heldout),
            renderings=dataset.rendering_of(heldout),
        ),
        "tasks": task_scores(base.answers, tuned.answers, options),
        "stopped": {"base": stopped(base.answers), "tuned": stopped(tuned.answers)},
    }


def heldout_verdict(
    base: HeldoutLoss,
    tuned: HeldoutLoss,
    *,
    confidence: float,
    rows: NDArray[np.int64] | None = None,
    renderings: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Base against tuned on the held-out examples, in nats per token; None where nothing was held out.

    `rows` names the row of each example: the examples of one row are one draw of the bootstrap. `renderings` names
    the rendering of each example; where there are several, each is compared by itself, too.
    """
    if not base.tokens:
        return None
    owners = np.arange(len(base.sums)) if rows is None else rows
    loss = _compared(base, tuned, owners, np.ones(len(owners), dtype=bool), confidence)
    verdict = {
        "examples": loss.n,
        "tokens": base.tokens,
        **_figures(loss),
        "confidence": confidence,
        "verdict": loss.verdict(lower_is_better=True),
        "sentence": loss_sentence(loss, base.tokens),
    }
    names = list(dict.fromkeys(name for name in renderings if name))
    if len(names) > 1:
        chosen = {name: np.array([other == name for other in renderings]) for name in names}
        each = {name: _compared(base, tuned, owners, mine, confidence) for name, mine in chosen.items()}
        verdict["renderings"] = {name: {"n": one.n, **_figures(one)} for name, one in each.items()}
        verdict["spread"] = {
            "base": max(one.base for one in each.values()) - min(one.base for one in each.values()),
            "tuned": max(one.tuned for one in each.values()) - min(one.tuned for one in each.values()),
        }
    return verdict


def _compared(
    base: HeldoutLoss,
    tuned: HeldoutLoss,
    owners: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    confidence: float,
) -> Difference:
    """The difference on the chosen examples, summed by row."""
    _, row = np.unique(owners[chosen], return_inverse=True)
    sums = [np.bincount(row, weights=values[chosen]) for values in (base.sums, tuned.sums, base.weights)]
    return paired_ratio(*sums, confidence=confidence)


def _figures(loss: Difference) -> dict[str, Any]:
    return {
        "base_nll": loss.base,
        "tuned_nll": loss.tuned,
        "difference": loss.difference,
        "interval": list(loss.interval),
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
