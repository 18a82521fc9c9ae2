"""Evaluation sets that must not be trained on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from tutelage.recipe.base import Section


class DecontaminateOptions(Section):
    """Training rows that hold a question of an evaluation set are dropped, and listed."""

    against: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Files of evaluation questions, each as a path or as name=path; name=path#column, or #column+column, where the
    columns that ask are not recognised."""
    words: PositiveInt = 13
    """A run of this many words in common with a question, in any text of the row, is a hit; a shorter question is one
    when it stands whole in the prompt."""
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of prompt and question, as sets of runs of three words, from which a row is a hit as well."""
