"""The turns of a conversation: which are empty, which follow one of their own role, which are out of order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from tutelage.data.clean.passages import asked, joined, with_content
from tutelage.types import Conversation, Instruction, Message

Roles = tuple[str, ...]
Messages = tuple[Message, ...]


def ordinary(messages: Messages) -> bool:
    """Tell quickly that no turn is empty or out of order, and that none follows one of its own role."""
    roles = []
    for message in messages:
        roles.append(message.role)
        if not message.content or message.content.isspace():
            return False
    return _usual(tuple(roles))


@lru_cache(maxsize=4096)
def _usual(roles: Roles) -> bool:
    return not (_repeats(roles) or _out_of_order(roles))


def empty(messages: Messages) -> Iterator[int]:
    """Yield the places of context turns without content; a tool that answers nothing is none."""
    for place, message in enumerate(messages):
        if not message.content.strip() and not message.tool_calls and message.role != "tool":
            yield place


def without_empty_systems(row: Conversation) -> Conversation:
    """Return the row without empty system turns; what another empty turn meant cannot be known."""
    gone = {place for place in empty(row.messages) if row.messages[place].role == "system"}
    kept = tuple(message for place, message in enumerate(row.messages) if place not in gone)
    return replace(row, messages=kept) if gone else row


def repeated(messages: Messages) -> Iterator[int]:
    """Yield the places of turns that follow one of their own role; tools and their calls may come in rows."""
    for place in _repeats(tuple([message.role for message in messages])):
        if not (messages[place].tool_calls or messages[place - 1].tool_calls):
            yield place


@lru_cache(maxsize=4096)
def _repeats(roles: Roles) -> tuple[int, ...]:
    return tuple(i for i in range(1, len(roles)) if roles[i] == roles[i - 1] != "tool")


def joined_turns(row: Conversation) -> Conversation:
    """Return the row with turns of the user or the system that follow each other joined with an empty line.

    Answers are not joined, because each may have its own weight; neither are turns with different names or weights.
    """
    last = asked(row.messages)
    turns: list[Message] = []
    instruction = row.instruction
    for place, message in enumerate(row.messages):
        if not (place and joinable(row.messages, place)):
            turns.append(message)
            continue
        before = turns[-1].content
        turns[-1] = with_content(message, joined(before, message.content))
        if place == last and instruction:
            instruction = Instruction(joined(before, instruction.text), instruction.input)
    return row if len(turns) == len(row.messages) else replace(row, messages=tuple(turns), instruction=instruction)


def joinable(messages: Messages, place: int) -> bool:
    """Tell whether a turn can be joined to the one before it."""
    first, second = messages[place - 1], messages[place]
    same = first.role == second.role and first.name == second.name and first.weight == second.weight
    plain = not (first.thinking or second.thinking or first.tool_calls or second.tool_calls)
    return same and plain and first.role in ("user", "system")


def disordered(messages: Messages) -> tuple[int, ...]:
    """Return the place of the first turn that is out of order, if there is one."""
    return _out_of_order(tuple([message.role for message in messages]))


@lru_cache(maxsize=4096)
def _out_of_order(roles: Roles) -> tuple[int, ...]:
    begun = answered = False
    for place, role in enumerate(roles):
        if role == "system":
            # Several at the start are turns of one role in a row, which is another rule's business.
            wrong = begun
        elif role == "tool":
            wrong = not answered
        else:
            wrong = role == "assistant" and not begun
            begun = True
            answered = answered or role == "assistant"
        if wrong:
            return (place,)
    return () if roles and roles[-1] == "assistant" else (len(roles) - 1,)
