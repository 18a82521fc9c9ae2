"""The same number: the one after a mark such as `####`, or the last in the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, ClassVar, Literal

from pydantic import Field

from tutelage.scoring.mark import BadReference, Mark, Scored

# A sign belongs to a number unless a word, a number or a bracket stands before it: in `16-3` it is a minus.
_NUMBER = re.compile(
    r"(?:(?<![\w)\]%.])(?P<sign>[-−+]))?[$€£¥]?"
    r"(?P<whole>\d{1,3}(?:(?:,(?:\\!)?|\{,\}|\\,)\d{3})+(?!\d)|\d{1,3}(?:[\u202f\u00a0_']\d{3})+(?!\d)"
    # Plain spaces only where no other number stands beside: `100 200 30` is three.
    r"|(?<!\d[ .,])(?<!\w)\d{1,3}(?: \d{3})+(?![\w-]| \d)|\d+)?"
    r"(?P<part>(?<!\d\.)\.\d+)?(?P<power>[eE][-+]?\d{1,3}(?!\w))?"
)


class Number(Scored):
    """1 for the reference's number, 0 for another or none. Units, currencies and thousands separators are overlooked.

    A comma before three digits separates thousands, also as LaTeX writes it, and so does a space; a point begins the
    decimal part.
    """

    version: ClassVar[int] = 2
    kind: Literal["number"] = "number"
    take: Literal["marked", "last", "marked-or-last"] = "marked-or-last"
    """marked: the number that follows the last mark that one follows at once; last: the last of the text, whatever
    stands before it."""
    marker: str = Field(default="####", min_length=1)
    """The mark."""
    tolerance: float = Field(default=0.0, ge=0)
    """How far the number may be off."""

    def mark(self, answer: str, reference: Any) -> Mark:
        """Compare the numbers; a reference without one is matched by nothing."""
        wanted = self._wanted(reference)
        given = self.found(answer)
        if given is None or wanted is None:
            return Mark(0.0, None, "the answer has no number" if given is None else "the reference has no number")
        right = abs(given - wanted) <= Decimal(repr(self.tolerance))
        return Mark(float(right), plain(given), "" if right else f"the reference is {plain(wanted)}")

    def found(self, text: str, *, marked_first: bool = False) -> Decimal | None:
        """The number that a text gives."""
        parts = text.split(self.marker)[1:] if self.take != "last" else []
        for after in reversed(parts):
            # A heading may begin with the same signs; its number, if it has one, comes after words.
            place, value = next(_numbers(after), (0, None))
            if value is not None and not re.search(r"[^\W_]", after[:place]):
                return value
        if self.take == "marked" and not marked_first:
            return next(iter(numbers(parts[-1])), None) if parts else None
        return next(reversed(numbers(text)), None)

    def check(self, reference: Any) -> None:
        """Refuse what holds no number.

        Raises:
            BadReference: it does not.
        """
        if self._wanted(reference) is None:
            raise BadReference("the reference has no number")

    def _wanted(self, reference: Any) -> Decimal | None:
        if isinstance(reference, bool) or not isinstance(reference, str | int | float | Decimal):
            return None
        return self.found(str(reference), marked_first=True)


def numbers(text: str) -> list[Decimal]:
    """Every number in a text, in order."""
    return [value for _, value in _numbers(text)]


def _numbers(text: str) -> Iterator[tuple[int, Decimal]]:
    """Each number with the place where it begins."""
    for match in _NUMBER.finditer(text):
        if match["whole"] is None and match["part"] is None:
            continue
        digits = re.sub(r"\D", "", match["whole"] or "0") + (match["part"] or "") + (match["power"] or "")
        value = Decimal(digits)
        yield match.start(), -value if match["sign"] in ("-", "−") else value


def plain(value: Decimal) -> str:
    """A number without zeros that say nothing."""
    text = f"{value:f}" if abs(value.adjusted()) < 30 else str(value)
    return text.rstrip("0").rstrip(".") if "." in text else text
