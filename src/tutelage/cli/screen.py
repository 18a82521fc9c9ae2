"""Progress on standard error: a bar with time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import TimeElapsedColumn as Elapsed

from tutelage.screen import Advance

EVERY_SECONDS = 15.0
"""Between lines where there is no terminal to draw a bar on."""


_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def printable(text: str) -> str:
    """The text with control characters as pictures: a row must not be able to steer the terminal it is shown on."""
    return text.translate(_PICTURES)


class Lasting:
    """A stream to which writing never fails: a run does not fail because nobody looks at it any more."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or io.StringIO()  # Python has none where the process was started without it.

    def write(self, text: str) -> int:
        """What could not be shown is lost."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            self._give_up()
        return len(text)

    def flush(self) -> None:
        """The same."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def _give_up(self) -> None:
        # What is still held goes nowhere, or Python would fail over it at its end.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Terminal:
    """Shows progress with `rich`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(file=Lasting(sys.stderr), quiet=quiet, highlight=False)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """A bar while inside; afterwards how long it took, if that was noticeable."""
        started = time.perf_counter()
        drawn = self._bar(name, total) if self.console.is_terminal else self._lines(name, total)
        with drawn as advance:
            yield advance
        seconds = time.perf_counter() - started
        if seconds >= 2:
            self.say(f"done    {name}: {seconds:.0f} s")

    @contextmanager
    def _bar(self, name: str, total: int | None) -> Iterator[Advance]:
        end = [] if total is None else [BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn()]
        columns = [
            SpinnerColumn(),
            TextColumn("{task.description}"),
            *end,
            Elapsed(),
            TextColumn("{task.fields[note]}"),
        ]
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(name, total=total, note="")
            count = 0

            def advance(done: int = 1, note: str = "") -> None:
                nonlocal count
                count += done
                shown = note if total is not None else f"{count:,} {note}"
                progress.update(task, advance=done, note=shown)

            yield advance

    @contextmanager
    def _lines(self, name: str, total: int | None) -> Iterator[Advance]:
        started = last = time.perf_counter()
        count = 0

        def advance(done: int = 1, note: str = "") -> None:
            nonlocal count, last
            count += done
            now = time.perf_counter()
            if now - last < EVERY_SECONDS:
                return
            last = now
            of = "" if total is None else f" of {total:,}"
            left = "" if not total or not count else f", {(now - started) * (total - count) / count:.0f} s left"
            self.say(f"        {name}: {count:,}{of}{left}  {note}")

        yield advance
