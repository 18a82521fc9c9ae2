"""Rows that hold the turns of a conversation: `messages`, ShareGPT, and a prompt and its answer as two lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tutelage.data.formats.fields import bad_row, empty_prompt, optional_text
from tutelage.data.formats.tools import check_calls, read_tools
from tutelage.data.formats.turns import read_messages, read_sharegpt
from tutelage.types import Conversation, Message, Record


def read_messages_row(record: Record, weight: float) -> Conversation:
    """Read the column `messages`."""
    return conversation(record, "messages", (), read_messages(record, "messages"), weight)


def read_sharegpt_row(record: Record, weight: float) -> Conversation:
    """Read the column `conversations` (or `conversation`), after the system prompt of the column `system`."""
    field = "conversations" if record.fields.get("conversation") is None else "conversation"
    return conversation(record, field, system(record), read_sharegpt(record, field), weight)


def read_prompt_and_answer(record: Record, answered: str, weight: float) -> Conversation:
    """Read `prompt` and the column `answered`, both lists of turns; the answers in the prompt are not trained."""
    before = read_messages(record, "prompt", context=True)
    if not before:
        raise empty_prompt(record, "prompt")
    return conversation(record, answered, before, read_messages(record, answered), weight)


def conversation(
    record: Record, field: str, before: tuple[Message, ...], turns: tuple[Message, ...], weight: float
) -> Conversation:
    """Check that there is an answer in `turns`, and that what comes before the first is not all empty."""
    first = next((index for index, turn in enumerate(turns) if turn.role == "assistant"), None)
    if first is None:
        roles = ", ".join(turn.role for turn in turns) or "no turns"
        raise bad_row(record, field, "has no assistant turn", roles, "add the answer, or remove the row")
    prompt = (*before, *turns[:first])
    if prompt and not any(turn.content.strip() or turn.tool_calls for turn in prompt):
        raise empty_prompt(record, field)
    tools = read_tools(record)
    if tools:
        check_calls(record, field, turns, tools)
    return Conversation(record.origin, (*before, *turns), weight, tools)


def system(record: Record) -> tuple[Message, ...]:
    """Return the message of the column `system`; none where it is empty."""
    content = optional_text(record, "system")
    return (Message("system", content),) if content else ()


def as_context(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages with answers that are trained only where a turn asks for it."""
    return tuple(
        replace(message, weight=0.0) if message.role == "assistant" and message.weight is None else message
        for message in messages
    )
