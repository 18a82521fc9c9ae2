"""Messages from the keyboard, a pipe or the command line; answers as they are written."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tutelage.cli.screen import printable
from tutelage.types import Message

if TYPE_CHECKING:
    from tutelage.generate.chat import Chat


def converse(model: Chat, *, message: str | None, system: str | None, max_new_tokens: int) -> None:
    """One answer to `message`, or a conversation until the input ends."""
    messages = [] if system is None else [Message("system", system)]
    if message is not None:
        _turn(model, messages, message, max_new_tokens)
        return
    if sys.stdin.isatty():
        print("An empty line or Ctrl-D ends the conversation.", file=sys.stderr)
    while said := _read():
        _turn(model, messages, said, max_new_tokens)


def _read() -> str:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""


def _turn(model: Chat, messages: list[Message], said: str, max_new_tokens: int) -> None:
    messages.append(Message("user", said))
    pieces = []
    for piece in model.answer(messages, max_new_tokens=max_new_tokens):
        sys.stdout.write(printable(piece) if sys.stdout.isatty() else piece)
        sys.stdout.flush()
        pieces.append(piece)
    print()
    if not model.stopped:
        print(f"(cut off after {max_new_tokens} tokens; --max-new-tokens allows more)", file=sys.stderr)
    messages.append(Message("assistant", "".join(pieces)))
