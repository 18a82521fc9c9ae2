"""The text of what is written after a prompt, as it stands there and not as a text of its own."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from tutelage.data.encode.tokenizer import Tokenizer


class Continuation:
    """Decodes ids as what follows some other text.

    Tokenizers that put a space before a text take one away where a text begins. Of an answer that would be its own: a
    line of a program would lose one step of its indentation.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def decode(self, ids: Iterable[int], /) -> str:
        """The text of ids, control tokens shown."""
        own = list(ids)
        anchor, before = self._anchor
        whole = self.tokenizer.decode([*anchor, *own])
        return whole[len(before) :] if whole.startswith(before) else self.tokenizer.decode(own)

    @cached_property
    def _anchor(self) -> tuple[list[int], str]:
        """The ids of a letter and their text. A prompt's own last token could be half of a character."""
        (ids,) = self.tokenizer.encode_rendered(["a"])
        return ids, self.tokenizer.decode(ids)
