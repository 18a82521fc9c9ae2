"""Placeholders: `<noinput>` and `<nooutput>`, which some data sets have where there is no input or no answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

from tutelage.data.clean.passages import asked, joined, texts, with_content
from tutelage.types import Completion, Conversation, Demonstration, Instruction

_BARE = r"no[ _-]?(?:in|out)put"
_ANYWHERE = re.compile(rf"[<\[({{][ `'\"\\]{{0,2}}{_BARE}(?:[es]?\b|_)[^\w\n<>\])}}]{{0,3}}[>\])}}]?", re.IGNORECASE)
_NOTHING = rf"\W*{_BARE}[es]?(?: (?:needed|required|provided|given))?\W*"
_WORD = re.compile(_BARE)
_INPUT = re.compile(_NOTHING, re.IGNORECASE)
_ANSWER = re.compile(rf"\W*[<\[({{]\W*{_BARE}[es]?\W*", re.IGNORECASE)
_LAST = re.compile(rf"[^\w\n]*[<\[({{]\W*{_BARE}[es]?\W*", re.IGNORECASE)


class Placeholder(NamedTuple):
    """Where one is, and what it stands for."""

    kind: Literal["input", "answer", "inside"]
    """All of an input, all of a trained answer, or a part of a text."""
    field: str
    text: str
    span: tuple[int, int]


def maybe_placeholders(lower: str) -> bool:
    """Tell quickly whether a text in small letters may hold a placeholder."""
    return "put" in lower and ("input" in lower or "output" in lower) and _WORD.search(lower) is not None


def find_placeholders(row: Demonstration) -> list[Placeholder]:
    """List the placeholders of a row, at most one a field."""
    trained = set(_answers(row))
    without = dict(texts(without_placeholders(row)))
    found = []
    for field, text in texts(row):
        match = _ANYWHERE.search(text)
        if field in trained and _ANSWER.fullmatch(text):
            found.append(Placeholder("answer", field, text, (0, len(text))))
        elif without[field] != text:
            found.append(Placeholder("input", field, text, (len(without[field]), len(text))))
        elif match:
            found.append(Placeholder("inside", field, text, match.span()))
    return found


def is_no_input(text: str) -> bool:
    """Tell whether an input says nothing but that there is none."""
    return bool(_INPUT.fullmatch(text))


def without_placeholders(row: Demonstration) -> Demonstration:
    """Return the row without inputs that are nothing but a placeholder; the same row where there are none."""
    if isinstance(row, Completion):
        prompt = _without_last(row.prompt)
        return row if prompt == row.prompt else replace(row, prompt=prompt)
    if not isinstance(row, Conversation):
        return row
    messages = list(row.messages)
    instruction, place = row.instruction, asked(row.messages)
    for index, message in enumerate(messages):
        if message.role == "user":
            messages[index] = with_content(message, _without_last(message.content))
    if instruction and instruction.text.strip() and is_no_input(instruction.input):
        if place is not None and row.messages[place].content == joined(instruction.text, instruction.input):
            messages[place] = with_content(row.messages[place], instruction.text)
        instruction = Instruction(instruction.text)
    elif instruction and (shorter := _without_last(instruction.input)) != instruction.input:
        instruction = Instruction(instruction.text, shorter)
    same = all(new is old for new, old in zip(messages, row.messages, strict=True))
    return (
        row
        if same and instruction is row.instruction
        else replace(row, messages=tuple(messages), instruction=instruction)
    )


def _without_last(text: str) -> str:
    """Leave out a last line that is nothing but a placeholder, with the line "Input:" above it."""
    head, line_end, last = text.rstrip().rpartition("\n")
    if not line_end or not _LAST.fullmatch(last):
        return text
    rest = head.rstrip()
    above, _, label = rest.rpartition("\n")
    if label.strip(" #*").lower() in ("input:", "input"):
        rest = above.rstrip()
    return rest or text


def _answers(row: Demonstration) -> Iterator[str]:
    """Yield the fields of the trained answers."""
    if isinstance(row, Completion):
        yield "completion"
    elif isinstance(row, Conversation):
        for place, message in enumerate(row.messages):
            if message.role == "assistant" and message.trained > 0:
                yield f"messages[{place}].content"
