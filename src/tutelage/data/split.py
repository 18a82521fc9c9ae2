"""Which rows are held out: decided by a hash of the normalised prompt, before anything else happens to the rows.

Equal prompts hash equally, so duplicates land on one side however they are mixed or repeated; and a row's side does
not change when other rows are added.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from tutelage.types import Completion, Conversation, Demonstration

_NOT_A_WORD = re.compile(r"\W+")
_ASCII = str.maketrans({chr(code): " " for code in range(128) if not (chr(code).isalnum() or chr(code) == "_")})


def asked(row: Demonstration) -> list[str]:
    """What the row asks: every user turn, or what comes first where no user speaks."""
    if isinstance(row, Conversation):
        return [m.content for m in row.messages if m.role == "user"] or [m.content for m in row.messages[:1]]
    return [row.prompt if isinstance(row, Completion) else row.text]


def answered(row: Demonstration) -> list[str]:
    """What the row trains: every trained turn, with its calls; nothing for a plain text."""
    if isinstance(row, Conversation):
        trained = [m for m in row.messages if m.trained > 0]
        return [m.content + "".join(map(str, (m.thinking or "", *m.tool_calls))) for m in trained]
    return [row.completion] if isinstance(row, Completion) else []


def normal(text: str) -> str:
    """The words of a text, without case, punctuation or spacing; a text of signs alone stays as it is."""
    if text.isascii():  # The same as below, several times faster.
        words = " ".join(text.translate(_ASCII).lower().split())
    else:
        folded = unicodedata.normalize("NFKC", text).casefold()
        words = " ".join(_NOT_A_WORD.sub(_marks_alone, folded).split())
    return words or text


def _marks_alone(between: re.Match[str]) -> str:
    """What lies between words, as spaces; but vowel signs and accents that stand for themselves are part of a word."""
    return "".join(c if unicodedata.category(c).startswith("M") else " " for c in between.group())


def prompt_key(row: Demonstration) -> int:
    """64-bit hash of the normalised prompt."""
    return int.from_bytes(_digest(map(normal, asked(row)))[:8], "big")


def keys(row: Demonstration) -> tuple[int, int]:
    """`prompt_key`, and a 64-bit hash of the prompt and the answers, whose spacing alone is overlooked."""
    prompt = _digest(map(normal, asked(row)))
    pair = hashlib.blake2b(prompt, digest_size=8)
    for text in answered(row):
        pair.update(b"\x1f" + " ".join(text.split()).encode("utf-8", "surrogatepass"))
    return int.from_bytes(prompt[:8], "big"), int.from_bytes(pair.digest(), "big")


def _digest(texts: Iterable[str]) -> bytes:
    return hashlib.blake2b("\x1f".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def position(key: int) -> float:
    """The key's place in [0, 1), uniform over prompts; a prompt is held out when it is below the share."""
    return (key >> 12) / 2**52
