"""In which words an instruction and its input are put together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tutelage.recipe.base import Section

Rendering = Literal[
    "plain",
    "terse",
    "input-first",
    "alpaca",
    "dolly",
    "task-text",
    "instruction-input",
    "question-context",
    "tagged",
    "quoted",
    "plain-system",
    "alpaca-system",
]

Renderings = Annotated[tuple[Rendering, ...], Field(min_length=1, strict=False)]


class RenderingOptions(Section):
    """Renderings of rows that give an instruction and its input apart; other rows stay as they are."""

    train: Renderings = ("plain",)
    """One of these for each row and epoch, chosen by a hash; a row takes all of them in turn before one comes again."""
    heldout: Renderings = ("plain",)
    """Held-out rows are measured in each of these."""
