"""Multiple choice: the letter that an answer names, or the option that the model finds likeliest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from tutelage.scoring.mark import Mark, Scored

By = Literal["sum", "token", "byte"]


class Letter(Scored):
    """1 where the letter that the answer names is the right one. The reference is a letter, or a number from 0."""

    kind: Literal["letter"] = "letter"
    letters: str = Field(default="ABCD", min_length=2)
    """The letters of the options, in order."""
    rule: Literal["alone", "stated"] = "stated"
    """alone: the answer is a letter and nothing else. stated: it may also begin with a letter that a bracket, a point,
    a colon or the line's end follows, or say `answer is B` or `answer: B`, of which the last counts."""

    def mark(self, answer: str, reference: Any) -> Mark:
        """Compare the letters."""
        right = self._letter(reference)
        found = self.found(answer)
        if found is None:
            return Mark(0.0, None, "the answer names no option")
        return Mark(float(found == right), found)

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

    def _letter(self, reference: Any) -> str:
        if isinstance(reference, int) and not isinstance(reference, bool):
            return self.letters[reference] if 0 <= reference < len(self.letters) else ""
        return str(reference).strip().strip("().").upper()


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

    What generates does not take part: this scorer is given log-probabilities, not an answer.
    """

    kind: Literal["likelihood"] = "likelihood"
    by: By = "byte"
    """sum favours short options; token depends on the vocabulary; byte can be compared between models."""

    def mark_options(self, options: Sequence[Option], reference: Any) -> Mark:
        """Choose among options; the reference is the right one's number, from 0, or its text."""
        if not options or any(option.tokens < 1 or not option.text for option in options):
            return Mark(0.0, None, "an option is empty")
        rated = [option.likelihood(self.by) for option in options]
        best = [number for number, value in enumerate(rated) if value == max(rated)]
        right = reference
        if isinstance(reference, str):
            right = next((n for n, option in enumerate(options) if option.text.strip() == reference.strip()), -1)
        parts = {option.text: value for option, value in zip(options, rated, strict=True)}
        return Mark((right in best) / len(best), options[best[0]].text, "", parts)
