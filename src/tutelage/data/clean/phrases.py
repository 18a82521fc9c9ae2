"""Phrases that stand in for something: variables that were not filled in, and refusals in the place of answers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tutelage.data.clean.placeholders import is_no_input

Span = tuple[int, int]

# ------------------------------------------------------------------------------------------------- variables

_VARIABLE = re.compile(r"(?<![\w\\^_}{])\{\{\s{0,3}[A-Za-z_][\w .|-]{0,40}\s{0,3}\}\}(?!\})|<([A-Z][A-Z0-9_ -]{1,30})>")
_HTML = frozenset(
    re.findall(
        r"\w+",
        "A ABBR ADDRESS ARTICLE ASIDE AUDIO B BASE BLOCKQUOTE BODY BR BUTTON CANVAS CAPTION CENTER CITE CODE "
        "COL DD DEL DIV DL DT EM FIELDSET FIGURE FONT FOOTER FORM FRAME FRAMESET H1 H2 H3 H4 H5 H6 HEAD "
        "HEADER HR HTML I IFRAME IMG INPUT INS KBD LABEL LEGEND LI LINK MAIN MAP META NAV NOSCRIPT OBJECT OL "
        "OPTION P PARAM PRE Q S SCRIPT SECTION SELECT SMALL SPAN STRONG STYLE SUB SUP SVG TABLE TBODY TD "
        "TEXTAREA TFOOT TH THEAD TITLE TR TT U UL VAR VIDEO ",
    )
)


def variables(text: str) -> Iterator[Span]:
    """Yield where `{{name}}` and `<NAME>` are; HTML and placeholders are none."""
    for match in _VARIABLE.finditer(text):
        if match[1] not in _HTML and not (match[1] and is_no_input(match[1])):
            yield match.span()


# -------------------------------------------------------------------------------------------------- refusals

_KIND = r"(?:AI|artificial intelligence|language|text-based|large|virtual|digital|helpful|trained|conversational)"
_AI = rf"an? (?:{_KIND}[ -]){{0,3}}?(?:AI|artificial intelligence|language model)\b(?!-)"
_CANNOT = r"(?: cannot| can't| can’t| can not|(?: am|'m|’m) (?:not able|unable))"
_DEED = (
    r"(?:to )?(?:access|analy[sz]e|answer|assist|browse|classify|comply|complete|compose|create|display|do that|draw"
    r"|engage|fulfil|generate|give|help (?:you|with)|identify|open|perform|play|predict|process|produce|provide|show"
    r"|view)"
)
_AS_MODEL = re.compile(
    rf"\bas {_AI}"
    rf"|\bI(?: am|'m|’m) (?:just |only )?{_AI}[^.\n]{{0,80}}(?:cannot|can't|can’t|unable|not able|don't|do not)",
    re.IGNORECASE,
)
_DECLINES = re.compile(rf"\bI(?: am|'m|’m) (?:very |so )?sorry,? but (?:as an|I )|\bI{_CANNOT} {_DEED}\b")
_DECLINES_IN_CHINESE = re.compile(
    "作为(?:一个|一名|一款)?(?:人工智能|AI|大?型?语言模型|机器人)|(?:抱歉|对不起)[^。\n]{0,12}我?(?:无法|不能)"
    "|\\A我(?:无法|不能)(?:提供|回答|帮助|完成|满足)"
)
_HEAD = 160
"""An answer that declines says so at its beginning; later on, somebody in a story may."""


def refusal(answer: str) -> Span | None:
    """Return where an answer declines; None where it does not."""
    match = None
    if "AI" in answer or "language model" in answer:
        match = _AS_MODEL.search(answer)
    head = answer[:_HEAD]
    # Spelled out, because a loop over the words costs as much as the search.
    if match is None and (
        "sorry" in head or "cannot" in head or "can't" in head or "can’t" in head or "able" in head or "can not" in head
    ):
        match = _DECLINES.search(head)
    if match is None and not head.isascii():
        match = _DECLINES_IN_CHINESE.search(head)
    return match.span() if match else None
