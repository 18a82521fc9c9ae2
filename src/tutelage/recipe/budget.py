"""What a run may use."""

from __future__ import annotations

import re
from typing import Annotated

from annotated_types import DocInfo
from pydantic import AfterValidator

from tutelage.recipe.base import Section

_BYTES = {
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", start=1)},
    **{f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", start=1)},
}
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def size_in_bytes(text: str) -> int:
    """`6GB` is 6,000,000,000 and `6GiB` 6 x 2^30.

    Raises:
        ValueError: when the text is not a positive number with a unit.
    """
    found = re.fullmatch(r"([0-9]+(?:[.][0-9]+)?) ?([A-Za-z]+)", text.strip())
    unit = _BYTES.get(found[2].upper()) if found else None
    if not found or unit is None or float(found[1]) * unit < 1:
        raise ValueError("a size is a number and a unit, as in 6GB or 500MiB")
    return int(float(found[1]) * unit)


def duration_in_seconds(text: str) -> float:
    """`1h30m` is 5400.

    Raises:
        ValueError: when the text is not a list of numbers with units, or is nothing.
    """
    parts = re.findall(r"([0-9]+(?:[.][0-9]+)?) ?(min|[smhd])", text.strip())
    spelled = re.fullmatch(r"(?:[0-9]+(?:[.][0-9]+)? ?(?:min|[smhd]) ?)+", text.strip())
    total = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not spelled or total <= 0:
        raise ValueError("a duration is numbers with units, as in 2h, 90m or 1h30m")
    return total


def _size(text: str) -> str:
    size_in_bytes(text)
    return text


def _duration(text: str) -> str:
    duration_in_seconds(text)
    return text


class BudgetOptions(Section):
    """Limits within which the plan chooses; a run that cannot keep them is refused before it starts."""

    memory: Annotated[str, DocInfo("a size as in 6GB or 500MiB"), AfterValidator(_size)] | None = None
    """The most memory, as in `6GB` or `500MiB`, of the process on a CPU and of the device on a GPU; what the machine
    has available when not given."""
    time: Annotated[str, DocInfo("a duration as in 2h, 90m or 1h30m"), AfterValidator(_duration)] | None = None
    """The most time from the first step to the answer, as in `2h`, `90m` or `1h30m`. Fewer steps are made where the
    recipe gives neither `train.steps` nor `train.epochs`."""

    @property
    def memory_bytes(self) -> int | None:
        """`memory` as a number."""
        return None if self.memory is None else size_in_bytes(self.memory)

    @property
    def seconds(self) -> float | None:
        """`time` as a number."""
        return None if self.time is None else duration_in_seconds(self.time)
