"""Rows of plain text, with which no chat template has to do: a prompt and its completion, or text trained whole."""

from __future__ import annotations

from tutelage.data.formats.conversations import read_prompt_and_answer
from tutelage.data.formats.fields import answer, bad_row, empty_answer, empty_prompt, text
from tutelage.types import Completion, Conversation, Document, Record

ANSWERS = ("completion", "response", "demonstration")
"""The columns that may hold the answer to a `prompt`: the first that is given."""


def read_prompt_completion(record: Record, weight: float) -> Completion | Conversation:
    """Read `prompt` and its answer, both text or both lists of turns."""
    fields = record.fields
    answered = next((name for name in ANSWERS if fields.get(name) is not None), None)
    answered = answered or next((name for name in ANSWERS if name in fields), ANSWERS[0])
    if isinstance(fields.get("prompt"), list) and isinstance(fields.get(answered), list):
        return read_prompt_and_answer(record, answered, weight)
    if not text(record, "prompt").strip():
        raise empty_prompt(record, "prompt")
    return Completion(record.origin, text(record, "prompt"), answer(record, answered), weight)


def read_text(record: Record, weight: float) -> Document:
    """Read `text`."""
    return Document(record.origin, answer(record, "text"), weight)


def read_split_text(record: Record, marker: str, weight: float) -> Completion:
    """Read `text`; the last place of `marker` ends the prompt."""
    whole = text(record, "text")
    head, found, completion = whole.rpartition(marker)
    if not found:
        fix = "correct `completion_after`, or the row"
        raise bad_row(record, "text", f"does not hold `completion_after`, {marker!r}", repr(whole[:60]), fix)
    if not completion.strip():
        raise empty_answer(record, "text", completion)
    if not (head + found).strip():
        raise empty_prompt(record, "text")
    return Completion(record.origin, head + found, completion, weight)
