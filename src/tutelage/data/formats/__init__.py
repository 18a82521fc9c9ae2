"""From a row to a demonstration: which format a file has, and what a row of that format means.

A format is a set of columns and the way to read them; `_FORMATS` at the end lists them, the more telling first. What
is not as its format says is refused with its place and field. Content goes through exactly as it is: nothing is
stripped or repaired, and turns of one role that follow each other stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tutelage.data.formats.code import expand_functions, read_code, read_function
from tutelage.data.formats.completions import ANSWERS, read_prompt_completion, read_split_text, read_text
from tutelage.data.formats.conversations import read_messages_row, read_sharegpt_row
from tutelage.data.formats.fields import bad_row, hint, kind, misspelt, number, task, wrong_type
from tutelage.data.formats.instructions import (
    expand_instances,
    read_alpaca,
    read_dolly,
    read_natural_instruction,
    read_seed_task,
)
from tutelage.data.formats.judgements import JUDGEMENTS, check_judgement, only_judged, read_rewarded
from tutelage.data.formats.preferences import read_chosen, read_preference
from tutelage.data.formats.trees import read_tree
from tutelage.errors import DataError, Problem, RecipeError
from tutelage.recipe import Format
from tutelage.types import Demonstration, Preference, Record

Fields = Mapping[str, Any]

LEFT_OUT = {"data/not-chosen": "not chosen", "data/no-function": "no function to cut"}
"""Codes of rows that are as they should be and yet are not trained, and the ledger's reason for each."""


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
                    fix="format: preference trains on the chosen answers only; `tutelage data convert --to pairs` "
                    "makes pairs; or name another, as in format: messages, if every row's answer is one to learn",
                )
            )
        name = _match(record.fields)
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


def _match(fields: Fields) -> Format | None:
    return next((name for name, format in _FORMATS.items() if format.matches(fields)), None)


def _is_preference(fields: Fields) -> bool:
    """Two answers of which one is better, or one answer judged good or bad."""
    second = [fields.get(name) for name in ("rejected", "rejected_response")]
    pair = fields.keys() >= {"chosen", "rejected"} or any(isinstance(value, str | list | Mapping) for value in second)
    judged = any(isinstance(fields.get(name), bool) for name in ("label", "kto_tag"))
    return pair or judged or fields.keys() >= {"generation", "reward"}


def _unknown_format(records: Sequence[Record], source: str) -> DataError:
    columns: dict[str, Any] = {}
    for record in records:
        for name, value in record.fields.items():
            if columns.get(name) is None:
                columns[name] = value
    told = [format.columns.replace(",", "").split() for format in _FORMATS.values() if format.matches is not _never]
    known = dict.fromkeys(word for words in told for word in words)
    hints = [found for name in known if name not in columns and (found := hint(columns, name))]
    for name, value in columns.items():
        if name in ("messages", "conversations") and isinstance(value, str) and value.lstrip().startswith("["):
            hints.append(f"`{name}` holds JSON as text: store the list itself, in a .jsonl or .parquet file")
    if {"question", "answer"} <= columns.keys():
        hints.append("for questions and answers: fields: {prompt: question, completion: answer}")
    formats = [f"{name}: {format.columns} {format.meaning}" for name, format in _FORMATS.items()]
    return DataError(
        Problem(
            "data/unknown-format",
            f"the columns of `{source}` match no known format",
            source,
            found=", ".join(f"`{name}` ({kind(value)})" for name, value in columns.items()) or "no columns",
            why="; ".join(hints),
            fix="\n".join(["rename the columns, or map them with `fields`, to those of one format:", *formats]),
        )
    )


def parse(record: Record, format: Format, *, completion_after: str | None = None, weight: float = 1.0) -> Demonstration:
    """Return the demonstration that a row spells, with its `task`; its weight is `weight` times the row's own `weight`.

    Raises `DataError` with one problem when the row is not as its format says or has no answer, and `RecipeError`
    when `completion_after` is given for anything but plain text.
    """
    assert format != "auto", "bug: detect() names the format before parse() is called"
    _refuse_misspelt(record, _OPTIONAL.get(format, _FOR_ALL))
    total = weight * _row_weight(record)
    if completion_after is None:
        row = _FORMATS[format].read(record, total)
    elif format == "text":
        row = read_split_text(record, completion_after, total)
    else:
        what = f"`completion_after` is for plain text, and `{record.origin.file}` has the format `{format}`"
        raise RecipeError(Problem("recipe/conflict", what, fix="remove `completion_after` from this source"))
    named = task(record)
    return replace(row, task=named) if named else row


def _row_weight(record: Record) -> float:
    value = record.fields.get("weight")
    if isinstance(value, str) and value:  # a CSV file holds its numbers as text
        try:
            value = float(value)
        except ValueError:
            raise wrong_type(record, "weight", "a number", value) from None
    return 1.0 if value is None or value == "" else number(record, "weight", value)


def _refuse_misspelt(record: Record, optional: frozenset[str]) -> None:
    """Refuse a column that is an optional one misspelt: passed over, what it holds would be lost in silence."""
    fields = record.fields
    for name in fields:
        meant = misspelt(name, optional)
        if meant and fields.get(meant) is None and fields[name] not in (None, ""):
            fix = f"write `{meant}`, or if it means something else, give it another name with `fields`"
            raise bad_row(record, str(name), f"looks like `{meant}` misspelt", repr(fields[name])[:60], fix)


def expand(record: Record, format: Format) -> tuple[Record, ...]:
    """Return the records that `parse` takes: the row itself, or one for each instance or function that it holds.

    Raises `DataError` when the row holds none, with a code of `LEFT_OUT` where that is nobody's mistake.
    """
    cut = _EXPANDED.get(format)
    return (record,) if cut is None else cut(record)


def parse_preference(record: Record, weight: float = 1.0) -> Preference:
    """Return the pair that a row of two answers spells; its weight is `weight` times the row's own.

    Raises `DataError` with one problem when an answer is empty, the two are equal, or have no common prompt.
    """
    return read_preference(record, weight * _row_weight(record))


def _read_judged(record: Record, weight: float) -> Demonstration:
    """Read the better of two answers, or an answer that was judged good."""
    fields = record.fields
    if fields.get("chosen") is not None or fields.get("rejected") is not None:
        return read_chosen(record, weight)
    if fields.keys().isdisjoint(JUDGEMENTS):
        raise wrong_type(record, "chosen", "an answer", None)
    check_judgement(record)
    if "generation" in fields:
        return read_rewarded(record, weight)
    name = _match(fields)
    if name is None:
        raise _unknown_format([record], str(record.origin))
    return only_judged(_FORMATS[name].read(record, weight))


# ------------------------------------------------------------------------------------------------- the table


def _hold(fields: Fields, column: str, key: str) -> bool:
    """Tell whether a column is a list of objects that all have `key`."""
    turns = fields.get(column)
    return isinstance(turns, list) and bool(turns) and all(isinstance(t, Mapping) and key in t for t in turns)


def _never(fields: Fields) -> bool:
    """Match nothing: the format must be named, since its columns do not tell it."""
    return False


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
        read_messages_row,
    ),
    "sharegpt": _Format(
        "conversations",
        "as a list of {from, value} (optional: system, tools)",
        lambda fields: _hold(fields, "conversations", "from") or _hold(fields, "conversation", "from"),
        read_sharegpt_row,
    ),
    "oasst": _Format(
        "prompt",
        "as a tree of {text, role, replies}",
        lambda fields: isinstance(fields.get("prompt"), Mapping) and "replies" in fields["prompt"],
        read_tree,
    ),
    "natural-instructions": _Format(
        "Definition, input, output",
        "(a `join` may bring the Definition) or a task file with Instances",
        lambda fields: "Definition" in fields and ("Instances" in fields or "output" in fields),
        read_natural_instruction,
    ),
    "alpaca": _Format(
        "instruction, output",
        "(optional: input, system, history)",
        lambda fields: fields.keys() >= {"instruction", "output"},
        read_alpaca,
    ),
    "dolly": _Format(
        "instruction, response",
        "(optional: context)",
        lambda fields: fields.keys() >= {"instruction", "response"},
        read_dolly,
    ),
    "self-instruct": _Format(
        "instruction, instances",
        "as a list of {input, output}",
        lambda fields: "instruction" in fields and isinstance(fields.get("instances"), list),
        read_seed_task,
    ),
    "prompt-completion": _Format(
        "prompt, completion",
        "(or response, or demonstration), both text or both lists of {role, content}",
        lambda fields: "prompt" in fields and not fields.keys().isdisjoint(ANSWERS),
        read_prompt_completion,
    ),
    "text": _Format(
        "text",
        "(trained whole, or cut at `completion_after`)",
        lambda fields: isinstance(fields.get("text"), str),
        read_text,
    ),
    "preference": _Format("chosen, rejected", "(only if named: trains the chosen answers)", _never, _read_judged),
    "code": _Format("content", "(only if named: source code, trained whole)", _never, read_code),
    "code-functions": _Format("content", "(only if named: Python, cut into functions)", _never, read_function),
}

_FOR_ALL = frozenset({"weight"})
_OPTIONAL: dict[Format, frozenset[str]] = {
    "sharegpt": _FOR_ALL | {"system"},
    "alpaca": _FOR_ALL | {"input", "system", "history"},
    "dolly": _FOR_ALL | {"context"},
    "natural-instructions": _FOR_ALL | {"input"},
}
"""Columns that a row need not have, so that nobody would miss one that is misspelt."""

_EXPANDED: dict[Format, Callable[[Record], tuple[Record, ...]]] = {
    "natural-instructions": lambda record: expand_instances(record, "Instances"),
    "self-instruct": lambda record: expand_instances(record, "instances"),
    "code-functions": expand_functions,
}
