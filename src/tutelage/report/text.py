"""Text and numbers for the page: foreign text made harmless to the eye, numbers made quick to read.

Escaping is the template's work. Here is what escaping does not cover: characters that nobody can see or that
turn the reading direction are spelled out by their code point, long texts are cut with a count of what is
missing, and an answer is compared with its reference word by word.
"""

from __future__ import annotations

import json
import math
import re
from difflib import SequenceMatcher
from itertools import accumulate
from typing import Any

from markupsafe import Markup, escape

TEXT_LIMIT = 4000
"""Characters of one text that are shown."""
WORD_LIMIT = 1000
"""Words of one text that are compared."""
DASH = "–"

# Controls, bidirectional marks, zero-width and filler characters, surrogates, private use, tags,
# noncharacters. The joiners U+200C and U+200D stay: scripts and emoji need them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ue000-\uf8ff\ufeff\uffa0\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
_BLANK = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_MINUS = re.compile(r"(?<![^\s(])-(?=\d)")
_WORD = re.compile(r"\S+|\s+")


def visible(text: str) -> str:
    """The text with characters that cannot be seen spelled as their code point, U+202E for example."""
    return _HIDDEN.sub(_code_point, text)


def visible_token(text: str) -> str:
    """As `visible`, with blanks shown too: a space is ·, a new line ↵, a tab ⇥."""
    text = _BLANK.sub(_code_point, visible(text))
    return text.replace(" ", "·").replace("\n", "↵\n").replace("\t", "⇥") or "∅"


def _code_point(match: re.Match[str]) -> str:
    return f"⟨U+{ord(match[0]):04X}⟩"


def cut(text: str, limit: int = TEXT_LIMIT) -> tuple[str, int]:
    """The visible text, at most `limit` characters of it, and how many of the original are left out."""
    pieces = [visible(character) for character in text[:limit]]
    kept = sum(end <= limit for end in accumulate(map(len, pieces)))
    return "".join(pieces[:kept]), len(text) - kept


def mark_differences(answer: str, reference: str) -> tuple[Markup, int, int]:
    """The answer, with the words marked that the reference lacks; words in common; words in the reference.

    The markup is escaped. Only the first `WORD_LIMIT` words of each are compared; later ones stay unmarked.
    """
    pieces = _WORD.findall(answer)
    places = [i for i, piece in enumerate(pieces) if not piece.isspace()][:WORD_LIMIT]
    words = reference.split()[:WORD_LIMIT]
    matcher = SequenceMatcher(None, [pieces[i] for i in places], words, autojunk=False)
    same: set[int] = set()
    for block in matcher.get_matching_blocks():
        same.update(places[block.a : block.a + block.size])
    end = 0
    marked: list[str] = []
    for tag, start, stop, _, _ in matcher.get_opcodes():
        if tag in ("replace", "delete"):
            first, last = places[start], places[stop - 1] + 1
            marked += [_escaped(pieces[end:first]), "<mark>", _escaped(pieces[first:last]), "</mark>"]
            end = last
    marked.append(_escaped(pieces[end:]))
    return Markup("".join(marked)), len(same), len(words)


def _escaped(pieces: list[str]) -> str:
    return str(escape(visible("".join(pieces))))


def said(sentence: str) -> str:
    """A sentence of a result with the signs that a page has: an arrow for ->, a minus for the hyphen of a number."""
    return _MINUS.sub("−", sentence.replace(" -> ", " → "))


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return DASH if value is None else f"{value:,.0f}"


def decimal(value: float | None, digits: int = 3) -> str:
    """A number with a fixed count of decimals and a real minus sign; scientific where it would not fit."""
    if value is None:
        return DASH
    text = f"{value:,.{digits}f}" if abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """As `decimal`, with a plus sign where it is positive."""
    return ("+" if value is not None and value > 0 else "") + decimal(value, digits)


def brief(value: float | None) -> str:
    """A number in at most four figures, spelled as in a recipe: 2e-5, 0.125, 1,240."""
    if value is None:
        return DASH
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    decimals = 3 if not value else min(6, max(0, 3 - math.floor(math.log10(abs(value)))))
    text = f"{value:,.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def percent(share: float | None) -> str:
    """A share in per cent; one that is neither nothing nor all never reads as either."""
    if share is None:
        return DASH
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    digits = 1 if 0 < share < 0.1 or 0.99 < share < 1 else 0
    return f"{100 * share:.{digits}f} %"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return DASH
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(amount: float | None) -> str:
    """Bytes in the largest binary unit that leaves a number above one."""
    if amount is None:
        return DASH
    power = min(4, int(math.log2(amount) // 10)) if amount >= 1 else 0
    amount /= 1024**power
    digits = 0 if power == 0 or amount >= 100 else 1 if amount >= 10 else 2
    return f"{amount:.{digits}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def setting(value: Any, key: str = "") -> str:
    """Any JSON value as one line; the key's ending says when it is bytes or seconds."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "not given", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        if not math.isfinite(value):
            return str(value)
        ending = key.rsplit(".", 1)[-1]
        if ending.endswith("bytes"):
            return size(value)
        if ending.endswith("seconds"):
            return duration(value)
        return count(value) if isinstance(value, int) else brief(value)
    return json.dumps(value, ensure_ascii=False, default=str)
