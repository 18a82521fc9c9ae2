"""What is measured before and after."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from tutelage.recipe.base import Section


class EvaluateOptions(Section):
    """Held-out loss is always measured; these options decide the rest."""

    points: NonNegativeInt = 3
    """Extra measurements of the held-out loss during training, evenly spaced, for the curve."""
    examples: PositiveInt | None = None
    """Measure the held-out loss on at most this many examples; all of them when not given."""
    samples: NonNegativeInt = 8
    """Held-out prompts answered before and after training, for the report."""
    max_new_tokens: PositiveInt = 128
    """Longest generated answer, in tokens."""
    score: Literal["none", "exact", "json"] = "none"
    """Compare generated answers with the held-out rows' own: the same text, or the same JSON value."""
    score_rows: PositiveInt = 200
    """Held-out prompts answered for the score, at most."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Confidence of every interval."""
