"""Which rows are held out: decided by a hash of the normalised prompt, before anything else happens to the rows.

Equal prompts hash equally, so duplicates land on one side however they are mixed or repeated; and a row's side does
not change when other rows are added.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from tutelage.types import Completion, Conversation, Demonstration

_NOT_A_WORD = re.compile(r"\W+")


def prompt_key(row: Demonstration) -> str:
    """Hash of what the row asks: every user turn, without case, punctuation or spacing."""
    if isinstance(row, Conversation):
        asked = [m.content for m in row.messages if m.role == "user"] or [m.content for m in row.messages[:1]]
    elif isinstance(row, Completion):
        asked = [row.prompt]
    else:
        asked = [row.text]
    words = (_NOT_A_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip() for text in asked)
    # Prompts of signs alone ("+", "-") differ only in their signs.
    text = "\x1f".join(w or raw for w, raw in zip(words, asked, strict=True))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def is_heldout(key: str, share: float) -> bool:
    """Whether the prompt with this key is held out; true for `share` of all prompts."""
    return position(key) < share


def position(key: str) -> float:
    """The key's place in [0, 1), uniform over prompts."""
    return int(key[:13], 16) / 16**13
