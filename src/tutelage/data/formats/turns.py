"""The turns of a conversation, as `{role, content}` or as ShareGPT's `{from, value}`, to `Message`s.

Both spellings end in the same thing: known roles, content as text, the weight that the turn asks for, and tool calls
in one form. A turn that would need a guess is refused, and so is one with a misspelt key.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tutelage.data.formats.fields import NEAR, bad_row, empty_answer, number, parsed, wrong_type
from tutelage.data.formats.tools import read_calls
from tutelage.types import Message, Record

Turn = Mapping[str, Any]

_ROLES = {
    **{"system": "system", "developer": "system", "user": "user", "assistant": "assistant"},
    **{"tool": "tool", "function": "tool"},
}
_SHAREGPT_ROLES = {
    "system": "system",
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "model", "chatgpt", "bard", "bing", "function_call"), "assistant"),
    **dict.fromkeys(("observation", "tool", "function_response"), "tool"),
}
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_WEIGHTS = ("train", "weight", "loss_weight")
_MESSAGE_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id", "function_call", *_THOUGHTS, *_WEIGHTS}
_SHAREGPT_KEYS = {"from", "value", *_WEIGHTS}
_FOREIGN_WEIGHTS = {"mask", "masked", "loss", "loss_mask", "training", "trainable", "train_detail"}
"""Keys with which other tools choose what is trained: to pass over one would train what the row says not to."""
_OPEN, _CLOSE = "<think>", "</think>"


def read_messages(record: Record, field: str, *, context: bool = False) -> tuple[Message, ...]:
    """Read a list of `{role, content}`; as `context`, answers are trained only where a turn asks for it."""
    turns = _turns(record, record.fields.get(field), field)
    return tuple([_read_message(record, turn, field, index, context) for index, turn in enumerate(turns)])


def read_sharegpt(record: Record, field: str, *, context: bool = False) -> tuple[Message, ...]:
    """Read a list of `{from, value}`; as `context`, answers are trained only where a turn asks for it."""
    turns = _turns(record, record.fields.get(field), field)
    return tuple([_read_sharegpt_turn(record, turn, field, index, context) for index, turn in enumerate(turns)])


def read_turns(record: Record, field: str, *, context: bool = False) -> tuple[Message, ...]:
    """Read one turn or a list of them, in either spelling."""
    value = record.fields.get(field)
    turns = _turns(record, [value] if isinstance(value, Mapping) else value, field)
    reads = [_read_sharegpt_turn if "from" in turn and "role" not in turn else _read_message for turn in turns]
    pairs = zip(reads, turns, strict=True)
    return tuple([read(record, turn, field, index, context) for index, (read, turn) in enumerate(pairs)])


def _turns(record: Record, turns: object, field: str) -> list[Turn]:
    if not isinstance(turns, list):
        error = wrong_type(record, field, "a list of turns", turns)
        if isinstance(turns, str) and turns.lstrip().startswith("["):
            fix = "the column holds JSON as text: store the list itself, in a .jsonl or .parquet file"
            error = bad_row(record, field, "is not a list of turns", f"text: {turns[:60]!r}", fix)
        raise error
    for index, turn in enumerate(turns):
        if not isinstance(turn, Mapping):
            raise wrong_type(record, f"{field}[{index}]", "an object", turn)
    return turns


def _read_message(record: Record, turn: Turn, field: str, index: int, context: bool) -> Message:
    given, content = turn.get("role"), turn.get("content")
    if len(turn) == 2 and type(content) is str and type(given) is str and given in _ROLES:  # most turns by far
        role = _ROLES[given]
        message = Message(role, content, 0.0 if context and role == "assistant" else None)
        return _answered(record, message, field, index, "content") if role == "assistant" else message
    place = f"{field}[{index}]"
    role = _read_role(record, turn, f"{place}.role", _ROLES)
    calls = _read_calls(record, turn, place)
    content, thinking = _read_content(record, turn, place, optional=bool(calls))
    weight = _read_weight(record, turn, place)
    if weight is None and context and role == "assistant":
        weight = 0.0
    for key in ("name", "tool_call_id"):
        if not isinstance(turn.get(key), str | None):
            raise wrong_type(record, f"{place}.{key}", "text", turn[key])
    if not turn.keys() <= _MESSAGE_KEYS:
        _check_keys(record, turn, place, _MESSAGE_KEYS)
    message = Message(role, content, weight, thinking, calls, turn.get("name"), turn.get("tool_call_id"))
    return _answered(record, message, field, index, "content")


def _read_sharegpt_turn(record: Record, turn: Turn, field: str, index: int, context: bool) -> Message:
    given, value = turn.get("from"), turn.get("value")
    if type(given) is not str or given not in _SHAREGPT_ROLES:
        _read_role(record, turn, f"{field}[{index}].from", _SHAREGPT_ROLES)
    role = _SHAREGPT_ROLES[str(given)]
    weight = _read_weight(record, turn, f"{field}[{index}]") if len(turn) > 2 else None
    if weight is None and context and role == "assistant":
        weight = 0.0
    if not turn.keys() <= _SHAREGPT_KEYS:
        _check_keys(record, turn, f"{field}[{index}]", _SHAREGPT_KEYS)
    if given == "function_call":
        place = f"{field}[{index}].value"
        calls = parsed(record, place, value) if isinstance(value, str) else value
        calls = calls if isinstance(calls, list) and calls else [calls]
        return Message(role, "", weight, tool_calls=read_calls(record, calls, place))
    if not isinstance(value, str):
        raise wrong_type(record, f"{field}[{index}].value", "text", value, turn)
    return _answered(record, Message(role, value, weight), field, index, "value")


def _answered(record: Record, message: Message, field: str, index: int, key: str) -> Message:
    """Check that an answer which is trained says something, and beside its thinking."""
    if message.role != "assistant" or message.tool_calls or message.trained <= 0:
        return message
    said = message.content.strip()
    if said.startswith(_OPEN):
        place = f"{field}[{index}].{key}"
        if message.thinking is not None:
            raise bad_row(
                record, place, "gives its thinking more than once", "beside the content and in it", "keep one"
            )
        if _CLOSE not in said:
            fix = f"write {_CLOSE} and the answer after it, or remove the row"
            raise bad_row(record, place, "thinks and never comes to an answer", f"{_OPEN} without {_CLOSE}", fix)
        said = said.rpartition(_CLOSE)[2]
    if not said:
        raise empty_answer(record, f"{field}[{index}].{key}", message.content)
    return message


def _read_role(record: Record, turn: Turn, field: str, roles: Mapping[str, str]) -> str:
    value = turn.get(field.rpartition(".")[2])
    if not isinstance(value, str):
        raise wrong_type(record, field, "text", value, turn)
    if value not in roles:
        near = _SHAREGPT_ROLES.get(value.strip().lower())
        fix = f"did you mean `{near}`?" if near else "the roles are " + ", ".join(roles)
        raise bad_row(record, field, "is not a known role", repr(value), fix)
    return roles[value]


def _check_keys(record: Record, turn: Turn, place: str, known: set[str]) -> None:
    """Refuse a key that is one of ours misspelt, or another tool's word for what is trained; pass over the rest."""
    for key, value in turn.items():
        if key in known or value is None:
            continue
        if key in _FOREIGN_WEIGHTS:
            fix = "say it with `train` (true or false) or `weight` (a number)"
            raise bad_row(record, f"{place}.{key}", "says what is trained in a way that is not read", repr(value), fix)
        meant = _meant(str(key), frozenset(known))
        if meant and turn.get(meant) is None:
            fix = f"write `{meant}`, or rename `{key}` if it means something else"
            raise bad_row(record, f"{place}.{key}", f"looks like `{meant}` misspelt", repr(value)[:60], fix)


@lru_cache(maxsize=256)
def _meant(key: str, known: frozenset[str]) -> str:
    return next(iter(difflib.get_close_matches(key.strip().lower(), sorted(known), n=1, cutoff=NEAR)), "")


def _read_weight(record: Record, turn: Turn, place: str) -> float | None:
    given = [name for name in _WEIGHTS if turn.get(name) is not None]
    if len(given) > 1:
        raise bad_row(record, place, "says twice how it is trained", ", ".join(given), "keep one of them")
    for name in given:
        if name != "train":
            return number(record, f"{place}.{name}", turn[name])
        if not isinstance(turn[name], bool):
            raise wrong_type(record, f"{place}.train", "true or false", turn[name])
        return float(turn[name])
    return None


def _read_calls(record: Record, turn: Turn, place: str) -> tuple[Turn, ...]:
    """Read `tool_calls`, or the one call of the older `function_call`."""
    calls, older = turn.get("tool_calls"), turn.get("function_call")
    if older is None:
        return read_calls(record, calls, f"{place}.tool_calls")
    if calls:
        raise bad_row(record, place, "gives its calls twice", "tool_calls, function_call", "keep one of them")
    return read_calls(record, [older], f"{place}.function_call")


def _read_content(record: Record, turn: Turn, place: str, *, optional: bool) -> tuple[str, str | None]:
    """Return (content, thinking) of a turn whose content is text or a list of parts."""
    content = turn.get("content")
    thoughts = [turn[name] for name in _THOUGHTS if turn.get(name) is not None]
    if isinstance(content, list):
        content, inside = _read_parts(record, content, f"{place}.content")
        thoughts += inside
    elif content is None and optional:
        content = ""
    if not isinstance(content, str):
        raise wrong_type(record, f"{place}.content", "text or a list of parts", content, turn)
    if len(thoughts) > 1:
        raise bad_row(record, place, "gives its thinking more than once", f"{len(thoughts)} times", "keep one")
    for thought in thoughts:
        if not isinstance(thought, str):
            raise wrong_type(record, f"{place}.thinking", "text", thought)
    return content, thoughts[0] if thoughts else None


def _read_parts(record: Record, parts: list[Any], field: str) -> tuple[str, list[str]]:
    """Return (the text parts joined, the thinking parts joined as the one item of a list, if there are any)."""
    texts: list[str] = []
    thoughts: list[str] = []
    for index, part in enumerate(parts):
        place = f"{field}[{index}]"
        if not isinstance(part, Mapping):
            raise wrong_type(record, place, "an object", part)
        named = part.get("type")
        if named not in ("text", "reasoning", "thinking"):
            raise bad_row(record, f"{place}.type", "is not text", repr(named), "only text can be trained on")
        names = ("text", "value") if named == "text" else ("text", "value", named)
        value = next((part[name] for name in names if part.get(name) is not None), None)
        if not isinstance(value, str):
            raise wrong_type(record, f"{place}.text", "text", value, part)
        (texts if named == "text" else thoughts).append(value)
    return "".join(texts), ["".join(thoughts)] if thoughts else []
