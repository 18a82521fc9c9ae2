"""Answers to held-out prompts, compared with the rows' own answers; base and tuned on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.evaluate.compare import Difference, Verdict, paired_ratio, wilson
from tutelage.scoring.exact import SCORERS, fields


@dataclass(frozen=True, slots=True)
class Score:
    """A task's result."""

    metric: str
    difference: Difference
    base_interval: tuple[float, float]
    tuned_interval: tuple[float, float]
    fields: dict[str, dict[str, float]]
    """Share of rows with the right value, by field of the reference object."""

    @property
    def verdict(self) -> Verdict:
        """Better, worse, or no difference."""
        return self.difference.verdict(lower_is_better=False)

    def as_json(self) -> dict[str, Any]:
        """As `result.json` holds it; shares between 0 and 1."""
        return {
            "metric": self.metric,
            "base": self.difference.base,
            "tuned": self.difference.tuned,
            "difference": self.difference.difference,
            "interval": list(self.difference.interval),
            "base_interval": list(self.base_interval),
            "tuned_interval": list(self.tuned_interval),
            "n": self.difference.n,
            "chance": self.difference.chance,
            "verdict": self.verdict,
            "fields": self.fields,
        }


def score(
    metric: str, base: Sequence[str], tuned: Sequence[str], references: Sequence[str], *, confidence: float
) -> Score:
    """Compare the answers of base and tuned, row by row, with the references."""
    correct = SCORERS[metric]
    right = [
        np.array([correct(a, r) for a, r in zip(answers, references, strict=True)], dtype=float)
        for answers in (base, tuned)
    ]
    n = len(references)
    difference = paired_ratio(right[0], right[1], np.ones(n), confidence=confidence)
    intervals = [wilson(int(values.sum()), n, confidence) for values in right]
    return Score(metric, difference, intervals[0], intervals[1], _by_field(metric, base, tuned, references))


def _by_field(
    metric: str, base: Sequence[str], tuned: Sequence[str], references: Sequence[str]
) -> dict[str, dict[str, float]]:
    if metric != "json":
        return {}
    shares: dict[str, dict[str, float]] = {}
    for name, answers in (("base", base), ("tuned", tuned)):
        counted: dict[str, list[bool]] = {}
        for answer, reference in zip(answers, references, strict=True):
            for key, right in fields(answer, reference).items():
                counted.setdefault(key, []).append(right)
        for key, values in counted.items():
            shares.setdefault(key, {})[name] = sum(values) / len(values)
    return shares
