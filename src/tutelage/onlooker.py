"""A run folder as all processes of a run but the first have it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tutelage.runs import JOURNALS, Run


class Onlooker(Run):
    """A run folder as a process sees it that does not write there: another one of the run does."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nothing."""
        yield

    def claim(self) -> None:
        """Nothing."""

    def create(self) -> None:
        """Nothing."""

    def write_text(self, name: str, text: str) -> None:
        """Nothing."""

    def append(self, name: str, values: Iterable[Any]) -> None:
        """Nothing."""

    def forget(self, name: str) -> None:
        """Nothing."""

    def sync_journals(self) -> None:
        """Nothing."""

    def cut_back(self, step: int, journals: Sequence[str] = JOURNALS) -> None:
        """Nothing."""
