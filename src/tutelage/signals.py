"""A request to stop: where nothing can be lost it ends the process at once, and where a step is under way after it.

A handler only notes that the signal came, or raises `StopRequested`; it saves nothing itself. Every file is written
so that a process may end at any moment, so raising harms nothing; `held` marks the stretch in which whoever holds it
asks `requested` at the end of each step and ends in order. A second signal ends the process where it stands.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CAUGHT = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name))


class StopRequested(BaseException):
    """Raised where the signal arrives; not an `Exception`, so that no library takes it for a failure of its own."""


class Signals:
    """What came."""

    def __init__(self) -> None:
        self.requested: str | None = None
        """The name of the first signal."""
        self._held = 0

    def install(self) -> None:
        """Listen from now on; does nothing outside of the main thread, where Python does not allow it."""
        if threading.current_thread() is threading.main_thread():
            for number in CAUGHT:
                signal.signal(number, self._handle)

    def remove(self) -> None:
        """Listen no more, and forget what came."""
        if threading.current_thread() is threading.main_thread():
            for number in CAUGHT:
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        self.requested, self._held = None, 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a signal is only noted; what asks for it is `requested`."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    @contextmanager
    def released(self) -> Iterator[None]:
        """Inside `held`, a stretch that may be broken off all the same."""
        held, self._held = self._held, 0
        try:
            self.raise_if_requested()
            yield
        finally:
            self._held = held

    def raise_if_requested(self) -> None:
        """End here if a signal was noted before.

        Raises:
            StopRequested.
        """
        if self.requested is not None:
            raise StopRequested(self.requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            os._exit(130 if number == signal.SIGINT else 128 + number)
        self.requested = signal.Signals(number).name
        if not self._held:
            raise StopRequested(self.requested)


SIGNALS = Signals()
"""Of this process; a process has one set of handlers."""
