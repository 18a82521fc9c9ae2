"""A file of JSON lines that another process writes: what is new in it, also after it was cut back and grew again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Lines:
    """The whole lines of a growing file, each given once while the file only grows.

    A file that no longer holds the line that was read last is read from its beginning: lines then come again, and who
    reads them tells by their step numbers which are new.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rewind()

    def rewind(self) -> None:
        """Begin again at the first line."""
        self._offset = 0
        self._last = b""

    def new(self) -> Iterator[dict[str, Any]]:
        """The objects of the lines that were added; a line still being written waits for the next call."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self._offset - len(self._last))
            if file.read(len(self._last)) != self._last:
                self.rewind()
            file.seek(self._offset)
            for line in iter(file.readline, b""):
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                self._last = line
                value = _object(line)
                if value is not None:
                    yield value


def _object(line: bytes) -> dict[str, Any] | None:
    """The line's object; None for what is left of a line that a power failure tore."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
