"""How tokens are chosen from what a model expects, and how many answers are written to each prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tutelage.errors import Problem, TutelageError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen; the default is greedy.

    The logits are divided by the temperature; of what they then expect, `top_k`, `top_p` and `min_p` each leave the
    likelier tokens, in this order, as in `transformers`. Tokens that are equally likely stay or go together.
    """

    temperature: float = 0.0
    """0 takes the likeliest token each time; of equally likely ones the one with the lowest id."""
    top_p: float = 1.0
    """The likeliest tokens that together have at least this probability."""
    top_k: int = 0
    """That many of the likeliest tokens; 0 is all of them."""
    min_p: float = 0.0
    """Tokens at least this likely, as a share of the likeliest one's probability."""
    samples: int = 1
    """Answers to each prompt."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no distribution.

        Raises:
            RecipeError: recipe/bad-value, recipe/conflict.
        """
        ranges = {
            "temperature": (math.isfinite(self.temperature) and self.temperature >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k >= 0, "0 (all tokens) or more"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
            "samples": (self.samples >= 1, "1 or more"),
        }
        problems = [
            Problem(
                "recipe/bad-value",
                f"`{name}` is out of its range",
                where=name,
                found=repr(getattr(self, name)),
                fix=f"give a number {range}",
            )
            for name, (holds, range) in ranges.items()
            if not holds
        ]
        if not problems and self.samples > 1 and self.temperature == 0:
            what = "several answers to a prompt were asked for, and greedy decoding writes the same one each time"
            fix = "set a temperature above 0, for example 0.7, or `samples: 1`"
            problems = [Problem("recipe/conflict", what, where="samples", found=f"samples {self.samples}", fix=fix)]
        if problems:
            raise TutelageError.of(problems)


GREEDY = Sampling()
"""The likeliest token each time."""
