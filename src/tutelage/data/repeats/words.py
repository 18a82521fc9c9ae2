"""The words that texts are compared by: those of the split's normal form, with scripts that write no spaces cut up.

What differs only in case, punctuation, spacing or Unicode compatibility forms has the same words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tutelage.data.split import normal

# Thai to Tibetan, Burmese, Khmer, kana, Chinese characters: a run of them is many words, and nothing says where each
# ends, so that each character counts as one.
_UNSPACED = re.compile(
    "([\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])"
)


_PLAIN = bytes(ord(chr(byte).lower()) if chr(byte).isalnum() or byte == ord("_") else 32 for byte in range(128))
_PLAIN += bytes(128)
"""ASCII in lower case, with spaces for signs: what `normal` does to it, several times as fast."""


def words(text: str) -> list[str]:
    """The words of a text in order; a text of signs alone is its signs."""
    if text.isascii():
        return text.encode().translate(_PLAIN).decode().split() or text.split()
    return _UNSPACED.sub(r" \1 ", normal(text)).split()


def shingles(words: Sequence[str], size: int) -> set[tuple[str, ...]]:
    """Every run of `size` words, each once."""
    return set(zip(*(words[start:] for start in range(size)), strict=False))


def jaccard(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    """What two sets share, as a part of what they hold together; 0 where both are empty."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if shared else 0.0
