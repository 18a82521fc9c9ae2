"""The lines of a file of bytes, with bounded memory: one that is too long to hold is skipped and said to be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

BLOCK = 1 << 18
LONGEST = 1 << 28
"""The most bytes that are held as one piece: a line, a row of an array, a field, a file that is one row (256 MiB)."""
TOO_LONG = f"more than {LONGEST >> 20} MiB"


class Lines:
    """The lines in order, each without its line break; None for one of more than `LONGEST` bytes.

    A line ends at the byte 0x0A and nowhere else.
    """

    def __init__(self, content: BinaryIO) -> None:
        self._content = content
        self.whole = True
        """False from the moment that a last line without a line break is yielded."""

    def __iter__(self) -> Iterator[bytes | None]:
        pieces: list[bytes] = []  # of the line that goes on in the next block
        length = 0
        while block := self._content.read(BLOCK):
            lines = block.split(b"\n")
            length += len(lines[0])
            if length <= LONGEST:
                pieces.append(lines[0])
            else:
                pieces.clear()
            if len(lines) == 1:
                continue
            last = lines.pop()
            yield b"".join(pieces) if length <= LONGEST else None
            yield from islice(lines, 1, None)
            pieces, length = [last], len(last)
        if length:
            self.whole = False
            yield b"".join(pieces) if length <= LONGEST else None
