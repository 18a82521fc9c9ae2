"""Rows as they are read, as text: who says what, what is trained, what cleaning found."""

from __future__ import annotations

import json
from typing import Any

from rich.text import Text

from tutelage.cli.screen import printable
from tutelage.cli.show import NOT_TRAINED, TRAINED


def row_text(row: dict[str, Any]) -> Text:
    """One row of `tutelage data show`."""
    text = Text(printable(str(row.get("origin", ""))) + "\n", style="cyan")
    if "dropped" in row:
        return text.append(f"dropped: {row['dropped']}\n", style="yellow")
    if "bad" in row:
        return text.append(printable(f"{row['bad']}: {row['found']}\n"), style="red")
    for label, content, trained in _parts(row):
        shown = printable(content).rstrip().replace("\n", "\n" + " " * 11)
        text.append(f"{label:<10} ", style="bold" if trained else NOT_TRAINED)
        text.append(shown + "\n", style=TRAINED if trained else "default")
    for finding in row.get("found", ()):
        text.append(printable(f"found      {finding}\n"), style="yellow")
    return text


def _parts(row: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(label, content, whether it is trained) of each part of a row."""
    if "text" in row:
        return [("text", row["text"], True)]
    if "prompt" in row:
        return [("prompt", row["prompt"], False), ("completion", row["completion"], True)]
    parts = [("tools", json.dumps(row["tools"], ensure_ascii=False), False)] if row.get("tools") else []
    for turn in row["messages"]:
        trained = turn.get("weight", 1.0 if turn["role"] == "assistant" else 0.0) > 0
        if turn.get("thinking"):
            parts.append(("thinking", turn["thinking"], trained))
        if turn["content"] or not turn.get("tool_calls"):
            parts.append((turn["role"], turn["content"], trained))
        for call in turn.get("tool_calls", ()):
            parts.append(("call", json.dumps(call["function"], ensure_ascii=False), trained))
    return parts
