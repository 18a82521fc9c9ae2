"""The turns of a conversation, as `{role, content}` or as ShareGPT's `{from, value}`, to `Message`s.

Both spellings end in the same thing: known roles, content as text, the weight that the turn asks for, and tool calls
in one form, the one that chat templates read: `{"type": "function", "function": {"name", "arguments"}}` with the
arguments as an object. A turn that would need a guess is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.data.fields import bad_row, empty_answer, number, wrong_type
from tutelage.data.jsonrows import explain, parse_json
from tutelage.types import Message, Record

Turn = Mapping[str, Any]

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_SHAREGPT_ROLES = {
    "system": "system",
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "model", "chatgpt", "bard", "bing", "function_call"), "assistant"),
    **dict.fromkeys(("observation", "tool", "function_response"), "tool"),
}


def read_messages(record: Record, field: str, *, context: bool = False) -> tuple[Message, ...]:
    """Read a list of `{role, content}`; as `context`, answers are trained only where a turn asks for it."""
    return tuple(_read_message(record, turn, place, context) for place, turn in _turns(record, field))


def read_sharegpt(record: Record, field: str) -> tuple[Message, ...]:
    """Read a list of `{from, value}`."""
    return tuple(_read_sharegpt_turn(record, turn, place) for place, turn in _turns(record, field))


def read_tools(record: Record) -> tuple[Turn, ...]:
    """Read the `tools` column: a list of objects, or the same as JSON text; empty when it is not given."""
    value = record.fields.get("tools")
    tools = (_parsed(record, "tools", value) if isinstance(value, str) and value else value) or []
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise wrong_type(record, "tools", "a list of objects", tools)
    return tuple(tools)


def _turns(record: Record, field: str) -> list[tuple[str, Turn]]:
    """List (place, turn) of a field that must hold turns."""
    turns = record.fields.get(field)
    if not isinstance(turns, list):
        raise wrong_type(record, field, "a list of turns", turns)
    places = [f"{field}[{index}]" for index in range(len(turns))]
    for place, turn in zip(places, turns, strict=True):
        if not isinstance(turn, Mapping):
            raise wrong_type(record, place, "an object", turn)
    return list(zip(places, turns, strict=True))


def _read_message(record: Record, turn: Turn, place: str, context: bool) -> Message:
    role = _read_role(record, turn, f"{place}.role", _ROLES)
    calls = _read_calls(record, turn.get("tool_calls"), f"{place}.tool_calls")
    content, thinking = _read_content(record, turn, place, optional=bool(calls))
    weight = _read_weight(record, turn, place)
    if weight is None and context and role == "assistant":
        weight = 0.0
    name = turn.get("name")
    if name is not None and not isinstance(name, str):
        raise wrong_type(record, f"{place}.name", "text", name)
    message = Message(role, content, weight, thinking, calls, name)
    return _answered(record, message, f"{place}.content")


def _read_sharegpt_turn(record: Record, turn: Turn, place: str) -> Message:
    role = _read_role(record, turn, f"{place}.from", _SHAREGPT_ROLES)
    value, weight = turn.get("value"), _read_weight(record, turn, place)
    if turn["from"] == "function_call":
        calls = _parsed(record, f"{place}.value", value) if isinstance(value, str) else value
        calls = calls if isinstance(calls, list) and calls else [calls]
        return Message(role, "", weight, tool_calls=_read_calls(record, calls, f"{place}.value"))
    if not isinstance(value, str):
        raise wrong_type(record, f"{place}.value", "text", value, turn)
    return _answered(record, Message(role, value, weight), f"{place}.value")


def _answered(record: Record, message: Message, field: str) -> Message:
    answers = message.role == "assistant" and message.trained > 0 and not message.tool_calls
    if answers and not message.content.strip():
        raise empty_answer(record, field, message.content)
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


def _read_weight(record: Record, turn: Turn, place: str) -> float | None:
    given = [name for name in ("train", "weight", "loss_weight") if turn.get(name) is not None]
    if len(given) > 1:
        raise bad_row(record, place, "says twice how it is trained", ", ".join(given), "keep one of them")
    for name in given:
        if name != "train":
            return number(record, f"{place}.{name}", turn[name])
        if not isinstance(turn[name], bool):
            raise wrong_type(record, f"{place}.train", "true or false", turn[name])
        return float(turn[name])
    return None


def _read_content(record: Record, turn: Turn, place: str, *, optional: bool) -> tuple[str, str | None]:
    """Return (content, thinking) of a turn whose content is text or a list of parts."""
    content = turn.get("content")
    thoughts = [turn[name] for name in ("reasoning_content", "thinking") if turn.get(name) is not None]
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


def _read_calls(record: Record, calls: object, field: str) -> tuple[Turn, ...]:
    if calls is None:
        return ()
    if not isinstance(calls, list):
        raise wrong_type(record, field, "a list of tool calls", calls)
    return tuple(_read_call(record, call, f"{field}[{index}]") for index, call in enumerate(calls))


def _read_call(record: Record, call: object, field: str) -> Turn:
    inner = call.get("function") or call if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(inner, Mapping):
        raise wrong_type(record, field, "an object {name, arguments}", call)
    name, arguments = inner.get("name"), inner.get("arguments")
    if not isinstance(name, str):
        raise wrong_type(record, f"{field}.name", "text", name, inner)
    if isinstance(arguments, str):
        arguments = _parsed(record, f"{field}.arguments", arguments)
    if not isinstance(arguments, Mapping):
        raise wrong_type(record, f"{field}.arguments", "an object", arguments, inner)
    identity = {} if call.get("id") is None else {"id": call["id"]}
    return {**identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def _parsed(record: Record, field: str, value: str) -> Any:
    try:
        return parse_json(value)
    except (ValueError, RecursionError) as error:
        raise bad_row(record, field, "is not valid JSON", f"{explain(error)}: {value[:60]!r}") from error
