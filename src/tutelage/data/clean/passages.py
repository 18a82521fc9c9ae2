"""The texts of a row with their places, and the row with each of them changed.

What belongs together is changed together: a message that was put together from an instruction and its input is put
together again from the changed parts, so that other renderings of the row say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tutelage.types import Completion, Demonstration, Document, Instruction, Message

Change = Callable[[str], str]


def joined(text: str, input: str) -> str:
    """Return an instruction and its input as the one message that formats make of them."""
    return f"{text}\n\n{input}" if text and input else text or input


def texts(row: Demonstration) -> Iterator[tuple[str, str]]:
    """Yield (field, text): contents, thinking, the values of tool calls' arguments, references."""
    if isinstance(row, Completion):
        yield from (("prompt", row.prompt), ("completion", row.completion))
        return
    if isinstance(row, Document):
        yield "text", row.text
        return
    for index, message in enumerate(row.messages):
        place = f"messages[{index}]"
        if message.content:
            yield f"{place}.content", message.content
        if message.thinking:
            yield f"{place}.thinking", message.thinking
        for number, call in enumerate(message.tool_calls):
            yield from _values(f"{place}.tool_calls[{number}].arguments", _arguments(call))
    for index, reference in enumerate(row.references):
        yield f"references[{index}]", reference


def changed(row: Demonstration, change: Change) -> Demonstration:
    """Return the row with `change` made to each of its texts; the same row where nothing changes."""
    if isinstance(row, Completion):
        prompt, completion = change(row.prompt), change(row.completion)
        same = prompt == row.prompt and completion == row.completion
        return row if same else replace(row, prompt=prompt, completion=completion)
    if isinstance(row, Document):
        text = change(row.text)
        return row if text == row.text else replace(row, text=text)
    instruction = row.instruction and _changed_instruction(row.instruction, change)
    messages = [_changed_message(message, change) for message in row.messages]
    if row.instruction and instruction:
        place = asked(row.messages)
        whole = joined(row.instruction.text, row.instruction.input)
        if place is not None and row.messages[place].content == whole:
            content = joined(instruction.text, instruction.input)
            messages[place] = with_content(messages[place], content)
    references = tuple([change(reference) for reference in row.references])
    same = all(new is old for new, old in zip(messages, row.messages, strict=True))
    if same and instruction is row.instruction and references == row.references:
        return row
    return replace(row, messages=tuple(messages), instruction=instruction, references=references)


def asked(messages: tuple[Message, ...]) -> int | None:
    """Return the place of the last user message, which an instruction spells."""
    return next((i for i in reversed(range(len(messages))) if messages[i].role == "user"), None)


def with_content(message: Message, content: str) -> Message:
    """Return the message with this content; the same message where that is its content already."""
    return message if content == message.content else replace(message, content=content)


def _changed_instruction(instruction: Instruction, change: Change) -> Instruction:
    text, input = change(instruction.text), change(instruction.input)
    same = text == instruction.text and input == instruction.input
    return instruction if same else Instruction(text, input)


def _changed_message(message: Message, change: Change) -> Message:
    content = change(message.content)
    thinking = message.thinking and change(message.thinking)
    calls = tuple([_changed_call(call, change) for call in message.tool_calls])
    if content == message.content and thinking == message.thinking and calls == message.tool_calls:
        return message
    return replace(message, content=content, thinking=thinking, tool_calls=calls)


def _changed_call(call: Mapping[str, Any], change: Change) -> Mapping[str, Any]:
    """Change the texts among the arguments; names, ids and keys stay, because the tool is called by them."""
    arguments = _arguments(call)
    new = _changed_value(arguments, change)
    return call if new == arguments else {**call, "function": {**call["function"], "arguments": new}}


def _changed_value(value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _changed_value(part, change) for key, part in value.items()}
    return [_changed_value(part, change) for part in value] if isinstance(value, list) else value


def _values(place: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _values(f"{place}.{key}", part)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _values(f"{place}[{index}]", part)


def _arguments(call: Mapping[str, Any]) -> Any:
    function = call.get("function")
    return function.get("arguments") if isinstance(function, Mapping) else None
