"""Made-up facts of a data set, counted from made-up rows, for tests of its page."""

from __future__ import annotations

from typing import Any

import numpy as np

from tutelage.data.clean import Finding
from tutelage.data.ledger import Ledger
from tutelage.data.statistics import Statistics
from tutelage.data.statistics.lengths import token_statistics
from tutelage.report.facts import Facts
from tutelage.types import Conversation, Message, Origin

WORDS = ["write", "a", "short", "letter", "to", "the", "shop", "about", "an", "order", "that", "came", "late"]


def facts(**other: Any) -> Facts:
    """Facts of every kind; `other` takes the place of some."""
    made: Facts = {
        "name": "orders",
        "ledger": ledger().as_json(),
        "sources": [
            {"path": "shop/orders.jsonl", "format": "alpaca", "rows": 60, "bytes": 4096, "sha256": "ab" * 32},
            {"path": ["a.jsonl", "b.jsonl"], "format": "messages", "rows": 40, "bytes": 2048, "sha256": None},
        ],
        "statistics": statistics(),
        "tokens": tokens(),
        "mixture": [
            {"source": "orders", "examples": 50, "tokens": 4000, "taken": 60, "epochs": 6.25},
            {"source": "chat", "examples": 38, "tokens": 9000, "taken": 20, "epochs": 0.5},
        ],
        "samples": [
            {
                "origin": {"file": "shop/orders.jsonl", "line": 3},
                "split": "train",
                "tokens": [["<|user|>", 0.0], ["Hello", 0.0], [" there", 1.0], ["\n", 0.5]],
            }
        ],
    }
    return {**made, **other}  # type: ignore[typeddict-item]


def ledger() -> Ledger:
    """100 rows, of which 7 were dropped."""
    found = Ledger()
    found.keep("train", 88, 90)
    found.keep("heldout", 5, 5)
    for line in range(4):
        found.drop("bad-row", Origin("shop/orders.jsonl", line + 1))
    for line in range(3):
        found.drop("contaminated", Origin("shop/orders.jsonl", line + 50))
        found.contaminate(
            "gsm8k", Origin("shop/orders.jsonl", line + 50), Origin("gsm8k.jsonl", 7), "13 words", "how many apples"
        )
    for _ in range(6):
        address = Finding("personal_data", "kept", "output", "write to [EMAIL]")
        found.clean(Origin("shop/orders.jsonl", 9), [address])
    ending = Finding("line_endings", "repaired", "instruction", "one⟨U+000D⟩")
    found.clean(Origin("shop/orders.jsonl", 11), [ending])
    found.duplicates, found.conflicts = 12, 2
    found.notices["the template has no system role"] = 3
    return found


def statistics() -> dict[str, Any]:
    """What 100 rows of two sources are like."""
    found = Statistics()
    for number in range(100):
        asked = " ".join(WORDS[: 2 + number % 11]) + ("?" if number % 4 == 0 else "")
        answer = "I am sorry." if number % 20 == 0 else f"Answer {number}: " + "très bien " * (number % 17)
        before = (Message("system", "Be brief."),) if number % 2 else ()
        turns = (*before, Message("user", asked), Message("assistant", answer))
        found.add(Conversation(Origin("a", number), turns), source=("orders", "chat")[number % 3 == 0])
    return found.as_json()


def tokens() -> dict[str, Any]:
    """Lengths of 90 examples, of which a few are too long."""
    lengths = np.array([20 + number * number // 4 for number in range(90)])
    sources = np.arange(90) % 2
    return token_statistics(lengths, lengths // 3, sources, ["orders", "chat"], max_length=1024)
