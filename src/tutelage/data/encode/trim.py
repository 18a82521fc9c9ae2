"""Conversations that are longer than an example may be: early turns leave the context, then the middle of a document.

An answer and its stop token are never cut. Each answer is trained once, after as many whole turns as fit before it.
Where not even the turn that asks for the answer fits, the longest message of that turn loses its middle, at the ends
of words, and a mark stands in its place. Messages of the system are cut last, since they say what to do: only when
nothing of the other messages could be kept.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tutelage.types import Completion, Conversation, Example

CUT = "\n[...]\n"
"""Stands where the middle of a message was."""
# A word with the space before it; what is written without spaces is cut every so many characters.
_WORD = re.compile(r"\s*\S{1,16}|\s+")
_JOINERS = "\u200d\ufe0e\ufe0f"


@dataclass(slots=True)
class Trimmed:
    """A conversation's examples, and what was done to have them fit."""

    examples: list[Example]
    early: bool = False
    """Whether turns left the context of an answer."""
    cut: int = 0
    """How many messages lost their middle."""


class Trimmer:
    """Makes rows fit. `encoded` gives the examples of a conversation, each answer of which is trained or not."""

    def __init__(self, encoded: Callable[[Conversation], list[Example]], max_length: int) -> None:
        self._encoded = encoded
        self._max_length = max_length

    def trim(self, conversation: Conversation, answers: Sequence[int]) -> Trimmed:
        """Each answer once, whole, with as many of the turns before it as fit; a window begins with a user's turn.

        Where an answer does not fit even so, its examples are longer than they may be.
        """
        roles = [message.role for message in conversation.messages]
        first = next((i for i, role in enumerate(roles) if role != "system"), 0)
        starts = [first, *(i for i, role in enumerate(roles) if role == "user" and i > first)]
        trimmed = Trimmed([])
        start, done = first, 0

        def fits(start: int, upto: int) -> bool:
            return self._fits(_window(conversation, start, answers[done:upto]))

        while done < len(answers):
            # A window is shorter the later it starts, and longer the more answers it holds.
            before = [place for place in starts if start <= place <= answers[done]]
            chosen = bisect_left(before, True, key=lambda start: fits(start, done + 1))
            if chosen == len(before):
                start, upto = before[-1], done + 1
                part = self._without_middles(_window(conversation, start, answers[done:upto]), trimmed)
                if part is None:
                    return Trimmed(self._encoded(_window(conversation, start, answers[done:upto])))
            else:
                start, upto = before[chosen], done + 1
                while upto < len(answers) and fits(start, upto + 1):
                    upto += 1
                part = _window(conversation, start, answers[done:upto])
            trimmed.examples.extend(self._encoded(part))
            trimmed.early |= start > first
            done = upto
        return trimmed

    def _fits(self, conversation: Conversation) -> bool:
        return max(map(len, self._encoded(conversation))) <= self._max_length

    def _fits_with(self, conversation: Conversation, place: int, content: str) -> bool:
        return self._fits(_with_content(conversation, place, content))

    def _without_middles(self, conversation: Conversation, trimmed: Trimmed) -> Conversation | None:
        """The conversation with messages of its prompt cut until it fits; None where that does not suffice."""
        messages = conversation.messages
        places = [i for i, message in enumerate(messages[:-1]) if message.role != "assistant" and message.content]
        places.sort(key=lambda i: (messages[i].role == "system", -len(messages[i].content)))

        for place in places:
            fits = partial(self._fits_with, conversation, place)
            content = cut_to_fit(messages[place].content, fits, self._max_length)
            trimmed.cut += 1
            if content is not None:
                return _with_content(conversation, place, content)
            conversation = _with_content(conversation, place, CUT.strip())
        return None


def trim_completion(row: Completion, length: Callable[[Completion], int], max_length: int) -> Completion | None:
    """The row with the middle of its prompt cut so that it fits; None where that does not suffice."""
    prompt = cut_to_fit(row.prompt, lambda text: length(replace(row, prompt=text)) <= max_length, max_length)
    return None if prompt is None else replace(row, prompt=prompt)


def cut_to_fit(text: str, fits: Callable[[str], bool], most: int) -> str | None:
    """As much of the beginning and the end of a text as fits, with a mark between; None where nothing does.

    `most` is how many tokens could fit at best.
    """
    ends = list(_ends(text))
    # A token may be longer than a word, but not all of them are by far.
    most = min(len(ends) - 1, 4 * most)

    def shortened(words: int) -> str:
        head, tail = (words + 1) // 2, words // 2
        if not words:
            return CUT.strip()
        return text[: ends[head - 1]] + CUT + text[ends[len(ends) - tail - 1] :]

    if not fits(shortened(0)):
        return None
    kept = bisect_left(range(1, most + 1), True, key=lambda words: not fits(shortened(words)))
    while kept > 0 and not fits(shortened(kept)):  # Lengths need not grow with every word.
        kept -= 1
    return shortened(kept)


def _ends(text: str) -> Iterator[int]:
    """Where a text may be cut: after words, never inside what is one character to a reader."""
    for word in _WORD.finditer(text):
        end = word.end()
        if end == len(text) or not (
            text[end] in _JOINERS or text[end - 1] == "\u200d" or unicodedata.combining(text[end])
        ):
            yield end


def _with_content(conversation: Conversation, place: int, content: str) -> Conversation:
    messages = conversation.messages
    changed = replace(messages[place], content=content)
    return replace(conversation, messages=(*messages[:place], changed, *messages[place + 1 :]))


def _window(conversation: Conversation, start: int, answers: Sequence[int]) -> Conversation:
    """The named answers, with the system messages and the turns from `start` before them."""
    messages = conversation.messages
    head = [message for message in messages[:start] if message.role == "system"]
    body = [
        message if index in answers else replace(message, weight=0.0)
        for index, message in enumerate(messages[start : answers[-1] + 1], start)
    ]
    return replace(conversation, messages=(*head, *body))
