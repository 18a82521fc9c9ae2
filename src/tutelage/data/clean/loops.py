"""Loops: a text that ends with the same words over and over, as a model writes when it cannot stop."""

from __future__ import annotations

TIMES = 4
"""From so many times on it is a loop ..."""
LENGTH = 60
"""... when all of them together have so many characters."""
_PROBE = 12
_TRIES = 8


def loop(text: str) -> tuple[int, int] | None:
    """Return where the loop at the end of a text begins and ends; None when there is none.

    What repeats must hold a letter, so that rules, tables and long numbers are none. A loop may be cut anywhere.
    """
    end = len(text)
    if end < LENGTH:
        return None
    probe, at = text[-_PROBE:], end - _PROBE
    # Forwards is the faster direction, and most texts do not have it twice.
    if text.find(probe, 0, end - 1) < 0:
        return None
    for _ in range(_TRIES):
        at = text.rfind(probe, 0, at + _PROBE - 1)
        if at < 0:
            return None
        period = end - _PROBE - at
        if period * TIMES > end:
            return None
        start = _start(text, period)
        if end - start >= max(LENGTH, TIMES * period):
            whole = any(char.isalpha() for char in text[end - period :])
            return (start, end) if whole else None
    return None


def _start(text: str, period: int) -> int:
    """Return where the last characters begin that repeat with this period."""
    start = len(text) - period
    unit = text[start:]
    while start >= period and text.startswith(unit, start - period):
        start -= period
    return start
