"""What the measurements say: the parts of `result.json` that answer whether the model is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluate.asking import compared
from tutelage.evaluate.breakdown import breakdown, per_byte, stop_probability
from tutelage.evaluate.canaries import exposed, trained_on
from tutelage.evaluate.compare import Difference, loss_sentence, paired_ratio
from tutelage.evaluate.course import Course
from tutelage.evaluate.heldout import HeldoutLoss
from tutelage.evaluate.measure import Measure, Measured
from tutelage.evaluate.memorising import memorising
from tutelage.evaluate.passes import Passes
from tutelage.evaluate.samples import Answered
from tutelage.evaluate.tasks import score
from tutelage.evaluate.verdict import verdict
from tutelage.recipe import EvaluateOptions
from tutelage.runs import Run
from tutelage.scoring.health import Expects, health, shares


def answer(
    base: Measured, tuned: Measured, measure: Measure, course: Course, *, done: int, rule: str
) -> dict[str, Any]:
    """Whether the model is better: on the held-out rows, on their tasks, and in stopping by itself.

    `done`: the steps that were made; the model is that of `tuned.step`, which `rule` (`export.step`) chose.
    """
    options, heldout, dataset = measure.options, measure.heldout, measure.dataset
    known = heldout_verdict(
        base.loss,
        tuned.loss,
        confidence=options.confidence,
        rows=dataset.rows_of(heldout),
        renderings=dataset.rendering_of(heldout),
    )
    if known is not None:
        known["per_byte"] = per_byte(base.loss, tuned.loss, measure.anatomy)
        known["breakdown"] = breakdown(base.loss, tuned.loss, measure.anatomy, options.confidence)
    result = {
        "heldout": known,
        "tasks": {
            **task_scores(base.answers, tuned.answers, options),
            **compared(base.tasks, tuned.tasks, options.confidence),
        },
        "export_step": rule,
        "exported_step": tuned.step,
        "stopped": {"base": stopped(base.answers), "tuned": stopped(tuned.answers)},
        "health": {"base": well(base, measure), "tuned": well(tuned, measure)},
        "best": best_step(course, exported=tuned.step, done=done),
        "memorising": remembered(measure, course, base, tuned),
        "drift": None if tuned.drift is None else tuned.drift.as_json(),
        "knowledge": base.knowledge,
        "frontier": frontier(measure.folder),
    }
    if done < course.steps:
        result["ended_early"] = options.ends(course.steps)
    return {"verdict": verdict(result, confidence=options.confidence), **result}


def best_step(course: Course, *, exported: int, done: int) -> dict[str, Any] | None:
    """Which step had the lowest held-out loss, and whether its weights are the ones that are exported."""
    best = course.best
    if best is None:
        return None
    nll, last = course.nll_at(best), course.nll_at(done)
    start = course.measured[0].nll if 0 in course.measured else math.inf
    words = f"step {best:,} of {done:,} has the lowest held-out loss"
    words += " of all steps, but not a lower one than the base model" if nll is not None and start <= nll else ""
    words += f" ({nll:.3f} nats per token"
    words += f"; {last:.3f} at the end)" if last is not None and best != done else ")"
    said = "is exported" if best == exported else f"step {exported:,} is exported"
    sentence = f"{words}, and {said}."
    return {
        "step": best,
        "nll": nll,
        "last_step": done,
        "last_nll": last,
        "exported": best == exported,
        "sentence": sentence[0].upper() + sentence[1:],
    }


def well(measured: Measured, measure: Measure) -> dict[str, Any]:
    """How the answers of a model end, and how likely the stop token is where the held-out answers have it."""
    expects: Expects = "json" if measure.options.score == "json" else "text"
    found = shares([health(one.text, stopped=one.answer.stopped, expects=expects) for one in measured.answers])
    return {**found, "stop_probability": stop_probability(measured.loss, measure.anatomy)}


def remembered(measure: Measure, course: Course, base: Measured, tuned: Measured) -> dict[str, Any] | None:
    """Whether the rows were memorised; None without held-out rows and without canaries."""
    canaries = None
    if tuned.exposures:
        lines = measure.folder.read_lines("examples.jsonl", whole=False)
        often = trained_on(lines, measure.dataset, until=tuned.step) / len(tuned.exposures)
        canaries = exposed(base.exposures, tuned.exposures, passes=often)
    if not measure.heldout:
        return canaries and {"verdict": False, "sentence": canaries["sentence"], "epochs": [], "canaries": canaries}
    passes = Passes.of(measure.folder.read_lines("examples.jsonl", whole=False), measure.dataset)
    known = [(step, loss.sums, loss.weights) for step, loss in course.planned.items()]
    rows = measure.dataset.rows_of(measure.heldout)
    found = memorising(passes, known, confidence=measure.options.confidence, rows=rows)
    return {**found.as_json(), "canaries": canaries}


def frontier(folder: Run) -> list[dict[str, Any]]:
    """What each measured step gained, what it cost elsewhere, and whether its checkpoint is kept, to be exported."""
    kept = {one.step for one in folder.checkpoints.all()}
    named = ("step", "nll", "general_nll", "kl")
    lines = folder.read_lines("evaluations.jsonl", whole=False)
    measured = [{name: line.get(name) for name in named} for line in lines if line["model"] != "tuned"]
    return [{**one, "kept": one["step"] in kept} for one in measured]


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
        "chance": loss.chance,
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
