"""Which rows are suspicious by their losses, of what kind, and how much.

A row that is wrong is at odds with what all others teach: their losses fall, and its own stays. How high a loss is
says little by itself, since rows differ in how much there is to say; so a row is compared with rows of the same source
and length, at the same pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tutelage.evaluate.curve import Curve, Measurement
from tutelage.evaluate.passes import Floats
from tutelage.suspects.courses import LEAST, NORMAL, Courses

Kind = Literal["mislabelled", "unlearnable", "in conflict", "memorised"]
KINDS: tuple[Kind, ...] = ("mislabelled", "unlearnable", "in conflict", "memorised")

FAR = 3.0
"""Robust standard deviations from which a row is suspicious."""
FALLS = 0.1
"""The share of its loss by which a row falls at least that can be learned."""


@dataclass(frozen=True, slots=True)
class Found:
    """One row, and what speaks against it."""

    row: int
    """In the token store."""
    kind: Kind
    score: float
    """Robust standard deviations."""
    losses: tuple[float, ...]
    """By pass, in nats per token."""
    weight: float
    """What it should weigh in the next run."""
    why: str


def by_losses(courses: Courses, heldout: Sequence[Measurement] = ()) -> list[Found]:
    """The rows whose losses are suspicious, each of one kind."""
    found = _high(courses)
    known = {one.row for one in found}
    return found + [one for one in _memorised(courses, heldout) if one.row not in known]


def losses_of(courses: Courses, place: int) -> tuple[float, ...]:
    """A row's losses by pass."""
    return tuple(float(loss) for loss in courses.loss[place, : int(courses.last[place]) + 1])


def _high(courses: Courses) -> list[Found]:
    """The rows whose loss at the last pass is far above that of like rows."""
    found: list[Found] = []
    scores, likes = courses.at_last(courses.score), courses.at_last(courses.like)
    for place in np.flatnonzero(scores >= FAR).tolist():
        losses, like = losses_of(courses, place), float(likes[place])
        before = float(courses.like[place, 0])
        kind: Kind = "mislabelled"
        if len(losses) == 1:
            why = f"costs {losses[0]:.2f} nats per token, like rows {like:.2f}"
        elif courses.score[place, 0] >= FAR and losses[-1] > (1 - FALLS) * losses[0]:
            kind = "unlearnable"
            why = f"costs as much at the last pass as at the first ({losses[-1]:.2f}), like rows {like:.2f}"
        else:
            fell = f"{before:.2f} to {like:.2f}"
            why = f"went from {losses[0]:.2f} to {losses[-1]:.2f} nats per token, while like rows went from {fell}"
        found.append(Found(int(courses.rows[place]), kind, float(scores[place]), losses, 0.0, why))
    return found


def _memorised(courses: Courses, heldout: Sequence[Measurement]) -> list[Found]:
    """The rows that fell far more than held-out rows became better between the same steps, and by half at least."""
    several = np.flatnonzero(courses.last > 0)
    curve = Curve.of(heldout, None)
    if curve is None or len(curve.steps) < 2 or not len(several):
        return []
    first, last = courses.loss[several, 0], courses.at_last(courses.loss)[several]
    begun, ended = courses.step[several, 0] - 1, courses.at_last(courses.step)[several] - 1
    in_general = _held(curve, begun) - _held(curve, ended)
    own = (curve.at(float(np.median(begun))) - curve.at(float(np.median(ended)))) / curve.weights
    apart = own - np.median(own)
    spread = max(NORMAL * float(np.median(np.abs(apart))), LEAST)
    scores = (first - last - in_general) / spread
    found: list[Found] = []
    for place in np.flatnonzero((scores >= FAR) & (last < first / 2)).tolist():
        losses = losses_of(courses, int(several[place]))
        why = (
            f"went from {losses[0]:.2f} to {losses[-1]:.2f} nats per token, while held-out rows changed by "
            f"{-in_general[place]:+.2f}"
        )
        row, weight = int(courses.rows[several[place]]), round(1 / len(losses), 3)
        found.append(Found(row, "memorised", float(scores[place]), losses, weight, why))
    return found


def _held(curve: Curve, steps: Floats) -> Floats:
    """The held-out loss after so many steps, in nats per token."""
    return np.interp(steps, curve.steps, curve.nll)
