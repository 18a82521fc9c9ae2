"""Makes a small instruction data set in Alpaca's columns: short tasks whose answers can be computed.

    python examples/instructions.py [FILE]

It writes examples/data/instructions.jsonl, which the recipes use, or FILE.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

HERE = Path(__file__).parent / "data" / "instructions.jsonl"
ROWS_PER_TASK = 40

WORDS = (
    *("apple", "river", "stone", "cloud", "lamp", "garden", "window", "pencil"),
    *("copper", "violin", "harbour", "forest", "basket", "candle", "ladder", "mirror"),
    *("pepper", "saddle", "tunnel", "wagon", "anchor", "blanket", "cradle", "dragon"),
    *("engine", "falcon", "goblet", "hammer", "island", "jacket", "kettle", "lemon"),
)
PLURALS = {
    **{"child": "children", "mouse": "mice", "leaf": "leaves", "box": "boxes", "city": "cities", "knife": "knives"},
    **{"tooth": "teeth", "goose": "geese", "story": "stories", "brush": "brushes", "hero": "heroes", "wolf": "wolves"},
}
SENTENCES = {
    "question": (
        "Where did you leave the keys",
        "When does the shop open",
        "Who wrote this letter",
        "Can we start now",
    ),
    "statement": ("The train leaves at noon", "My sister plays the cello", "It rained all night", "Bread needs time"),
    "command": ("Close the door", "Bring me the red folder", "Wait here for a moment", "Read the first page aloud"),
}
PLACES = ("the station", "the library", "room 12", "the old bridge", "gate 4", "the bakery")
PEOPLE = ("Mira", "Jonas", "Adele", "Tomas", "Ines", "Ravi", "Lena", "Omar")

Row = tuple[str, str, str]


def pick(options: tuple[str, ...] | list[str], rng: Random) -> str:
    """One of the options, by `random()` alone, whose numbers never change between versions."""
    return options[int(rng.random() * len(options))]


def sort_words(rng: Random) -> Row:
    """Words in alphabetical order."""
    words = list(dict.fromkeys(pick(WORDS, rng) for _ in range(5)))
    return "Sort these words alphabetically.", ", ".join(words), ", ".join(sorted(words))


def longest_word(rng: Random) -> Row:
    """The one longest of some words."""
    words = list(dict.fromkeys(pick(WORDS, rng) for _ in range(4)))
    longest = max(len(word) for word in words)
    answer = [word for word in words if len(word) == longest]
    if len(answer) > 1:
        return longest_word(rng)
    return "Which of these words has the most letters?", ", ".join(words), f"{answer[0]} ({longest} letters)"


def pluralise(rng: Random) -> Row:
    """A sentence with its noun in the plural."""
    noun = pick(list(PLURALS), rng)
    number = 2 + int(rng.random() * 8)
    return f"Write '{number} ...' with the plural of the noun.", noun, f"{number} {PLURALS[noun]}"


def classify(rng: Random) -> Row:
    """Question, statement or command."""
    kind = pick(list(SENTENCES), rng)
    sentence = pick(SENTENCES[kind], rng)
    return "Is this a question, a statement or a command? Punctuation was removed.", sentence, kind.capitalize() + "."


def convert(rng: Random) -> Row:
    """Kilometres to metres, hours to minutes, kilograms to grams."""
    unit, factor, small = (("kilometres", 1000, "metres"), ("hours", 60, "minutes"), ("kilograms", 1000, "grams"))[
        int(rng.random() * 3)
    ]
    amount = 2 + int(rng.random() * 30)
    return f"Convert {amount} {unit} to {small}.", "", f"{amount} {unit} are {amount * factor} {small}."


def extract(rng: Random) -> Row:
    """Who and where, from a note."""
    person, place = pick(PEOPLE, rng), pick(PLACES, rng)
    hour = 8 + int(rng.random() * 10)
    note = pick((f"Meet {person} at {place} at {hour}:00.", f"{hour}:00, {place}, {person} is waiting."), rng)
    answer = f"person: {person}\nplace: {place}\ntime: {hour}:00"
    return "List the person, the place and the time of this note, one a line.", note, answer


TASKS: tuple[Callable[[Random], Row], ...] = (sort_words, longest_word, pluralise, classify, convert, extract)


def rows() -> list[dict[str, str]]:
    """All rows, the tasks in turn; no instruction with its input occurs twice."""
    rng = Random("instructions")
    found: dict[tuple[str, str], str] = {}
    for task in TASKS:
        wanted, tries = len(found) + ROWS_PER_TASK, 0
        while len(found) < wanted and tries < 20 * ROWS_PER_TASK:
            tries += 1
            instruction, given, answer = task(rng)
            found.setdefault((instruction, given), answer)
    return [{"instruction": i, "input": g, "output": answer} for (i, g), answer in found.items()]


def main() -> None:
    """Write the rows."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
    path.write_text(text, encoding="utf-8", newline="\n")
    print(f"{path}: {text.count(chr(10))} rows")


if __name__ == "__main__":
    main()
