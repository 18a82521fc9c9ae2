"""The words around an instruction and its input: one row in `_WORDINGS` for each rendering that a recipe can name.

A model that saw its task in one wording only does worse in others. A rendering changes what is asked, never what is
answered: the row's last user message is put together again from the instruction and the input, both verbatim.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tutelage.recipe import Rendering
from tutelage.types import Conversation, Instruction, Message


class _Wording(NamedTuple):
    """Formats with {text} and {input}; `alone` is for rows without an input."""

    both: str
    alone: str
    system: str | None = None
    system_alone: str | None = None
    """The system message of rows without an input, where it is another."""


_PAIRED = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
_LONE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
_ASSISTANT = "You are a helpful assistant."

_PLAIN = _Wording("{text}\n\n{input}", "{text}")
_WORDINGS: dict[Rendering, _Wording] = {
    "plain": _PLAIN,
    "terse": _Wording("{text}\n{input}", "{text}"),
    "input-first": _Wording("{input}\n\n{text}", "{text}"),
    "alpaca": _Wording(
        f"{_PAIRED}\n\n### Instruction:\n{{text}}\n\n### Input:\n{{input}}\n\n### Response:",
        f"{_LONE}\n\n### Instruction:\n{{text}}\n\n### Response:",
    ),
    "dolly": _Wording(
        f"{_LONE}\n\nInstruction:\n{{text}}\n\nContext:\n{{input}}\n\nResponse:",
        f"{_LONE}\n\nInstruction:\n{{text}}\n\nResponse:",
    ),
    "task-text": _Wording("Task: {text}\nText: {input}", "Task: {text}"),
    "instruction-input": _Wording("Instruction: {text}\nInput: {input}\nOutput:", "Instruction: {text}\nOutput:"),
    "question-context": _Wording("Context: {input}\n\nQuestion: {text}\nAnswer:", "Question: {text}\nAnswer:"),
    "tagged": _Wording(
        "<instruction>\n{text}\n</instruction>\n<input>\n{input}\n</input>", "<instruction>\n{text}\n</instruction>"
    ),
    "quoted": _Wording('{text}\n\n"""\n{input}\n"""', "{text}"),
    "plain-system": _PLAIN._replace(system=_ASSISTANT),
    "alpaca-system": _Wording(
        "### Instruction:\n{text}\n\n### Input:\n{input}\n\n### Response:",
        "### Instruction:\n{text}\n\n### Response:",
        _PAIRED,
        _LONE,
    ),
}


def rendered(row: Conversation, name: Rendering) -> Conversation:
    """Return the row with its last user message, and a system message where it lacks one, in the words of `name`.

    A row whose instruction and input are not given apart comes back as it is.
    """
    if row.instruction is None:
        return row
    place = next((i for i in reversed(range(len(row.messages))) if row.messages[i].role == "user"), None)
    if place is None:
        return row
    wording = _WORDINGS[name]
    content, system = _spell(row.instruction, wording)
    messages = list(row.messages)
    messages[place] = replace(messages[place], content=content)
    if system is not None and all(message.role != "system" for message in messages):
        messages.insert(0, Message("system", system))
    return replace(row, messages=tuple(messages))


def _spell(parts: Instruction, wording: _Wording) -> tuple[str, str | None]:
    """The user's message and the system message; an input without an instruction is taken as the instruction."""
    if parts.text and parts.input:
        return wording.both.format(text=parts.text, input=parts.input), wording.system
    return wording.alone.format(text=parts.text or parts.input), wording.system_alone or wording.system


def choose(key: int | str, epoch: int, names: Sequence[object]) -> int:
    """Return which of `names` the row with this key takes in this epoch: a place in `names`, by hash.

    Over len(names) epochs a row takes each once, in an order of its own; other rows have no say in it.
    """
    size = len(names)
    if size == 1:
        return 0
    turn, place = divmod(epoch, size)
    digest = hashlib.blake2b(f"rendering/{key}/{turn}".encode("utf-8", "surrogatepass")).digest()
    number = int.from_bytes(digest, "little")
    left = list(range(size))
    for _ in range(place):
        number, drawn = divmod(number, len(left))
        del left[drawn]
    return left[number % len(left)]
