"""Makes the demo's rows: one sentence of a customer, and the order that it means as JSON.

A row is a skeleton (`patterns.py`) whose slots are filled (`slots.py`). Test rows use other skeletons than
train rows, other days as today, and some names and notes that training never shows.

Each order begins with today and the next five days, like the calendar on the wall of the shop: a 135M model can
learn to look a day up from a few hundred rows, but not to count days across month ends.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

from tutelage.demo.patterns import PATTERNS, Pattern, Split
from tutelage.demo.slots import (
    draw_day,
    draw_items,
    draw_name,
    draw_notes,
    draw_service,
    draw_time,
    draw_today,
    pick,
    say_items,
    say_today,
    shuffle,
)
from tutelage.errors import MachineError, Problem

SYSTEM = "Turn the order into JSON: items, date, time, service, name, note."


def rows(count: int, *, split: Split, seed: int) -> list[dict[str, Any]]:
    """`count` different rows of the split, the same ones for the same arguments.

    A row is {"messages", "pattern", "split"}. A longer list begins with the shorter one of the same seed.
    """
    rng = Random(f"{split} {seed}")
    seen: set[str] = set()
    found: list[dict[str, Any]] = []
    patterns = _deal([pattern for pattern in PATTERNS if pattern.split == split], rng)
    while len(found) < count:
        row = _make_row(next(patterns), rng)
        sentence = row["messages"][1]["content"]
        if sentence not in seen:
            seen.add(sentence)
            found.append(row)
    return found


def write(folder: Path, *, train: int = 900, test: int = 200, seed: int = 0) -> tuple[Path, Path]:
    """Writes train.jsonl and test.jsonl into the folder, and returns their paths.

    Raises MachineError where they cannot be written.
    """
    counts: tuple[tuple[Split, int], ...] = (("train", train), ("test", test))
    paths = (folder / "train.jsonl", folder / "test.jsonl")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, (split, count) in zip(paths, counts, strict=True):
            made = rows(count, split=split, seed=seed)
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in made]
            path.write_text("".join(lines), encoding="utf-8", newline="\n")
    except OSError as error:
        problem = Problem(
            "machine/read-only",
            "the demo's rows could not be written",
            where=str(folder),
            found=str(error),
            fix="name a folder that can be written",
        )
        raise MachineError(problem) from error
    return paths


def main() -> None:
    """Writes the rows as the command line asks, and prints the lines of a recipe that uses them."""
    parser = argparse.ArgumentParser(description="Write the demo's rows: train.jsonl and test.jsonl.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=900, help="rows to train on (900)")
    parser.add_argument("--test", type=int, default=200, help="rows to test on (200)")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other rows (0)")
    given = parser.parse_args()
    train, test = write(given.folder, train=given.train, test=given.test, seed=given.seed)
    print(f"data:\n  train: [{{path: {train}}}]\n  heldout: {{path: {test}}}\nevaluate:\n  score: json")


def _make_row(pattern: Pattern, rng: Random) -> dict[str, Any]:
    """The pattern with its optional parts decided and its slots filled."""
    text = re.sub(r"\[([^]]*)\]", lambda part: part[1] if rng.random() < 0.6 else "", pattern.skeleton)
    slots = [slot.lower() for slot in re.findall(r"{(\w+)}", text)]
    today = draw_today(pattern.split, rng)
    meant, said = _draw_fillers(pattern, slots, today, rng)
    order = {
        "items": meant["items"],
        "date": meant["date"],
        "time": meant["time"] if "time" in slots else None,
        "service": meant["service"],
        "name": said["name"] if "name" in slots else None,
        "note": next((said[slot] for slot in slots if slot in ("wish", "allergy", "note")), None),
    }
    sentence = re.sub(r"{(\w+)}", lambda slot: _fill(slot[1], said), text)
    contents = {
        "system": SYSTEM,
        "user": f"{say_today(today)} {sentence}",
        "assistant": json.dumps(order, ensure_ascii=False),
    }
    return {
        "messages": [{"role": role, "content": content} for role, content in contents.items()],
        "pattern": pattern.key,
        "split": pattern.split,
    }


def _draw_fillers(
    pattern: Pattern, slots: Sequence[str], today: date, rng: Random
) -> tuple[dict[str, Any], dict[str, str]]:
    """What each field means, and what stands in each slot; also for slots that the text leaves out."""
    asked = "pickup" if pattern.service == "said" and "service" not in slots else pattern.service
    service, said_service = draw_service(asked, rng)
    items = draw_items(service, rng)
    day, said_day, on_day = draw_day(today, rng)
    time, said_time = draw_time(rng)
    wish, allergy = draw_notes(pattern.split, [product for product, _ in items], rng)
    meant = {
        "items": [{"product": product, "quantity": quantity} for product, quantity in items],
        "date": day,
        "time": time,
        "service": service,
    }
    said = {
        "items": say_items(items, rng),
        "date": said_day,
        "on": on_day,
        "time": said_time,
        "service": said_service,
        "name": draw_name(pattern.split, rng),
        "wish": wish,
        "allergy": allergy,
        "note": pick((wish, allergy), rng),
    }
    return meant, said


def _fill(slot: str, said: dict[str, str]) -> str:
    """What stands in the slot; capitalised where the slot's name is."""
    filler = said[slot.lower()]
    return filler[0].upper() + filler[1:] if slot[0].isupper() else filler


def _deal(patterns: Sequence[Pattern], rng: Random) -> Iterator[Pattern]:
    """The patterns again and again, each time all of them in another order."""
    while True:
        yield from shuffle(patterns, rng)
