"""The same number: the one after a mark such as `####`, or the last in the answer."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field

from tutelage.scoring.mark import Mark, Scored

# A sign belongs to a number unless a word, a number or a bracket stands before it: in `16-3` it is a minus.
_NUMBER = re.compile(
    r"(?:(?<![\w)\]%.])(?P<sign>[-−+]))?[$€£¥]?"
    r"(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?:[\u202f\u00a0_']\d{3})+(?!\d)|\d+)?"
    r"(?P<part>(?<!\d\.)\.\d+)?(?P<power>[eE][-+]?\d{1,3}(?!\w))?"
)


class Number(Scored):
    """1 for the reference's number, 0 for another or none. Units, currencies and thousands separators are overlooked.

    A comma before three digits separates thousands; a point begins the decimal part.
    """

    kind: Literal["number"] = "number"
    take: Literal["marked", "last", "marked-or-last"] = "marked-or-last"
    """marked: the first number after the last mark; last: the last of the text, whatever stands before it."""
    marker: str = Field(default="####", min_length=1)
    """The mark."""
    tolerance: float = Field(default=0.0, ge=0)
    """How far the number may be off."""

    def mark(self, answer: str, reference: Any) -> Mark:
        """Compare the numbers; a reference without one is matched by nothing."""
        wanted = self.found(reference if isinstance(reference, str) else str(reference), marked_first=True)
        given = self.found(answer)
        if given is None or wanted is None:
            return Mark(0.0, None, "the answer has no number" if given is None else "the reference has no number")
        right = abs(given - wanted) <= Decimal(repr(self.tolerance))
        return Mark(float(right), plain(given), "" if right else f"the reference is {plain(wanted)}")

    def found(self, text: str, *, marked_first: bool = False) -> Decimal | None:
        """The number that a text gives."""
        before, mark, after = text.rpartition(self.marker)
        if mark and self.take != "last":
            inside = numbers(after)
            if inside or self.take == "marked":
                return inside[0] if inside else None
            return next(reversed(numbers(before)), None)
        if self.take == "marked" and not marked_first:
            return None
        return next(reversed(numbers(text)), None)


def numbers(text: str) -> list[Decimal]:
    """Every number in a text, in order."""
    found = []
    for match in _NUMBER.finditer(text):
        if match["whole"] is None and match["part"] is None:
            continue
        digits = re.sub(r"\D", "", match["whole"] or "0") + (match["part"] or "") + (match["power"] or "")
        value = Decimal(digits)
        found.append(-value if match["sign"] in ("-", "−") else value)
    return found


def plain(value: Decimal) -> str:
    """A number without zeros that say nothing."""
    text = f"{value:f}" if abs(value.adjusted()) < 30 else str(value)
    return text.rstrip("0").rstrip(".") if "." in text else text
