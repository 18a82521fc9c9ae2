"""The moment that chat templates write: now, or that at which a run was begun, which goes on with the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

_fixed: datetime | None = None  # Of the process, not of a context: threads render, too.


def now() -> datetime:
    """Local time, or what `at` says it is."""
    return _fixed or datetime.now()


@contextmanager
def at(moment: datetime) -> Iterator[None]:
    """While this holds, templates write this moment."""
    global _fixed
    before, _fixed = _fixed, moment
    try:
        yield
    finally:
        _fixed = before
