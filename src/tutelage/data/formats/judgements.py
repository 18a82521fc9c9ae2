"""Answers judged one by one: the good ones are trained, the bad ones leave with `data/not-chosen`.

A judgement is the column `label` (or `kto_tag`) beside a demonstration in any format, as in KTO's data, or `reward`
beside `context` and `generation`, as in the dialogues of Taskmaster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tutelage.data.formats.conversations import as_context, conversation
from tutelage.data.formats.fields import bad_row, empty_answer, parsed, wrong_type
from tutelage.data.formats.tools import read_calls
from tutelage.errors import DataError, Problem
from tutelage.types import Conversation, Demonstration, Message, Record

JUDGEMENTS = ("label", "kto_tag", "reward")
"""The columns that say whether an answer is good, as true or false, or 1 or 0."""
_GOOD = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_ROLES = {"agent": "assistant", "assistant": "assistant", "user": "user", "api": "tool", "tool": "tool"}


def check_judgement(record: Record) -> None:
    """Pass a row whose answer was judged good.

    Raises:
        DataError: data/not-chosen where it was judged bad; data/bad-row without a judgement that is plain.
    """
    field = next((name for name in JUDGEMENTS if record.fields.get(name) is not None), "label")
    value = record.fields.get(field)
    good = _GOOD.get(str(value).strip().lower()) if isinstance(value, bool | int | float | str) else None
    if good is None:
        if value is None:
            raise wrong_type(record, field, "true or false", None)
        fix = "say which rows are good: true or false, or 1 or 0"
        raise bad_row(record, field, "does not say whether the answer is good", repr(value)[:60], fix)
    if not good:
        what = f"`{field}` says that the answer is bad"
        raise DataError(Problem("data/not-chosen", what, str(record.origin), f"{field}: {value}"))


def only_judged(row: Demonstration) -> Demonstration:
    """Return a demonstration in which only the answer after the last user's turn is trained: the one judged."""
    if not isinstance(row, Conversation):
        return row
    asked = [index for index, message in enumerate(row.messages) if message.role == "user"]
    start = asked[-1] + 1 if asked else 0
    return replace(row, messages=(*as_context(row.messages[:start]), *row.messages[start:]))


def read_rewarded(record: Record, weight: float) -> Conversation:
    """Read `context` (turns) and `generation` (a turn), as objects or as JSON text; only the latter is trained."""
    context = _value(record, "context")
    if not isinstance(context, list):
        raise wrong_type(record, "context", "a list of turns", context)
    before = [message for index, turn in enumerate(context) for message in _read(record, turn, f"context[{index}]")]
    turns = _read(record, _value(record, "generation"), "generation")
    return conversation(record, "generation", as_context(before), tuple(turns), weight)


def _value(record: Record, field: str) -> Any:
    value = record.fields.get(field)
    return parsed(record, field, value) if isinstance(value, str) else value


def _read(record: Record, turn: object, place: str) -> list[Message]:
    """Return the messages of `{role, text}`, `{role, api: {name: arguments}}` or `{role, response: {name: value}}`."""
    if not isinstance(turn, Mapping):
        raise wrong_type(record, place, "an object", turn)
    role, said, called, responded = (turn.get(name) for name in ("role", "text", "api", "response"))
    if not isinstance(role, str) or role not in _ROLES:
        raise bad_row(record, f"{place}.role", "is not a known role", repr(role), ", ".join(_ROLES))
    if _ROLES[role] == "tool":
        if not isinstance(responded, Mapping):
            raise wrong_type(record, f"{place}.response", "an object {name: value}", responded, turn)
        return [Message("tool", json.dumps(value, ensure_ascii=False), name=name) for name, value in responded.items()]
    if not isinstance(called, Mapping | None):
        raise wrong_type(record, f"{place}.api", "an object {name: arguments}", called)
    calls = [{"name": name, "arguments": arguments} for name, arguments in (called or {}).items()]
    if not isinstance(said, str) and (said is not None or not calls):
        raise wrong_type(record, f"{place}.text", "text", said, turn)
    if not calls and not str(said).strip() and place == "generation":
        raise empty_answer(record, f"{place}.text", str(said))
    return [Message(_ROLES[role], said or "", tool_calls=read_calls(record, calls, f"{place}.api"))]
