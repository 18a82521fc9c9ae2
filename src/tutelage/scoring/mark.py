"""What a scorer says of one answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tutelage.recipe.base import Section


@dataclass(frozen=True, slots=True)
class Mark:
    """A score from 0 to 1, and what it rests on."""

    score: float
    found: str | None = None
    """What of the answer was compared; None where there was nothing that could be."""
    why: str = ""
    """Why it is not 1, where that can be said."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Scores of parts, by name: fields, or kinds of instruction."""


class Scored(Section):
    """The base of the scorers: frozen options, and a pure function of answer and reference."""

    version: ClassVar[int] = 1
    """Changed when the same answer can get another mark."""

    def mark(self, answer: str, reference: Any) -> Mark:
        """The answer's mark against a row's reference."""
        raise NotImplementedError

    def described(self) -> dict[str, Any]:
        """What to print beside a score, so that it can be had again."""
        return {**self.model_dump(mode="json"), "version": self.version}


def texts(reference: Any) -> list[str]:
    """The texts that a reference accepts: one, or each of a list; a number is read as it is written."""
    several = reference if isinstance(reference, list | tuple) else [reference]
    return [one if isinstance(one, str) else str(one) for one in several]
