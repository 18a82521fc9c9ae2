"""Where an answer ends: at a token, or where its text spells a string, whatever the borders of its tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from tutelage.errors import Problem, RecipeError


class Decodes(Protocol):
    """What turns the ids of an answer into text."""

    def decode(self, ids: Sequence[int], /) -> str:
        """The text of ids, as it follows a prompt."""
        ...


@dataclass(frozen=True, slots=True)
class Stops:
    """What ends an answer by itself."""

    ids: frozenset[int]
    strings: tuple[str, ...] = ()
    tokenizer: Decodes | None = None

    def __post_init__(self) -> None:
        """Refuse strings that every answer holds, and those that no text can be searched for.

        Raises:
            RecipeError: recipe/bad-value.
        """
        if "" in self.strings:
            fix = "remove it, or name the text that ends an answer"
            raise RecipeError(Problem("recipe/bad-value", "a stop string is empty", "stop", found="''", fix=fix))
        assert not self.strings or self.tokenizer is not None, "bug: stop strings without a tokenizer"

    @staticmethod
    def of(ids: Collection[int], strings: Sequence[str] = (), tokenizer: Decodes | None = None) -> Stops:
        """The same from any collections."""
        return Stops(frozenset(ids), tuple(strings), tokenizer)

    def text_before(self, ids: Sequence[int]) -> str | None:
        """The text before the first stop string, where the ids spell one; None where they do not."""
        if not self.strings or self.tokenizer is None:
            return None
        # A token is at least one byte, so a string that the last token completes lies within this many tokens; a few
        # more, because a tokenizer may treat the first ones differently from those inside a text.
        window = max(len(string.encode()) for string in self.strings) + 8
        tail = self.tokenizer.decode(ids[-window:])
        if not any(string in tail for string in self.strings):
            return None
        text = self.tokenizer.decode(ids)
        found = [at for at in (text.find(string) for string in self.strings) if at >= 0]
        return text[: min(found)] if found else None
