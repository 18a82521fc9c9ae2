"""The same text, once what does not matter is taken away; each thing that does not matter is named."""

from __future__ import annotations

import unicodedata
from typing import Any, ClassVar, Literal

from tutelage.recipe.base import Section
from tutelage.scoring.mark import Mark, Scored, check_texts, texts


class Normal(Section):
    """What is overlooked when two texts are compared."""

    strip: bool = True
    """White space at the ends."""
    spaces: bool = False
    """How much white space there is between words, and of which kind."""
    case: bool = False
    """Upper and lower case."""
    unicode: Literal["no", "nfc", "nfkc"] = "nfc"
    """How a character is spelled: nfc joins a letter and its accent, nfkc also makes wide and raised letters plain."""
    punctuation: bool = False
    """Every character of punctuation, wherever it stands."""

    def of(self, text: str) -> str:
        """The text without it."""
        if self.unicode != "no":
            text = unicodedata.normalize("NFC" if self.unicode == "nfc" else "NFKC", text)
        if self.case:
            text = text.casefold()
        if self.punctuation:
            text = "".join(char for char in text if not unicodedata.category(char).startswith("P"))
        if self.spaces:
            text = " ".join(text.split())
        return text.strip() if self.strip else text


class Exact(Scored):
    """1 for the same text, 0 for any other; of several references one is enough."""

    version: ClassVar[int] = 2
    kind: Literal["exact"] = "exact"
    overlook: Normal = Normal()
    """What does not count as a difference."""

    def mark(self, answer: str, reference: Any) -> Mark:
        """Compare the whole answer."""
        found = self.overlook.of(answer)
        same = any(found == self.overlook.of(one) for one in texts(reference))
        return Mark(float(same), found)

    def check(self, reference: Any) -> None:
        """Refuse null.

        Raises:
            BadReference: it accepts no text.
        """
        check_texts(reference)
