"""The tools that a row declares, and the calls of them, each in the one form that chat templates and servers use.

A call is `{"type": "function", "function": {"name", "arguments"}}` with the arguments as an object, and its `id` where
it has one. A declared tool is `{"type": "function", "function": {...}}`: what an OpenAI-compatible server hands to the
template, so that the prompt in training is the prompt in serving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.data.formats.fields import bad_row, parsed, wrong_type
from tutelage.types import Message, Record

Call = Mapping[str, Any]
Tool = Mapping[str, Any]


def read_tools(record: Record) -> tuple[Tool, ...]:
    """Read the `tools` column (or the older `functions`): objects, or JSON text; empty when it is not given."""
    value = record.fields.get("tools")
    if value is None and _are_functions(record.fields.get("functions")):
        value = record.fields["functions"]
    if not value:
        return ()
    tools = parsed(record, "tools", value) if isinstance(value, str) else value
    if not isinstance(tools, list):
        raise wrong_type(record, "tools", "a list of objects", tools)
    return tuple(_read_tool(record, tool, f"tools[{index}]") for index, tool in enumerate(tools))


def _are_functions(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) and "name" in item for item in value)


def _read_tool(record: Record, tool: object, field: str) -> Tool:
    tool = parsed(record, field, tool) if isinstance(tool, str) else tool
    if not isinstance(tool, Mapping):
        raise wrong_type(record, field, "an object", tool)
    if "function" not in tool and isinstance(tool.get("name"), str):
        return {"type": "function", "function": tool}
    return tool


def read_calls(record: Record, calls: object, field: str) -> tuple[Call, ...]:
    """Read a list of calls, `{name, arguments}` or the same within `function`; arguments may be JSON text."""
    if calls is None:
        return ()
    if not isinstance(calls, list):
        raise wrong_type(record, field, "a list of tool calls", calls)
    return tuple(_read_call(record, call, f"{field}[{index}]") for index, call in enumerate(calls))


def _read_call(record: Record, call: object, field: str) -> Call:
    inner = call.get("function") or call if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(inner, Mapping):
        raise wrong_type(record, field, "an object {name, arguments}", call)
    name, arguments = inner.get("name"), inner.get("arguments")
    if not isinstance(name, str):
        raise wrong_type(record, f"{field}.name", "text", name, inner)
    if isinstance(arguments, str):
        arguments = parsed(record, f"{field}.arguments", arguments)
    if not isinstance(arguments, Mapping):
        raise wrong_type(record, f"{field}.arguments", "an object", arguments, inner)
    identity = {} if call.get("id") is None else {"id": call["id"]}
    return {**identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def check_calls(record: Record, field: str, messages: Sequence[Message], tools: Sequence[Tool]) -> None:
    """Refuse a trained call of a tool that the row does not declare: it would teach the model to make tools up.

    A row without tools may call any, since it may have left the declarations out for all of its calls.
    """
    functions = [tool.get("function") for tool in tools]
    declared = {function.get("name") for function in functions if isinstance(function, Mapping)}
    if not declared:
        return
    for message in messages:
        for call in message.tool_calls if message.trained > 0 else ():
            if call["function"]["name"] not in declared:
                fix = "the row declares " + ", ".join(f"`{name}`" for name in declared)
                raise bad_row(record, field, "calls a tool that is not declared", call["function"]["name"], fix)
