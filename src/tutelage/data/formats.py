"""From a row to a demonstration: which format a file has, and what a row of that format means.

A format is a set of columns and the way to read them; `_FORMATS` at the end lists them, the more telling first. What
is not as its format says is refused with its place and field. Content goes through exactly as it is: nothing is
stripped or repaired, and turns of one role that follow each other stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tutelage.data.fields import answer, bad_row, empty_answer, hint, kind, number, optional_text, text, wrong_type
from tutelage.data.turns import read_messages, read_sharegpt, read_tools
from tutelage.errors import DataError, Problem, RecipeError
from tutelage.recipe import Format
from tutelage.types import Completion, Conversation, Demonstration, Document, Message, Record

Fields = Mapping[str, Any]


def sample(records: Sequence[Record], size: int = 100) -> list[Record]:
    """Return at most `size` rows, evenly spread: the first, the last, and between."""
    if len(records) <= size:
        return list(records)
    last = len(records) - 1
    return [records[index * last // max(size - 1, 1)] for index in range(size)]


def detect(records: Sequence[Record], *, source: str) -> Format:
    """Return the one format of these rows.

    A row that matches none is left to `parse`, which refuses it by its line, as long as another row matches.
    Raises `DataError` when no row matches, or when two rows match different formats.
    """
    found: dict[Format, Record] = {}
    for record in records:
        if _is_preference(record.fields):
            raise DataError(
                Problem(
                    "data/unknown-format",
                    "the rows hold preferences, not demonstrations",
                    str(record.origin),
                    found=", ".join(f"`{name}`" for name in record.fields),
                    why="training on them as they are would also teach the answers that were judged bad",
                    fix="name a format, as in format: messages, if every row's answer is one to learn",
                )
            )
        name = next((name for name, format in _FORMATS.items() if format.matches(record.fields)), None)
        if name is not None:
            found.setdefault(name, record)
    if not found:
        raise _unknown_format(records, source)
    if len(found) > 1:
        places = [f"{record.origin} is `{name}`" for name, record in found.items()]
        what = f"the rows of `{source}` have different formats"
        fix = "make one file, and one source, of each format"
        raise DataError(Problem("data/mixed-formats", what, source, "; ".join(places), fix=fix))
    return next(iter(found))


def _is_preference(fields: Fields) -> bool:
    """Two answers of which one is better, or one answer judged good or bad."""
    return {"chosen", "rejected"} <= fields.keys() or isinstance(fields.get("label"), bool)


def _unknown_format(records: Sequence[Record], source: str) -> DataError:
    columns: dict[str, Any] = {}
    for record in records:
        for name, value in record.fields.items():
            if columns.get(name) is None:
                columns[name] = value
    known = [word for format in _FORMATS.values() for word in format.columns.replace(",", "").split()]
    hints = [found for name in dict.fromkeys(known) if name not in columns and (found := hint(columns, name))]
    formats = [f"{name}: {format.columns} {format.meaning}" for name, format in _FORMATS.items()]
    return DataError(
        Problem(
            "data/unknown-format",
            f"the columns of `{source}` match no known format",
            source,
            found=", ".join(f"`{name}` ({kind(value)})" for name, value in columns.items()) or "no columns",
            why="; ".join(hints),
            fix="\n".join(["rename the columns to those of one format:", *formats]),
        )
    )


def parse(record: Record, format: Format, *, completion_after: str | None = None, weight: float = 1.0) -> Demonstration:
    """Return the demonstration that a row spells; its weight is `weight` times the row's own `weight` column.

    Raises `DataError` with one problem when the row is not as its format says or has no answer, and `RecipeError`
    when `completion_after` is given for anything but plain text.
    """
    assert format != "auto", "bug: detect() names the format before parse() is called"
    total = weight * _row_weight(record)
    if completion_after is None:
        return _FORMATS[format].read(record, total)
    if format != "text":
        what = f"`completion_after` is for plain text, and `{record.origin.file}` has the format `{format}`"
        raise RecipeError(Problem("recipe/conflict", what, fix="remove `completion_after` from this source"))
    return _read_split_text(record, completion_after, total)


def _row_weight(record: Record) -> float:
    value = record.fields.get("weight")
    if isinstance(value, str) and value:  # a CSV file holds its numbers as text
        try:
            value = float(value)
        except ValueError:
            raise wrong_type(record, "weight", "a number", value) from None
    return 1.0 if value is None or value == "" else number(record, "weight", value)


# ---------------------------------------------------------------------------------------------- one a format


def _read_alpaca(record: Record, weight: float) -> Conversation:
    return _one_answer(record, (*_system(record), *_history(record)), "input", "output", weight)


def _read_dolly(record: Record, weight: float) -> Conversation:
    return _one_answer(record, (), "context", "response", weight)


def _one_answer(record: Record, before: tuple[Message, ...], extra: str, answered: str, weight: float) -> Conversation:
    """Join the instruction and what it is about, if anything, with an empty line between."""
    parts = text(record, "instruction"), optional_text(record, extra)
    prompt = "\n\n".join(part for part in parts if part)
    if not prompt.strip():
        raise _empty_prompt(record, "instruction")
    turns = Message("user", prompt), Message("assistant", answer(record, answered))
    return Conversation(record.origin, (*before, *turns), weight)


def _system(record: Record) -> tuple[Message, ...]:
    content = optional_text(record, "system")
    return (Message("system", content),) if content else ()


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


def _read_messages(record: Record, weight: float) -> Conversation:
    return _conversation(record, "messages", (), read_messages(record, "messages"), weight)


def _read_sharegpt(record: Record, weight: float) -> Conversation:
    field = "conversations" if record.fields.get("conversation") is None else "conversation"
    return _conversation(record, field, _system(record), read_sharegpt(record, field), weight)


def _conversation(
    record: Record, field: str, before: tuple[Message, ...], turns: tuple[Message, ...], weight: float
) -> Conversation:
    """Check that there is an answer in `turns`, and that what comes before the first is not all empty."""
    answers = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    if not answers:
        roles = ", ".join(turn.role for turn in turns) or "no turns"
        raise bad_row(record, field, "has no assistant turn", roles, "add the answer, or remove the row")
    prompt = (*before, *turns[: answers[0]])
    if prompt and not any(turn.content.strip() or turn.tool_calls for turn in prompt):
        raise _empty_prompt(record, field)
    return Conversation(record.origin, (*before, *turns), weight, read_tools(record))


def _read_prompt_completion(record: Record, weight: float) -> Completion | Conversation:
    prompt = record.fields.get("prompt")
    answered = "response" if record.fields.get("completion") is None and "response" in record.fields else "completion"
    if isinstance(prompt, list) and isinstance(record.fields.get(answered), list):
        before = read_messages(record, "prompt", context=True)
        if not before:
            raise _empty_prompt(record, "prompt")
        return _conversation(record, answered, before, read_messages(record, answered), weight)
    if not text(record, "prompt").strip():
        raise _empty_prompt(record, "prompt")
    return Completion(record.origin, text(record, "prompt"), answer(record, answered), weight)


def _read_text(record: Record, weight: float) -> Document:
    return Document(record.origin, answer(record, "text"), weight)


def _read_split_text(record: Record, marker: str, weight: float) -> Completion:
    whole = text(record, "text")
    head, found, completion = whole.rpartition(marker)
    if not found:
        fix = "correct `completion_after`, or the row"
        raise bad_row(record, "text", f"does not hold `completion_after`, {marker!r}", repr(whole[:60]), fix)
    if not completion.strip():
        raise empty_answer(record, "text", completion)
    if not (head + found).strip():
        raise _empty_prompt(record, "text")
    return Completion(record.origin, head + found, completion, weight)


def _empty_prompt(record: Record, field: str) -> DataError:
    return bad_row(record, field, "is empty, so there is nothing to answer", "only white space or nothing")


# ------------------------------------------------------------------------------------------------- the table


def _hold(fields: Fields, column: str, key: str) -> bool:
    """Tell whether a column is a list of objects that all have `key`."""
    turns = fields.get(column)
    return isinstance(turns, list) and bool(turns) and all(isinstance(t, Mapping) and key in t for t in turns)


class _Format(NamedTuple):
    columns: str
    meaning: str
    matches: Callable[[Fields], bool]
    read: Callable[[Record, float], Demonstration]


_FORMATS: dict[Format, _Format] = {
    "messages": _Format(
        "messages",
        "as a list of {role, content} (optional: tools)",
        lambda fields: _hold(fields, "messages", "role"),
        _read_messages,
    ),
    "sharegpt": _Format(
        "conversations",
        "as a list of {from, value} (optional: system, tools)",
        lambda fields: _hold(fields, "conversations", "from") or _hold(fields, "conversation", "from"),
        _read_sharegpt,
    ),
    "alpaca": _Format(
        "instruction, output",
        "(optional: input, system, history)",
        lambda fields: fields.keys() >= {"instruction", "output"},
        _read_alpaca,
    ),
    "dolly": _Format(
        "instruction, response",
        "(optional: context)",
        lambda fields: fields.keys() >= {"instruction", "response"},
        _read_dolly,
    ),
    "prompt-completion": _Format(
        "prompt, completion",
        "(or response), both text or both lists of {role, content}",
        lambda fields: "prompt" in fields and not fields.keys().isdisjoint({"completion", "response"}),
        _read_prompt_completion,
    ),
    "text": _Format(
        "text",
        "(trained whole, or cut at `completion_after`)",
        lambda fields: isinstance(fields.get("text"), str),
        _read_text,
    ),
}
