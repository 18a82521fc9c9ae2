"""What can be wrong with an answer beside its prompt: copied from it, cut off, looping, in another script.

Each function takes the prompt, the input where the row gives it apart, and the answer, and returns where it is wrong.
"""

from __future__ import annotations

import re

from tutelage.data.clean.loops import loop
from tutelage.data.clean.phrases import refusal
from tutelage.data.clean.scripts import scripts

Span = tuple[int, int]


def declined(prompt: str, input: str, answer: str) -> Span | None:
    """Return where the answer declines."""
    return refusal(answer)


_BEGINS = 20
"""A shorter prompt, as "The", can begin its answer by chance."""


def copied(prompt: str, input: str, answer: str) -> Span | None:
    """Return the whole answer where it equals the prompt or the input, its beginning where that is the prompt."""
    first, asked, given = answer[:1], prompt[:1], input[:1]
    # Comparing the first characters settles nearly all rows.
    if first not in (asked, given) and not (first.isspace() or asked.isspace() or given.isspace()):
        return None
    start, wanted, plain = len(answer) - len(answer.lstrip()), prompt.strip(), answer.strip()
    if plain and plain in (wanted, input.strip()):
        return start, start + len(plain)
    if len(wanted) >= _BEGINS and plain.startswith(wanted):
        return start, start + len(wanted)
    return None


_LONG = 400
_SENTENCE_ENDS = frozenset(".!?…。！？\"'”’»)]}>*_`|:;~）」』】")
_LISTED = re.compile(r"\s|[-*•+#>|]|\d+[.)]|[A-Za-z][.)] ")
_WORDS = 8
_SHOWN = 40
_FENCE = re.compile(r"^ {0,3}```", re.MULTILINE)


def truncated(prompt: str, input: str, answer: str) -> Span | None:
    """Return the last line of a long answer that ends within a sentence, or a code fence that nothing closes.

    Lists, headings, tables, indented lines and short lines end without a full stop and are none.
    """
    if "```" in answer:
        fences = list(_FENCE.finditer(answer))
        if len(fences) % 2:
            return fences[-1].span()
        if fences:
            return None
    if len(answer) < _LONG or answer[-1] in _SENTENCE_ENDS:
        return None
    plain = answer.rstrip()
    if not plain or not (plain[-1].isalnum() or plain[-1] in ",-–—(，、"):
        return None
    start = plain.rfind("\n") + 1
    line = plain[start:]
    words = len(line.split()) if line.isascii() else max(len(line.split()), len(line) // 4)
    return None if words < _WORDS or _LISTED.match(line) else (max(start, len(plain) - _SHOWN), len(plain))


def looping(prompt: str, input: str, answer: str) -> Span | None:
    """Return the loop at the answer's end."""
    return loop(answer)


_ASKED = re.compile(
    r"translat|language|transliterat|alphabet|script|\b(?:in|to|into|from) [A-Z][a-z]+"
    r"|English|Chinese|Japanese|Korean|Arabic|Russian|Hindi|Greek|Hebrew|Thai|Mandarin|kanji|hanzi|emoji"
    r"|翻译|译[成为]|中文|汉语|英文|英语|日语|韩语|法语|德语|俄语|拼音|翻訳|英語|日本語|中国語|번역|영어",
    re.IGNORECASE,
)
_LETTERS = 12
"""Fewer letters than this are a name or a formula."""
_SAMPLE = 200
"""Characters that are looked at."""
_MOST, _FEW = 0.6, 0.05


def _mostly_ascii(text: str) -> bool:
    return 4 * (len(text.encode("utf-8", "surrogatepass")) - len(text)) < len(text)


def other_script(prompt: str, input: str, answer: str) -> Span | None:
    """Return the answer's beginning where most of it is in a script that the prompt hardly has and does not ask for."""
    if answer.isascii() and prompt.isascii():
        return None
    if _mostly_ascii(answer) and _mostly_ascii(prompt):
        return None
    inside, asked = scripts(answer[:_SAMPLE]), scripts(prompt[:_SAMPLE])
    if inside.total() < _LETTERS or asked.total() < _LETTERS:
        return None
    script, count = inside.most_common(1)[0]
    if count < _MOST * inside.total() or asked[script] > _FEW * asked.total() or "```" in answer:
        return None
    return None if _ASKED.search(prompt) else (0, min(len(answer), 40))
