"""Characters that are not what the writer meant: where they are, and what stands there after a repair."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

from tutelage.errors import MachineError, Problem

Span = tuple[int, int]

# ------------------------------------------------------------------------------------ line ends and controls

_LINE_END = re.compile("\r(?!ight[^a-z])\n?|[\u2028\u2029]")
_LATEX = {
    "\x07": r"(?:lpha|ngle|pprox|rray)\b",
    "\x08": r"(?:egin|inom|ar|oldsymbol|mathbf)\{|eta\b|ullet\b",
    "\x0b": r"ec\{|arepsilon\b|arphi\b|ert\b",
    "\x0c": r"(?:rac|box)\{|orall\b",
    "\r": r"ight[^a-z]",
}
"""How a command of LaTeX goes on whose backslash and first letter were read as one control character."""
_COMMAND = "|".join(f"{char}(?={rest})" for char, rest in _LATEX.items())
_CONTROL = re.compile(f"\x1b\\[[0-?]*[ -/]*[@-~]|{_COMMAND}|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LETTERS = dict(zip("\x07\x08\x0b\x0c\r", "abvfr", strict=True))
_SPACING = {"\x0b": "\n", "\x0c": "\n", "\x1c": " ", "\x1d": " ", "\x1e": " ", "\x1f": " "}


def line_ends(text: str) -> Iterator[Span]:
    """Yield where lines end otherwise than with a line feed."""
    return (match.span() for match in _LINE_END.finditer(text))


def with_line_feeds(text: str) -> str:
    """Return the text with a line feed at each line's end."""
    return _LINE_END.sub("\n", text)


def controls(text: str) -> Iterator[Span]:
    """Yield where control characters are; a terminal's colour sequence is one place."""
    return (match.span() for match in _CONTROL.finditer(text))


def without_controls(text: str) -> str:
    """Return the text without control characters, and with white space or Windows-1252 in their place where due."""
    return _CONTROL.sub(_uncontrolled, text)


def _uncontrolled(match: re.Match[str]) -> str:
    char = match[0]
    if char in _LETTERS and re.match(_LATEX[char], match.string[match.end() : match.end() + 16]):
        return "\\" + _LETTERS[char]
    if len(char) > 1 or char < "\x80":
        return _SPACING.get(char, "")
    # Bytes of Windows-1252 that were read as Latin-1, as browsers take them too.
    return char.encode("latin-1").decode("cp1252", "ignore")


# ---------------------------------------------------------------------------------------------- invisible ones

_BREAKING = "\u0e00-\u0eff\u0f00-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf"
"""Scripts without spaces between words (Thai, Lao, Khmer, Burmese ...), in which U+200B marks where a word ends."""
_PLAIN = "\x00-\u052f\u1e00-\u200b\u200e-\u206f\u2e80-\ud7ff\uff00-\uffef"
"""Characters that look the same with a joiner beside them: Latin, Greek, Cyrillic, Han, Kana, Hangul."""
_ZERO_WIDTH = re.compile(
    f"[\u2060\ufeff]|(?<![{_BREAKING}\u200b])\u200b+(?![{_BREAKING}\u200b])|(?<![^{_PLAIN}])[\u200c\u200d]+(?![^{_PLAIN}])"
)
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_OVERRIDE = re.compile("[\u202d\u202e]")
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u061b\u061d-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_TAG = re.compile("(\U0001f3f4[\U000e0030-\U000e007a]{1,6}\U000e007f)|[\U000e0000-\U000e007f]+")


def zero_widths(text: str) -> Iterator[Span]:
    """Yield where characters without width are that neither a script nor an emoji needs."""
    return (match.span() for match in _ZERO_WIDTH.finditer(text))


def without_zero_widths(text: str) -> str:
    """Return the text without them."""
    return _ZERO_WIDTH.sub("", text)


def bidi_controls(text: str) -> Iterator[Span]:
    """Yield where the direction is controlled: everywhere, or only overrides where the text runs both ways."""
    return (match.span() for match in _bidi(text).finditer(text))


def without_bidi_controls(text: str) -> str:
    """Return the text without them."""
    return _bidi(text).sub("", text)


def _bidi(text: str) -> re.Pattern[str]:
    return _OVERRIDE if _RIGHT_TO_LEFT.search(text) else _BIDI


def tags(text: str) -> Iterator[Span]:
    """Yield where tag characters are, other than those that spell the flag of a region."""
    return (match.span() for match in _TAG.finditer(text) if not match[1])


def without_tags(text: str) -> str:
    """Return the text without them."""
    return _TAG.sub(lambda match: match[1] or "", text)


# -------------------------------------------------------------------------------------------------- the rest

_REPLACEMENT = "\ufffd"


def replacements(text: str) -> Iterator[Span]:
    """Yield where the replacement character is."""
    return (match.span() for match in re.finditer(_REPLACEMENT, text))


def decomposed(text: str) -> Iterator[Span]:
    """Yield the first place where the text is not in NFC."""
    if not unicodedata.is_normalized("NFC", text):
        composed = composed_form(text)
        pairs = zip(text, composed, strict=False)
        start = next((i for i, (old, new) in enumerate(pairs) if old != new), min(len(text), len(composed)))
        yield start, min(start + 1, len(text))


def composed_form(text: str) -> str:
    """Return the text in NFC."""
    return unicodedata.normalize("NFC", text)


_TAIL = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
"""What the second and later bytes of UTF-8 look like when they are read as Latin-1 or Windows-1252."""
_MOJIBAKE = re.compile(
    f"(?<![A-ZÀ-Þ])Ã[{_TAIL}]|Â[\x80-\xbf]|â€|â[{_TAIL}]{{2}}|ð[{_TAIL}]{{3}}|(?:[ÐÑ][{_TAIL}]){{2,}}"
    f"|(?:[ä-é][{_TAIL}]{{2}}){{2,}}|ï»¿|ï¿½"
)
MOJIBAKE_SIGNS = re.compile("[ÃÂâðÐÑä-éï]")
"""One of these is in every place that is found, for a quick test."""


def mojibake(text: str) -> Iterator[Span]:
    """Yield where UTF-8 was read as Latin-1 or Windows-1252."""
    return (match.span() for match in _MOJIBAKE.finditer(text))


def mojibake_repair() -> Callable[[str], str]:
    """Return the repair that `ftfy` makes to lines that hold mojibake.

    Raises:
        MachineError: machine/missing-package, when ftfy is not installed.
    """
    try:
        import ftfy
    except ImportError as error:
        problem = Problem(
            "machine/missing-package",
            "`data.clean.mojibake` is `repair`, and `ftfy`, which repairs it, is not installed",
            fix='pip install "tutelage[clean]"',
        )
        raise MachineError(problem) from error
    fix: Any = ftfy.fix_encoding

    def repair(text: str) -> str:
        # A line at a time: one odd character elsewhere would keep ftfy from being sure.
        return "\n".join([_repaired(line, fix) if _MOJIBAKE.search(line) else line for line in text.split("\n")])

    return repair


def _repaired(line: str, fix: Callable[[str], str]) -> str:
    new = fix(line)
    return line if new.count(_REPLACEMENT) > line.count(_REPLACEMENT) else new
