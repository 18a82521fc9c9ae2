"""Rows of one instruction and its answer: Alpaca, Dolly, Natural Instructions, and the seed tasks of Self-Instruct.

Their parts stay apart in `Conversation.instruction`, so that they can be put together in other words than these: the
instruction, an empty line, and what it is about. Where a row gives several right answers, the first is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.data.formats.conversations import system
from tutelage.data.formats.fields import answer, empty_answer, empty_prompt, optional_text, text, wrong_type
from tutelage.types import Conversation, Instruction, Message, Record


def read_alpaca(record: Record, weight: float) -> Conversation:
    """Read `instruction`, `input`, `output`, after `system` and `history`."""
    fields = record.fields
    before: tuple[Message, ...] = ()
    if fields.get("system") or fields.get("history"):
        before = (*system(record), *_history(record))
    instruction = Instruction(text(record, "instruction"), optional_text(record, "input"))
    return _one_answer(record, before, instruction, answer(record, "output"), weight)


def read_dolly(record: Record, weight: float) -> Conversation:
    """Read `instruction`, `context`, `response`."""
    instruction = Instruction(text(record, "instruction"), optional_text(record, "context"))
    return _one_answer(record, (), instruction, answer(record, "response"), weight)


def read_natural_instruction(record: Record, weight: float) -> Conversation:
    """Read one instance: `Definition`, `input`, and `output`, the first of which is trained if they are several."""
    instruction = Instruction(_definition(record), optional_text(record, "input"))
    output = record.fields.get("output")
    if not isinstance(output, list):
        return _one_answer(record, (), instruction, answer(record, "output"), weight)
    for index, item in enumerate(output):
        if not isinstance(item, str):
            raise wrong_type(record, f"output[{index}]", "text", item)
    if not output or not output[0].strip():
        raise empty_answer(record, "output", output[0] if output else "")
    others = tuple(item for item in output[1:] if item.strip())
    return _one_answer(record, (), instruction, output[0], weight, others)


def read_seed_task(record: Record, weight: float) -> Conversation:
    """Read one instance of a seed task."""
    instruction = Instruction(text(record, "instruction"), optional_text(record, "input"))
    return _one_answer(record, (), instruction, answer(record, "output"), weight)


def expand_instances(record: Record, column: str) -> tuple[Record, ...]:
    """Return one record for each object in `column`, with the row's other columns; the row itself without one.

    Raises:
        DataError: data/bad-row, data/empty-answer.
    """
    instances = record.fields.get(column)
    if instances is None and "output" in record.fields:
        return (record,)
    if not isinstance(instances, list):
        raise wrong_type(record, column, "a list of objects {input, output}", instances)
    if not instances:
        raise empty_answer(record, column, "[]")
    shared = {name: value for name, value in record.fields.items() if name != column}
    return tuple(_instance(record, shared, item, f"{column}[{i}]") for i, item in enumerate(instances))


def _instance(record: Record, shared: Mapping[str, Any], instance: object, place: str) -> Record:
    if not isinstance(instance, Mapping):
        raise wrong_type(record, place, "an object {input, output}", instance)
    if instance.get("output") is None:
        raise wrong_type(record, f"{place}.output", "text", None, instance)
    return Record(record.origin, {**shared, "input": instance.get("input"), "output": instance["output"]})


def _definition(record: Record) -> str:
    """Return the definition, which the second release of the tasks holds as a list of texts."""
    value = record.fields.get("Definition")
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    return text(record, "Definition")


def _one_answer(
    record: Record,
    before: tuple[Message, ...],
    instruction: Instruction,
    answered: str,
    weight: float,
    references: tuple[str, ...] = (),
) -> Conversation:
    prompt, about = instruction.text, instruction.input
    if not prompt:
        instruction, prompt = Instruction(about), about
    elif about:
        prompt = f"{prompt}\n\n{about}"
    if not prompt.strip():
        raise empty_prompt(record, "Definition" if "Definition" in record.fields else "instruction")
    turns = (*before, Message("user", prompt), Message("assistant", answered))
    return Conversation(record.origin, turns, weight, (), instruction, references)


def _history(record: Record) -> tuple[Message, ...]:
    turns: list[Message] = []
    pairs = record.fields.get("history") or []
    for index, pair in enumerate(pairs if isinstance(pairs, list) else [pairs]):
        field = f"history[{index}]"
        if not isinstance(pair, list) or [type(item) for item in pair] != [str, str]:
            raise wrong_type(record, field, "a pair [question, answer]", pair)
        if not pair[1].strip():
            raise empty_answer(record, f"{field}[1]", pair[1])
        turns += Message("user", pair[0]), Message("assistant", pair[1])
    return tuple(turns)
