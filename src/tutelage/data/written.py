"""Rows as lines of JSON that read back as the same: what the commands of `tutelage data` write."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Literal, TextIO

from tutelage import files
from tutelage.data.clean.passages import joined
from tutelage.data.stream import as_turns
from tutelage.errors import DataError, Problem
from tutelage.types import Completion, Conversation, Demonstration, Instruction, Message, Preference

Form = Literal["as-read", "messages", "alpaca"]
"""How a row is written: plain text as it is and conversations as messages; all as messages; or with an instruction
and its input apart."""


def as_line(row: Demonstration, form: Form = "as-read") -> dict[str, Any]:
    """The row as an object; its `origin` says where it came from.

    Raises:
        DataError: data/bad-row, when the row cannot be written in the form that is asked for.
    """
    if form != "as-read":
        row = as_turns(row)
    if isinstance(row, Completion):
        written: dict[str, Any] = {"prompt": row.prompt, "completion": row.completion}
    elif isinstance(row, Conversation):
        written = _alpaca(row) if form == "alpaca" else _messages(row)
    elif form == "as-read":
        written = {"text": row.text}
    else:
        what, fix = "plain text has no turns, so it cannot be written as such", "leave its source out"
        raise DataError(Problem("data/bad-row", what, str(row.origin), found="`text`", fix=fix))
    if row.weight != 1.0:
        written["weight"] = row.weight
    if row.task:
        written["task"] = row.task
    return {**written, "origin": str(row.origin)}


def pair_as_line(pair: Preference) -> dict[str, Any]:
    """A preference as an object with the columns prompt, chosen and rejected, each a list of messages."""
    written: dict[str, Any] = {
        "prompt": [as_turn(message) for message in pair.prompt],
        "chosen": [as_turn(message) for message in pair.chosen],
        "rejected": [as_turn(message) for message in pair.rejected],
    }
    if pair.tools:
        written["tools"] = list(pair.tools)
    if pair.weight != 1.0:
        written["weight"] = pair.weight
    return {**written, "origin": str(pair.origin)}


def as_turn(message: Message) -> dict[str, Any]:
    """A message as an object; what it does not have is left out."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    for name in ("thinking", "name", "tool_call_id", "weight"):
        value = getattr(message, name)
        if value is not None:
            turn[name] = value
    if message.tool_calls:
        turn["tool_calls"] = list(message.tool_calls)
    return turn


def _messages(row: Conversation) -> dict[str, Any]:
    tools = {"tools": list(row.tools)} if row.tools else {}
    return {"messages": [as_turn(message) for message in row.messages], **tools}


def _alpaca(row: Conversation) -> dict[str, Any]:
    *before, asked, answer = row.messages if len(row.messages) > 1 else (Message("", ""), *row.messages)
    turns = [(message.role, message.trained) for message in (*before, asked, answer)]
    parts = row.instruction
    if parts is None or joined(parts.text, parts.input) != asked.content:
        parts = Instruction(asked.content)
    if (
        turns not in ([("user", 0.0), ("assistant", 1.0)], [("system", 0.0), ("user", 0.0), ("assistant", 1.0)])
        or not all(message.content for message in before)
        or row.tools
        or any(m.thinking is not None or m.tool_calls or m.name or m.tool_call_id for m in row.messages)
    ):
        raise DataError(
            Problem(
                "data/bad-row",
                "the row is not one instruction with one answer",
                str(row.origin),
                found=" ".join(message.role for message in row.messages),
                fix="write messages instead",
            )
        )
    written = {"instruction": parts.text, "input": parts.input, "output": answer.content}
    return {**written, **({"system": before[0].content} if before else {})}


class Files:
    """Files of JSON lines that are written whole or not at all; one that got no line is not made."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._open: dict[Path, TextIO] = {}
        self.lines = dict.fromkeys(paths, 0)
        """Lines written to each so far."""

    def __enter__(self) -> Files:
        try:
            for path in self._paths:
                with explained(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._open[path] = files.part_of(path).open("w", encoding="utf-8")
        except BaseException:
            self._remove()
            raise
        return self

    def write(self, path: Path, value: Mapping[str, Any]) -> None:
        """Add a line."""
        with explained(path):
            self._open[path].write(json.dumps(value, ensure_ascii=False) + "\n")
        self.lines[path] += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                for path, file in self._open.items():
                    with explained(path):
                        file.flush()
                        os.fsync(file.fileno())
                for path in self._paths:
                    if self.lines[path]:
                        with explained(path):
                            files.part_of(path).replace(path)
        finally:
            self._remove()

    def _remove(self) -> None:
        """Close what is open, and remove what did not become a file."""
        for path, file in self._open.items():
            with suppress(OSError):  # what it still held is not wanted
                file.close()
            files.part_of(path).unlink(missing_ok=True)


def explained(path: Path) -> AbstractContextManager[None]:
    """Turn what the file system says about a file to write into an error with a fix.

    Raises:
        MachineError: machine/disk-full, machine/read-only.
    """
    return files.explained(path, "write into a folder of your own, as in -o data/NAME")
