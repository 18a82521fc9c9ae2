"""What is done about rows that repeat."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from tutelage.recipe.base import Section


class DuplicateOptions(Section):
    """Rows that repeat; whatever is chosen, equal and grouped prompts stay on one side of the split."""

    exact: Literal["keep", "drop"] = "keep"
    """Rows that repeat the prompt and the answer of an earlier row."""
    prompt: Literal["keep", "drop"] = "keep"
    """Rows that repeat the prompt of an earlier row, whatever their answer."""
    near: Literal["off", "keep", "drop"] = "keep"
    """Rows whose prompt is nearly that of an earlier row, or is connected with it by a chain of such prompts: `keep`
    only keeps them on one side of the split; `off` does not look for them."""
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Two prompts are nearly the same from this Jaccard similarity on: what they share, as a part of all they hold."""
    words: PositiveInt = 3
    """Prompts are compared as sets of runs of this many words; shorter ones are only compared whole."""
