"""Two answers to one prompt, of which one was judged the better.

The prompt stands beside the answers (an instruction, text, turns), or at the beginning of both (lists of turns, and
hh-rlhf's text). A pair is refused where its answers are equal, one is empty, or they answer different prompts, since
such a pair teaches something else than what it seems to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.data.formats.conversations import as_context, system
from tutelage.data.formats.fields import bad_row, empty_answer, empty_prompt, text, wrong_type
from tutelage.data.formats.instructions import read_alpaca
from tutelage.data.formats.tools import check_calls, read_tools
from tutelage.data.formats.turns import read_turns
from tutelage.types import Conversation, Message, Preference, Record

_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):[ ]?")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_BESIDE = ("instruction", "conversations", "conversation")
"""Columns that hold the prompt and nothing else, where a row has two answers."""


def read_preference(record: Record, weight: float) -> Preference:
    """Read a row with the columns `chosen` and `rejected`.

    Raises:
        DataError: data/bad-row, data/empty-answer.
    """
    beside = any(record.fields.get(name) is not None for name in _BESIDE)
    if not beside and _opens_with_prompt(record.fields.get("chosen")):
        prompt, chosen, rejected = _split(record)
    else:
        prompt = _prompt(record)
        chosen, rejected = _answers(record, "chosen"), _answers(record, "rejected")
    _check_answers(record, "chosen", chosen)
    _check_answers(record, "rejected", rejected)
    if not any(message.content.strip() or message.tool_calls for message in prompt):
        raise empty_prompt(record, "prompt")
    if _said(chosen) == _said(rejected):
        fix = "remove the row: it says that an answer is better than itself"
        raise bad_row(record, "rejected", "is equal to `chosen`", repr(chosen[-1].content[:60]), fix)
    tools = read_tools(record)
    if tools:
        check_calls(record, "chosen", chosen, tools)
    return Preference(record.origin, prompt, chosen, rejected, weight, tools)


def read_chosen(record: Record, weight: float) -> Conversation:
    """Read the same row as a demonstration: of its answers, only the one that was chosen is trained."""
    pair = read_preference(record, weight)
    return Conversation(record.origin, (*as_context(pair.prompt), *pair.chosen), weight, pair.tools)


def _opens_with_prompt(value: object) -> bool:
    """Tell whether answers begin with the prompt: a turn that is not the assistant's, or hh-rlhf's text."""
    if isinstance(value, str):
        return _SPEAKER.match(value) is not None
    first = value[0] if isinstance(value, list) and value else None
    roles = ("system", "developer", "user", "human")
    return isinstance(first, Mapping) and first.get("role", first.get("from")) in roles


def _split(record: Record) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
    """Return (prompt, chosen, rejected) of two columns that both begin with the prompt: what they have in common."""
    chosen, rejected = (
        _spoken(record, field) if isinstance(record.fields.get(field), str) else read_turns(record, field)
        for field in ("chosen", "rejected")
    )
    pairs = zip(_said(chosen), _said(rejected), strict=False)
    differing = (index for index, (better, worse) in enumerate(pairs) if better != worse)
    shared = next(differing, min(len(chosen), len(rejected)))
    if shared == min(len(chosen), len(rejected)):  # equal, or one goes on: each keeps an answer of its own
        while shared and chosen[shared - 1].role == "assistant":
            shared -= 1
    asked = {message.content for message in chosen[:shared]}
    if record.fields.get("prompt") is not None:
        for message in _prompt(record):
            if message.role == "user" and message.content not in asked:
                found = repr(message.content[:60])
                raise bad_row(record, "prompt", "is not the prompt with which the answers begin", found, "keep one")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _prompt(record: Record) -> tuple[Message, ...]:
    """Return the prompt that stands beside the answers."""
    fields = record.fields
    if fields.get("instruction") is not None:
        return read_alpaca(Record(record.origin, {**fields, "output": "(any)"}), 1.0).messages[:-1]
    for name in ("conversations", "conversation", "prompt", "messages"):
        value = fields.get(name)
        if isinstance(value, str) and name == "prompt":
            return (*system(record), *_spoken_prompt(record))
        if value is not None:
            return (*system(record), *read_turns(record, name, context=True))
    columns = ", ".join(f"`{name}`" for name in fields)
    fix = "give `prompt`, `instruction` or `conversations`, or begin both answers with the prompt"
    raise bad_row(record, "prompt", "is missing", columns, fix)


def _spoken_prompt(record: Record) -> tuple[Message, ...]:
    r"""Return `prompt` as a user's message, or as turns where it is hh-rlhf's text, which ends in `\n\nAssistant:`."""
    value = text(record, "prompt")
    if not _SPEAKER.match(value):
        return (Message("user", value),)
    turns = _spoken(record, "prompt")
    return turns[:-1] if turns[-1].role == "assistant" and not turns[-1].content.strip() else turns


def _spoken(record: Record, field: str) -> tuple[Message, ...]:
    r"""Return the turns of hh-rlhf's text, `\n\nHuman: ...\n\nAssistant: ...`."""
    value = text(record, field)
    pieces = _SPEAKER.split(value)
    if len(pieces) < 3 or pieces[0]:
        what = "does not begin with `Human:`, as the other answer does"
        raise bad_row(record, field, what, repr(value[:60]), "begin both answers with the prompt, or neither")
    return tuple(Message(_SPEAKERS[name], said) for name, said in zip(pieces[1::2], pieces[2::2], strict=True))


def _answers(record: Record, field: str) -> tuple[Message, ...]:
    """Return an answer that stands beside its prompt: text, a turn, or a list of turns."""
    value = record.fields.get(field)
    if isinstance(value, str):
        return (Message("assistant", value),)
    if not isinstance(value, list | Mapping):
        raise wrong_type(record, field, "text, a turn or a list of turns", value)
    return read_turns(record, field)


def _check_answers(record: Record, field: str, answers: Sequence[Message]) -> None:
    if not answers or answers[0].role != "assistant":
        roles = ", ".join(message.role for message in answers) or "no turns"
        fix = "two answers make a pair only if they answer the same prompt"
        raise bad_row(record, field, "does not begin with an assistant's turn", roles, fix)
    for message in answers:
        if message.role == "assistant" and not message.tool_calls and not message.content.strip():
            raise empty_answer(record, field, message.content)


def _said(messages: Sequence[Message]) -> list[tuple[Any, ...]]:
    """Return what tells messages apart; not how they are weighted."""
    return [(message.role, message.content, message.thinking, message.tool_calls) for message in messages]
