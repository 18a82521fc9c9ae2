"""The same JSON value, however it is written; or the share of an object's fields that are right."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from tutelage.scoring.exact import INVALID, equal, parse
from tutelage.scoring.mark import BadReference, Mark, Scored

_FENCED = re.compile(r"\s*```[ \t]*(?:json|JSON)?[ \t]*\r?\n(.*?)\r?\n?[ \t]*```\s*", re.DOTALL)


class Json(Scored):
    """The answer and the reference are JSON, and their values are equal; the order of keys does not matter."""

    kind: Literal["json"] = "json"
    fence: Literal["refuse", "allow", "require"] = "refuse"
    """Whether the answer may be a markdown block of code, or must be one."""
    credit: Literal["whole", "fields"] = "whole"
    """fields: of an object, the share of fields that are right among those of the reference and of the answer."""

    def mark(self, answer: str, reference: Any) -> Mark:
        """Compare the values. A reference that is a text is read as JSON."""
        inside = unfenced(answer)
        if inside is None and self.fence == "require":
            return Mark(0.0, None, "the answer is not a markdown block")
        if inside is not None and self.fence == "refuse":
            return Mark(0.0, None, "the answer is a markdown block")
        text = answer if inside is None else inside
        value = parse(text)
        expected = parse(reference) if isinstance(reference, str) else reference
        if value is INVALID:
            return Mark(0.0, None, "the answer is not JSON", self._parts(None, expected))
        parts = self._parts(value, expected)
        score = float(expected is not INVALID and equal(value, expected))
        if self.credit == "fields" and isinstance(expected, dict) and expected:
            keys = expected.keys() | (value.keys() if isinstance(value, dict) else set())
            score = sum(parts.values()) / len(keys)
        return Mark(score, text.strip(), "", parts)

    def check(self, reference: Any) -> None:
        """Refuse what is no JSON.

        Raises:
            BadReference: it is null, or a text that cannot be read.
        """
        if reference is None:
            raise BadReference("the reference is null; where that is the right answer, write the text `null`")
        if isinstance(reference, str) and parse(reference) is INVALID:
            raise BadReference("the reference is not JSON")

    @staticmethod
    def _parts(value: Any, expected: Any) -> dict[str, float]:
        if not isinstance(expected, dict):
            return {}
        found = value if isinstance(value, dict) else {}
        return {key: float(key in found and equal(found[key], part)) for key, part in expected.items()}


def unfenced(text: str) -> str | None:
    """What stands in the block of code that the text is; None where it is more or less than one block."""
    whole = _FENCED.fullmatch(text)
    return whole[1] if whole and "```" not in whole[1] else None


def as_text(value: Any) -> str:
    """A JSON value as one line, to show."""
    return json.dumps(value, ensure_ascii=False)
