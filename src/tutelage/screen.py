"""What a command tells whoever watches: lines, and stages that take time. Torch-free, and silent by default."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

Advance = Callable[..., None]
"""Called with how much was done, and optionally `note=` with a word to show beside the bar."""


class Screen(Protocol):
    """Shows progress on standard error."""

    def say(self, text: str) -> None:
        """Show a line."""
        ...

    def stage(self, name: str, total: int | None) -> _Stage:
        """Show a bar while inside; None where the end is not known."""
        ...


class _Stage(Protocol):
    def __enter__(self) -> Advance: ...

    def __exit__(self, *exception: object) -> bool | None: ...


class Silent:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """Nothing."""
        yield lambda done=1, note="": None


SILENT = Silent()
"""The default of every command."""
