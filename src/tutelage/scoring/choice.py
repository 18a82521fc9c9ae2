"""Multiple choice: the letter that an answer names, or the option that the model finds likeliest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from tutelage.scoring.mark import BadReference, Mark, Scored, written

By = Literal["sum", "token", "byte"]


class Letter(Scored):
    """1 where the letter that the answer names is the right one. The reference is a letter, or a number from 0."""

    version: ClassVar[int] = 2
    kind: Literal["letter"] = "letter"
    letters: str = Field(default="ABCD", min_length=2)
    """The letters of the options, in order."""
    rule: Literal["alone", "stated"] = "stated"
    """alone: the answer is a letter and nothing else. stated: it may also begin with a letter that a bracket, a point,
    a colon or the line's end follows, or say `answer is B` or `answer: B`, of which the last counts."""

    def mark(self, answer: str, reference: Any) -> Mark:
        """Compare the letters."""
        right = self._right(reference)
        found = self.found(answer)
        if found is None:
            return Mark(0.0, None, "the answer names no option")
        return Mark(float(found == right), found, "" if right else "the reference names no option")

    def check(self, reference: Any) -> None:
        """Refuse what is none of the options.

        Raises:
            BadReference: neither one of the letters, nor the place of one.
        """
        if self._right(reference) is None:
            last = len(self.letters) - 1
            raise BadReference(
                f"the reference is neither one of {', '.join(self.letters)} nor a number from 0 to {last}"
            )

    def found(self, answer: str) -> str | None:
        """The letter that an answer names."""
        one = f"[{re.escape(self.letters)}]"
        alone = re.fullmatch(rf"\s*\**\(?({one})[).:]*\**\s*", answer)
        if alone or self.rule == "alone":
            return alone[1] if alone else None
        stated = re.findall(rf"(?i:\banswer\b\W{{0,4}}(?:is|:)?)[\s:*\"']{{0,6}}\(?({one})(?![\w'’])", answer)
        if stated:
            return str(stated[-1])
        begins = re.match(rf"\s*\**(?:\(({one})\)|({one})(?:[).:,*]|[ \t]*(?:\n|$)))", answer)
        return (begins[1] or begins[2]) if begins else None

    def _right(self, reference: Any) -> str | None:
        """The letter of a reference; where the options are called by digits, a number is the one that is so called."""
        named = _named(reference)
        for same in (str, str.casefold):
            found = [letter for letter in self.letters if named and same(letter) == same(named)]
            if len(found) == 1:
                return found[0]
        called = any(letter.isdecimal() for letter in self.letters)
        place = None if called else _place(named)
        return self.letters[place] if place is not None and place < len(self.letters) else None


@dataclass(frozen=True, slots=True)
class Option:
    """One option, as the model rated it after the prompt."""

    text: str
    logprob: float
    """Sum over its tokens."""
    tokens: int

    def likelihood(self, by: By) -> float:
        """What options are compared by."""
        return self.logprob / {"sum": 1, "token": self.tokens, "byte": len(self.text.encode())}[by]


class Likelihood(Scored):
    """1 where the option that is likeliest after the prompt is the right one; 1/k where k are equally likely.

    What generates does not take part: this scorer is given log-probabilities, not an answer. The reference is the text
    of an option, its number from 0, or its letter from A.
    """

    version: ClassVar[int] = 2
    kind: Literal["likelihood"] = "likelihood"
    by: By = "byte"
    """sum favours short options; token depends on the vocabulary; byte can be compared between models."""

    def mark_options(self, options: Sequence[Option], reference: Any) -> Mark:
        """Choose among options."""
        if not options or any(option.tokens < 1 or not option.text for option in options):
            return Mark(0.0, None, "an option is empty")
        rated = [option.likelihood(self.by) for option in options]
        best = [number for number, value in enumerate(rated) if value == max(rated)]
        right = _option([option.text for option in options], reference)
        parts = {option.text: value for option, value in zip(options, rated, strict=True)}
        why = "the reference names no option" if right is None else ""
        return Mark((right in best) / len(best), options[best[0]].text, why, parts)

    def check_options(self, options: Sequence[str], reference: Any) -> None:
        """Refuse options that cannot be chosen from.

        Raises:
            BadReference: there are none, one is empty, or the reference is none of them.
        """
        if not options or not all(option.strip() for option in options):
            raise BadReference("it has an option that says nothing" if options else "it has no option")
        if _option(options, reference) is None:
            last = len(options) - 1
            raise BadReference(f"the reference is none of the options: neither its text nor a number from 0 to {last}")


def _option(options: Sequence[str], reference: Any) -> int | None:
    """The place of the option that a reference names."""
    named = _named(reference)
    texts = [option.strip() for option in options]
    said = reference.strip() if isinstance(reference, str) else None
    place = texts.index(said) if said in texts else _place(named)
    if place is None and len(named) == 1 and named.isascii() and named.isalpha():
        place = ord(named.upper()) - ord("A")
    return place if place is not None and place < len(options) else None


def _named(reference: Any) -> str:
    """What a reference calls an option by: tables give numbers as texts, or with a point."""
    if isinstance(reference, bool) or not isinstance(reference, str | int | float):
        return ""
    return written(reference).strip().strip("().")


def _place(named: str) -> int | None:
    return int(named) if named.isascii() and named.isdecimal() and len(named) < 10 else None
