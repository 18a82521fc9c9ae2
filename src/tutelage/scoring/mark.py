"""What a scorer says of one answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tutelage.recipe.base import Section


class BadReference(ValueError):
    """A reference that no answer can be compared with: why not."""


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

    def check(self, reference: Any) -> None:
        """Refuse a reference that no answer can be right by, before anything is asked.

        Raises:
            BadReference: why none can.
        """
        raise NotImplementedError

    def described(self) -> dict[str, Any]:
        """What to print beside a score, so that it can be had again."""
        return {**self.model_dump(mode="json"), "version": self.version}


def written(value: Any) -> str:
    """A value as text: a text as it is, a whole number without a point, everything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


def texts(reference: Any) -> list[str]:
    """The texts that a reference accepts: one, or each of a list, written as in a prompt."""
    return [written(one) for one in _several(reference)]


def check_texts(reference: Any) -> None:
    """Refuse a reference that accepts no text.

    Raises:
        BadReference: it is null, or a list that is empty or holds null.
    """
    several = _several(reference)
    if not several:
        raise BadReference("the list of references is empty")
    if any(one is None for one in several):
        raise BadReference("the reference is null")


def _several(reference: Any) -> Sequence[Any]:
    return reference if isinstance(reference, list | tuple) else [reference]
