"""The markdown blocks of code in a text."""

from __future__ import annotations

import re
from typing import NamedTuple

_PYTHON = re.compile(r"\{?\.?(?:python|py)[\d.]*(?![\w-])")
_WORD = re.compile(r"[\w.+#{}-]*")


class Block(NamedTuple):
    """One of them."""

    start: int
    """Where the line of its first fence begins in the text."""
    language: str
    """The word behind that fence, in small letters."""
    text: str

    @property
    def python(self) -> bool:
        """Whether it says that it is Python."""
        return _PYTHON.match(self.language) is not None


class _Fence(NamedTuple):
    """What opens a block."""

    start: int
    indentation: int
    signs: str
    info: str

    def less(self, line: str) -> str:
        """A line of the block, indented less by as much as the fence."""
        return line[min(self.indentation, len(line) - len(line.lstrip(" \t"))) :]

    def last(self, line: str) -> str | None:
        """What a line holds before the fence that closes the block; None where it closes nothing."""
        line = line.rstrip()
        before = line.rstrip(self.signs[0])
        if len(line) - len(before) < len(self.signs):
            return None
        if before.strip():
            return None if self.signs[0] == "~" or self.signs in before else before
        # Deeper, it is part of the code, as in the example of a docstring.
        return "" if len(before) <= self.indentation + 3 else None


def blocks(text: str) -> list[Block]:
    """Every block, in order. A fence is closed by at least as many of the same signs, and nothing behind them.

    Models write more than markdown allows, so a fence may also open at the end of a sentence, close at the end of a
    line of code, or be indented by any amount, as in a list.
    """
    found: list[Block] = []
    fence: _Fence | None = None
    inside: list[str] = []
    place = 0
    for line in text.splitlines(keepends=True):
        if fence is None:
            fence, inside = _opening(line.rstrip(), place), []
        elif (last := fence.last(line)) is None:
            inside.append(fence.less(line))
        else:
            found.append(_block(fence, [*inside, fence.less(last)]))
            fence = None
        place += len(line)
    return [*found, _block(fence, inside)] if fence else found


def _opening(line: str, start: int) -> _Fence | None:
    code = line.lstrip()
    if code.startswith("~~~"):
        info = code.lstrip("~")
        return _Fence(start, len(line) - len(code), code[: len(code) - len(info)], info)
    head, sign, info = line.rpartition("`")
    before = (head + sign).rstrip("`")
    signs = (head + sign)[len(before) :]
    # Signs that stand in pairs on one line are a span of code and no block.
    if len(signs) < 3 or "```" in before:
        return None
    if before.strip():
        return _Fence(start, 0, signs, info) if _WORD.fullmatch(info.strip()) else None
    return _Fence(start, len(before), signs, info)


def _block(fence: _Fence, lines: list[str]) -> Block:
    return Block(fence.start, (fence.info.split() or [""])[0].lower(), "".join(lines))
