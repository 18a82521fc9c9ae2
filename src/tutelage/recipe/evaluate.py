"""What is measured before and after."""

from __future__ import annotations

from typing import Annotated, Any, Literal

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
    tasks: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    """Tasks asked before and after training: each a name or a .yaml file, with `=FILE` where its rows are elsewhere."""
    task_rows: PositiveInt = 200
    """Rows asked of each task, at most."""
    drift: bool = True
    """Measure what becomes of general text: its loss, and how far the model's predictions moved from the base's."""
    general: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    """Files of plain text, or of rows in any format, that `drift` is measured on besides the text that ships with
    Tutelage."""
    knowledge: NonNegativeInt = 32
    """Held-out answers, at most, for which it is measured before training how likely the base model finds them after a
    few examples; 0 leaves it out."""
    canaries: NonNegativeInt = 0
    """Made-up secrets trained on like rows, to measure at the end how much of a row seen once is memorised."""
    patience: PositiveInt | None = None
    """End training after so many measurements in a row without a better held-out loss; never when not given."""
    margin: float = Field(default=1.0, ge=0)
    """A loss is better where it is lower by more than so many standard errors of the difference: for `patience`, and
    for the step that is exported."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Confidence of every interval."""

    def ends(self, steps: int) -> dict[str, Any]:
        """What decides when a run of so many steps ends; while it is equal, one that ended early is done."""
        return {"steps": steps, "patience": self.patience, "margin": self.margin}
