"""What a regular expression finds in the answer: that it is there, or that it is the reference."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import regex
from pydantic import Field, field_validator

from tutelage.scoring.mark import Mark, Scored, check_texts, texts
from tutelage.scoring.text import Normal

SECONDS = 1.0
"""Time for one answer. An expression can need time without end, and a model can write the text that makes it."""


class Pattern(Scored):
    """1 where what is found is the reference; where the task has no reference, 1 where anything is found."""

    version: ClassVar[int] = 2
    kind: Literal["pattern"] = "pattern"
    pattern: str = Field(min_length=1)
    """The regular expression; `^` and `$` are the ends of the answer unless it begins with `(?m)`."""
    group: int = Field(default=0, ge=0)
    """Which bracket of it is compared; 0 is all of it."""
    take: Literal["first", "last"] = "first"
    """Which, where it is found several times."""
    overlook: Normal = Normal()
    """What does not count as a difference to the reference."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            regex.compile(pattern)
        except regex.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return pattern

    def mark(self, answer: str, reference: Any) -> Mark:
        """Look for it."""
        try:
            found = list(regex.finditer(self.pattern, answer, timeout=SECONDS))
        except TimeoutError:
            return Mark(0.0, None, f"the pattern needs more than {SECONDS:g} s")
        if not found:
            return Mark(0.0, None, "the pattern is not found")
        match = found[0 if self.take == "first" else -1]
        if self.group > match.re.groups:
            return Mark(0.0, None, f"the pattern has no bracket {self.group}")
        text = match[self.group] or ""
        if reference is None:
            return Mark(1.0, text)
        same = any(self.overlook.of(text) == self.overlook.of(one) for one in texts(reference))
        return Mark(float(same), text)

    def check(self, reference: Any) -> None:
        """Refuse a list without a text; None says that the task has no reference.

        Raises:
            BadReference: it accepts no text.
        """
        if reference is not None:
            check_texts(reference)
