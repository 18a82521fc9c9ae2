"""Two models' answers to the same rows of a task, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tutelage.evaluate.compare import Difference, paired_means
from tutelage.evaluate.statistics import Wins, wins
from tutelage.evaluate.summary import draw
from tutelage.tasks.marking import Line

JOURNAL = "tasks.jsonl"
"""In a run's folder: the answers to its tasks, each line with the step, the model and the task."""
Key = tuple[str, int]
"""A row's name and the number of the sample."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """Pairs of lines, and what they come to."""

    pairs: list[tuple[Line, Line]]
    difference: Difference
    tally: Wins
    clustered: bool
    """Whether several answers count as one draw."""
    test: str
    """What the chance of the difference is by."""

    def lost(self) -> list[int]:
        """The places of the pairs that were lost, the largest loss first."""
        far = [abs(float(two["score"]) - float(one["score"])) for one, two in self.pairs]
        return sorted(self.tally.lost, key=lambda place: (-far[place], place))


def keyed(lines: list[Line]) -> dict[Key, Line]:
    """The lines by row and sample."""
    return {(line["row"], line["sample"]): line for line in lines}


def paired(one: Mapping[Key, Line], two: Mapping[Key, Line], *, better: str, confidence: float) -> Pairing:
    """The second model against the first; both have the same rows. Rows of one cluster or prompt are one draw."""
    pairs = [(line, two[key]) for key, line in one.items()]
    scores = [np.array([pair[side]["score"] for pair in pairs], dtype=float) for side in (0, 1)]
    draws = [draw(pair[0]) for pair in pairs]
    clustered = len(set(draws)) < len(pairs)
    found = paired_means(scores[0], scores[1], confidence=confidence, clusters=draws if clustered else None)
    tally = wins(scores[0], scores[1], lower_is_better=better == "lower")
    right_or_wrong = not clustered and all(((each == 0) | (each == 1)).all() for each in scores)
    return Pairing(pairs, found, tally, clustered, "McNemar" if right_or_wrong else "Student's t")
