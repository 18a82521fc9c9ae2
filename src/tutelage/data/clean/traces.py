"""What a text may hold, told in a few passes at the speed of memory, so that closer looks are rare.

A trace is no finding: it only says that a rule has to look.
"""

from __future__ import annotations

import re
import string

_PLAIN = (string.ascii_lowercase + "\n\t !\"#$%&'()*+,-./:;=>?[\\]^_`|~").encode()
_DIGITS = string.digits.encode()
_HIDDEN = re.compile("[\x80-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffd\U000e0000-\U000e007f]")
_CONTROLS = bytes([*range(9), *range(11, 32), 127])


class Traces:
    """What one text may hold."""

    __slots__ = ("ascii", "controls", "digits", "hidden", "lower", "rare", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.ascii = text.isascii()
        # What is left has capitals, digits, control characters, "@", "{", "}", "<", and all that is not ASCII; it is
        # short, so that looking for something in it is cheap.
        rare = text.encode("utf-8", "surrogatepass").translate(None, _PLAIN)
        self.rare = rare.translate(None, _DIGITS)
        self.digits = len(rare) - len(self.rare)
        self.controls = bool(self.rare) and len(self.rare.translate(None, _CONTROLS)) < len(self.rare)
        # Every character above ASCII that some rule is about, other than by its neighbours.
        self.hidden = not self.ascii and _HIDDEN.search(text) is not None
        self.lower = text.lower()
