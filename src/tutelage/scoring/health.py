"""Whether an answer is whole, whatever it says: it stopped by itself, says something, and does not end in loops."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tutelage.data.clean.loops import loop
from tutelage.scoring.exact import INVALID, parse
from tutelage.scoring.structured import unfenced

Expects = Literal["text", "json", "fenced json"]
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Health:
    """What can be wrong with an answer; every field is True where it is."""

    hit_limit: bool
    """It was cut off, because it did not stop by itself."""
    empty: bool
    loops: bool
    """It ends with the same words over and over."""
    broken_fence: bool
    """A markdown block of code is opened and never closed."""
    invalid_json: bool | None
    """It should be JSON and is not; None where nothing asks for JSON."""

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        return not any(asdict(self).values())


def health(answer: str, *, stopped: bool, expects: Expects = "text") -> Health:
    """Look at one answer. `stopped`: whether the model wrote a stop token within its limit."""
    invalid = None
    if expects != "text":
        inside = unfenced(answer) if expects == "fenced json" else answer
        invalid = inside is None or parse(inside) is INVALID
    return Health(
        hit_limit=not stopped,
        empty=not answer.strip(),
        loops=loop(answer) is not None,
        broken_fence=open_fence(answer),
        invalid_json=invalid,
    )


def open_fence(text: str) -> bool:
    """Whether a block of code is still open at the end: closed is it by as many of the same signs, and nothing else."""
    opened = ""
    for fence in _FENCE.finditer(text):
        signs, rest = fence[1], fence[2].strip()
        if not opened:
            # A line such as ```x``` is a span of code, not the start of a block.
            opened = "" if signs[0] == "`" and "`" in rest else signs
        elif signs[0] == opened[0] and len(signs) >= len(opened) and not rest:
            opened = ""
    return bool(opened)


def shares(answers: Sequence[Health]) -> dict[str, Any]:
    """The share of answers with each thing, of those that it can be said of; and of those that are well."""
    if not answers:
        return {"n": 0}
    found: dict[str, Any] = {"n": len(answers)}
    for name in asdict(answers[0]):
        values = [value for one in answers if (value := getattr(one, name)) is not None]
        if values:
            found[name] = sum(values) / len(values)
    found["stopped"] = 1.0 - found["hit_limit"]
    found["well"] = sum(one.well for one in answers) / len(answers)
    return found
