"""A request to stop: where nothing can be lost it ends the process at once, and where a step is under way after it.

A handler only notes that the signal came, or raises `StopRequested`; it saves nothing itself. Every file is written
so that a process may end at any moment, so raising harms nothing; `held` marks the stretch in which whoever holds it
asks `requested` at the end of each step and ends in order. A second signal ends the process where it stands.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from tutelage.errors import StoppedError

CAUGHT = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name))


class StopRequested(BaseException):
    """Raised where the signal arrives; not an `Exception`, so that no library takes it for a failure of its own."""


class Signals:
    """What came."""

    def __init__(self) -> None:
        self.requested: str | None = None
        """The name of the first signal."""
        self._held = 0
        self._alone = False
        self._before: dict[int, Any] = {}
        self._ear: socket.socket | None = None

    def install(self, *, alone: bool = False) -> None:
        """Listen from now on; does nothing outside of the main thread, where Python does not allow it.

        `alone` says that the process is a command's own, which a signal in the middle of an import may end at once.
        """
        if threading.current_thread() is not threading.main_thread() or self._before:
            return
        self._alone = alone
        for number in CAUGHT:
            if signal.getsignal(number) != signal.SIG_IGN:  # As nohup asks for.
                self._before[number] = signal.signal(number, self._handle)
        self._ear, mouth = socket.socketpair()
        mouth.setblocking(False)
        signal.set_wakeup_fd(mouth.detach(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(self._ear,), name="signals", daemon=True).start()

    def remove(self) -> None:
        """Listen no more, forget what came, and give each signal the meaning back that it had."""
        if threading.current_thread() is threading.main_thread() and self._before:
            for number, before in self._before.items():
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, before)
            os.close(signal.set_wakeup_fd(-1))
            self._before = {}
        self.requested, self._held = None, 0

    def _listen(self, ear: socket.socket) -> None:
        """End the process at the second signal also while Python waits for compiled code."""
        came = 0
        with ear:
            while heard := ear.recv(1):
                came += heard[0] in self._before
                if came > 1:
                    os._exit(_code(heard[0]))

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
            os._exit(_code(number))
        self.requested = signal.Signals(number).name
        if not self._held:
            if self._alone and _importing(frame):
                with suppress(OSError):
                    os.write(2, f"stopped on request ({self.requested}); what was saved before stays\n".encode())
                os._exit(StoppedError.exit_code)
            raise StopRequested(self.requested)


def _importing(frame: FrameType | None) -> bool:
    """Whether an import is under way.

    An exception in the middle of one may be made another exception, be dropped, or end the process through C++.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _code(number: int) -> int:
    """Of a process that a signal ended."""
    return 128 + number


SIGNALS = Signals()
"""Of this process; a process has one set of handlers."""
