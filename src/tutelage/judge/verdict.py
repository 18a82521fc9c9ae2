"""What a judge said, read; and answers that speak to the judge in the place of whoever asked."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tutelage.generate.generation import Generation

REASON, RAW = 2000, 4000
"""Characters of the reason, and of all that a judge said, that are kept."""

_VERDICT = re.compile(r"[\s>#*_`-]*verdict[\s*_`]*:[\s*_`\"'(\[]*(?:answer\s+)?(1|2|tie)[\s*_`\"')\].]*", re.IGNORECASE)
_SPEAKS = re.compile(
    r"""
    \b(?:ignore|disregard|forget|override)\b[^.\n]{0,40}\b(?:above|previous|prior|preceding|earlier|instructions?|criteria)\b
    | \b(?:choose|pick|select|prefer|vote\s+for|favou?r|declare)\s+
      (?:me\b|this\s+(?:answer|response|one)\b|(?:answer|response|option|assistant)\s+[ab12]\b|[ab]\b(?=\s*[.!,;:]?\s*(?:$|\n))
         |(?:the\s+)?(?:first|second)\s+(?:answer|response|one)\b)
    | ^[\s>#*_`-]*(?:final\s+)?verdict[\s*_`]*:
    | \b(?:dear|attention|note\s+to|message\s+to|to)\s+(?:the\s+)?(?:judge|grader|evaluator)s?\b
    | \b(?:this|my)\s+(?:answer|response)\s+is\s+(?:clearly\s+|obviously\s+)?(?:the\s+)?
      (?:better|best|superior|winner)\b
    | <<<\s*(?:end\s+of\s+)?(?:request|reference|answer\s+[12])\b
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was said."""

    said: str | None
    """`1`, `2` or `tie`; None where it cannot be read."""
    reason: str
    why: str = ""
    """Why it cannot be read."""


def reading(answer: Generation) -> Reading:
    """The verdict on the last line, where the rest does not contradict it; nothing is guessed."""
    text = answer.text or ""
    if answer.problem is not None:
        return Reading(None, "", answer.problem.what)
    told = text.rpartition("</think>")[2]
    if "<think>" in told:
        return Reading(None, "", "the judge was cut off while it was thinking")
    if not answer.stopped:
        return Reading(None, told[:REASON].strip(), "the judge ran into the limit")
    lines = [line for line in told.splitlines() if line.strip()]
    found = [match[1].lower() for line in lines if (match := _VERDICT.fullmatch(line))]
    reason = "\n".join(lines[:-1])[:REASON]
    if not lines or not _VERDICT.fullmatch(lines[-1]):
        return Reading(None, told[:REASON].strip(), "there is no verdict on the last line")
    if len(set(found)) > 1:
        return Reading(None, reason, "there are verdicts that contradict each other")
    return Reading(found[-1], reason)


def speaks_to_the_judge(answer: str) -> bool:
    """Whether an answer tries to tell whoever judges it what to say, as far as its words show."""
    return _SPEAKS.search(answer) is not None
