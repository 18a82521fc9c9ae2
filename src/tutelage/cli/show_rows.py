"""Rows as they are read, as text: who says what, what is trained, what cleaning found."""

from __future__ import annotations

import json
from typing import Any

from rich.text import Text

from tutelage.cli.screen import printable
from tutelage.cli.show import NOT_TRAINED, TRAINED

WIDTH = 11
"""Columns of the labels."""


def row_text(row: dict[str, Any]) -> Text:
    """One row of `tutelage data show`."""
    text = Text(printable(str(row["origin"])) + "\n", style="cyan")
    if "dropped" in row:
        why = ": ".join(str(row[name]) for name in ("dropped", "what", "question", "found") if row.get(name))
        return _append(text, "dropped", why, "yellow", "yellow")
    for label, content, trained in _parts(row):
        _append(text, label, content, "bold" if trained else NOT_TRAINED, TRAINED if trained else "default")
    for finding in row.get("found", ()):
        _append(text, "found", finding, "yellow", "yellow")
    if row.get("weight", 1.0) != 1.0:
        _append(text, "weight", f"{row['weight']:g}", NOT_TRAINED, "default")
    return text


def _append(text: Text, label: str, content: str, of_label: str, of_content: str) -> Text:
    """A label, and a text whose further lines are indented, too."""
    shown = printable(content).rstrip().replace("\n", "\n" + " " * WIDTH)
    return text.append(f"{label:<{WIDTH}}", style=of_label).append(shown + "\n", style=of_content)


def _parts(row: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(label, content, whether it is trained) of each part of a row."""
    if "text" in row:
        return [("text", row["text"], True)]
    if "prompt" in row:
        return [("prompt", row["prompt"], False), ("completion", row["completion"], True)]
    parts = [
        ("tools", json.dumps(tool.get("function", tool), ensure_ascii=False), False) for tool in row.get("tools", ())
    ]
    for turn in row["messages"]:
        trained = turn.get("weight", 1.0 if turn["role"] == "assistant" else 0.0) > 0
        if turn.get("thinking"):
            parts.append(("thinking", turn["thinking"], trained))
        if turn["content"] or not turn.get("tool_calls"):
            parts.append((turn["role"], turn["content"], trained))
        for call in turn.get("tool_calls", ()):
            parts.append(("call", json.dumps(call["function"], ensure_ascii=False), trained))
    return parts
