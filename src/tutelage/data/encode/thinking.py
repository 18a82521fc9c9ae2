"""Which tokens of an answer are its thinking: from the mark that opens it to the mark that closes it.

An answer begins with its thinking, as `<think>...</think>`; the prompt may have written the first mark already, and
white space before the first mark counts as thinking. Where a template writes the thinking of a message between other
marks, the thinking is its text alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from tutelage.data.encode.tokenizer import Tokenizer

OPEN, CLOSE = "<think>", "</think>"


def thinking_span(
    ids: Sequence[int], completion: str, prompt: str, thinking: str | None, tokenizer: Tokenizer
) -> tuple[int, int]:
    """The first token of the thinking and the one after its last; equal where there is none.

    `completion` is the text of `ids`, which follows `prompt`; `thinking` is what the message thinks, if it says so.
    """
    thought = (thinking or "").strip()
    opened = prompt.rstrip().endswith(OPEN)
    start = completion.find(OPEN)
    if opened or (start >= 0 and not completion[:start].strip()):
        after = 0 if opened else start + len(OPEN)
        place = completion.find(thought, after)
        end = completion.find(CLOSE, after if place < 0 else place + len(thought))
        if end >= 0:
            nth = completion.count(CLOSE, 0, end) + 1
            return 0, _end_of(CLOSE, nth, ids, tokenizer)
    if thought and thought in tokenizer.decode(ids):
        end = _end_of(thought, 1, ids, tokenizer)
        return _start_of(thought, ids[:end], tokenizer), end
    return 0, 0


def _end_of(text: str, nth: int, ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """The place after the token that completes the nth occurrence of a text."""
    id = tokenizer.control.get(text)
    if id is not None and list(ids).count(id) >= nth:
        place = -1
        for _ in range(nth):
            place = list(ids).index(id, place + 1)
        return place + 1
    places = range(1, len(ids) + 1)
    return bisect_left(places, nth, key=lambda end: tokenizer.decode(ids[:end]).count(text)) + 1


def _start_of(text: str, ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """The last place from which the tokens still hold the text."""
    return bisect_left(range(len(ids)), True, key=lambda start: text not in tokenizer.decode(ids[start + 1 :]))
