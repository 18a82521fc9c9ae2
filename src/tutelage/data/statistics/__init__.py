"""What a data set is like, counted while its rows go by: lengths, turns, scripts, what repeats, what is asked for.

A prompt is all that a row does not train on; an answer is one message that it trains on. Memory does not grow with
the rows but for two keys of eight bytes each, from which repetitions are counted exactly.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tutelage.data.clean.scripts import scripts
from tutelage.data.statistics.frequent import Frequent
from tutelage.data.statistics.quantiles import Distribution, bins
from tutelage.types import Completion, Conversation, Demonstration

EXCERPT = 160
"""Characters kept of a text that may be among the most frequent."""
LISTED = 20
WORD = 24
"""A longer first word is not counted: it is an address, or a sentence of a script without spaces."""

_ENDINGS = ("?", "\uff1f", "\u061f", "\u037e")
"""Question marks: Latin, full-width, Arabic, Greek."""
_CODE = ("```", "</", "();")
_CODE_LINES = ("def ", "class ", "import ", "#include", "function ", "public ", "return ", "SELECT ")
_MARKDOWN = ("**", "```", "](http")
_MARKDOWN_LINES = ("# ", "## ", "### ", "- ", "* ", "1. ", "|")
_AROUND = "\"'`“”‘’«»()[]{}<>*#.,:;!?-–—_/\\"
_ASCII = bytes(range(128))
_NOT_LETTERS = bytes(code for code in range(256) if code >= 128 or not chr(code).isalpha())


def letters(text: str) -> dict[str, int]:
    """Return how many letters of each script a text holds, as `scripts` does, at a tenth of the time for ASCII."""
    coded = text.encode("utf-8", "ignore")
    latin = len(coded.translate(None, _NOT_LETTERS))
    if coded.isascii():
        return {"Latin": latin} if latin else {}
    found = scripts(coded.translate(None, _ASCII).decode("utf-8"))
    if latin:
        found["Latin"] += latin
    return found


def dominant(found: Mapping[str, int]) -> str:
    """Return the script of most letters; "" where there are no letters."""
    if len(found) == 1:
        return next(iter(found))
    return max(found, key=lambda script: (found[script], script), default="")


@dataclass(slots=True)
class Texts:
    """One side of the rows, prompts or answers."""

    characters: Distribution = field(default_factory=Distribution)
    words: Distribution = field(default_factory=Distribution)
    scripts: Counter[str] = field(default_factory=Counter)
    """Texts by the script of most of their letters."""
    letters: Counter[str] = field(default_factory=Counter)
    keys: array[int] = field(default_factory=lambda: array("Q"))
    frequent: Frequent[int] = field(default_factory=Frequent)

    def add(self, text: str) -> str:
        """Count a text; its script."""
        words = text.split()
        self.characters.add(len(text))
        self.words.add(len(words))
        plain = " ".join(words).casefold().encode("utf-8", "surrogatepass")
        key = int.from_bytes(hashlib.blake2b(plain, digest_size=8).digest(), "little")
        self.keys.append(key)
        self.frequent.add(key, text[:EXCERPT])
        found = letters(text)
        script = dominant(found)
        self.scripts[script or "none"] += 1
        for name, count in found.items():
            self.letters[name] += count
        return script

    def merge(self, other: Texts) -> None:
        """Count what another side counted."""
        self.characters.merge(other.characters)
        self.words.merge(other.words)
        self.scripts.update(other.scripts)
        self.letters.update(other.letters)
        self.keys.extend(other.keys)
        self.frequent.merge(other.frequent)

    def as_json(self) -> dict[str, Any]:
        """Lengths, scripts, and what repeats whatever its case and spacing."""
        return {
            "count": len(self.keys),
            "characters": {**self.characters.as_json(), "histogram": bins(self.characters.buckets)},
            "words": self.words.as_json(),
            "scripts": dict(self.scripts.most_common()),
            "letters": dict(self.letters.most_common()),
            "repeated": self._repeated(),
        }

    def _repeated(self) -> dict[str, Any]:
        keys, counts = np.unique(np.frombuffer(self.keys, dtype=np.uint64), return_counts=True)
        exact: list[tuple[int, str]] = []
        for key, text, _ in self.frequent.most(self.frequent.limit):
            times = int(counts[np.searchsorted(keys, np.uint64(key))])
            if times > 1:
                exact.append((times, text))
        exact.sort(key=lambda one: (-one[0], one[1]))
        return {
            "distinct": len(keys),
            "again": len(self.keys) - len(keys),
            "most": [{"text": text, "times": times} for times, text in exact[:LISTED]],
        }


@dataclass(slots=True)
class Part:
    """The counts of one source."""

    counts: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    prompts: Texts = field(default_factory=Texts)
    answers: Texts = field(default_factory=Texts)
    first_words: Frequent[str] = field(default_factory=Frequent)

    def add(self, row: Demonstration) -> None:
        """Count a row."""
        counts = self.counts
        counts["rows"] += 1
        if isinstance(row, Conversation):
            asked, answers, first = self._conversation(row)
        elif isinstance(row, Completion):
            asked, answers, first = [row.prompt], [row.completion], row.prompt
        else:
            asked, answers, first = [], [row.text], ""
        prompt = "\n\n".join(asked)
        wanted = self.prompts.add(prompt) if prompt else ""
        if first:
            if first.rstrip()[-1:] in _ENDINGS:
                counts["questions"] += 1
            self._first_word(first)
        self._answers(prompt, answers, wanted)

    def _conversation(self, row: Conversation) -> tuple[list[str], list[str], str]:
        """(what is not trained, what is, what was asked for in the end)."""
        counts = self.counts
        asked: list[str] = []
        answers: list[str] = []
        first = ""
        calls = thinking = 0
        for message in row.messages:
            role = message.role
            self.roles[role] += 1
            if message.trained > 0:
                answers.append(message.content)
            else:
                asked.append(message.content)
            if role == "user":
                first = message.content
            calls += len(message.tool_calls)
            thinking += message.thinking is not None
        self.turns[len(row.messages)] += 1
        counts["conversations"] += 1
        if row.messages and row.messages[0].role == "system":
            counts["system"] += 1
        if row.tools:
            counts["tools"] += 1
        if calls:
            counts["calling"] += 1
            counts["tool_calls"] += calls
        if thinking:
            counts["thinking"] += 1
        return asked, answers, row.instruction.text if row.instruction is not None and row.instruction.text else first

    def _first_word(self, text: str) -> None:
        words = text[: 4 * WORD].split(None, 1)
        word = words[0].strip(_AROUND).casefold() if words else ""
        if word and len(word) <= WORD:
            self.first_words.add(word, word)

    def _answers(self, prompt: str, answers: list[str], wanted: str) -> None:
        code = _has(prompt, _CODE, _CODE_LINES)
        other = markdown = whole_json = False
        for answer in answers:
            if not answer:  # a turn of tool calls alone
                continue
            script = self.answers.add(answer)
            other = other or bool(script and wanted and script != wanted)
            code = code or _has(answer, _CODE, _CODE_LINES)
            markdown = markdown or _has(answer, _MARKDOWN, _MARKDOWN_LINES)
            whole_json = whole_json or _is_json(answer)
        for name, found in (("code", code), ("markdown", markdown), ("json", whole_json), ("other_script", other)):
            if found:
                self.counts[name] += 1

    def merge(self, other: Part) -> None:
        """Count what another part counted."""
        self.counts.update(other.counts)
        self.turns.update(other.turns)
        self.roles.update(other.roles)
        self.prompts.merge(other.prompts)
        self.answers.merge(other.answers)
        self.first_words.merge(other.first_words)

    def as_json(self) -> dict[str, Any]:
        """The part as `tutelage data stats` tells it; "holding" has the rows that have something of the kind."""
        return {
            "rows": self.counts["rows"],
            "conversations": self.counts["conversations"],
            "turns": [[number, count] for number, count in sorted(self.turns.items())],
            "roles": dict(self.roles.most_common()),
            "holding": {name: self.counts[name] for name in HOLDING},
            "tool_calls": self.counts["tool_calls"],
            "prompts": self.prompts.as_json(),
            "answers": self.answers.as_json(),
            "first_words": [[word, count] for word, _, count in self.first_words.most(LISTED)],
        }


HOLDING = ("system", "questions", "code", "json", "markdown", "tools", "calling", "thinking", "other_script")
"""What rows are counted by: a system message; a last question that ends in a question mark; code; an answer that is
JSON; Markdown in an answer; tools on offer; tool calls; thinking; an answer in another script than its prompt."""


def _has(text: str, anywhere: tuple[str, ...], at_line: tuple[str, ...]) -> bool:
    """Whether one of the marks is in the text, or begins one of its lines."""
    for mark in anywhere:
        if mark in text:
            return True
    if text.startswith(at_line):
        return True
    if "\n" in text:
        for mark in at_line:
            if "\n" + mark in text:
                return True
    return False


def _is_json(text: str) -> bool:
    start = text.lstrip()[:1]
    if start not in ("{", "[") or text.rstrip()[-1:] not in ("}", "]"):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


@dataclass(slots=True)
class Statistics:
    """The counts of all sources, filled while rows are read."""

    parts: dict[str, Part] = field(default_factory=dict)

    def add(self, row: Demonstration, *, source: str) -> None:
        """Count a row of a source."""
        part = self.parts.get(source)
        if part is None:
            part = self.parts[source] = Part()
        part.add(row)

    def merge(self, other: Statistics) -> None:
        """Count what another process counted."""
        for source, part in other.parts.items():
            self.parts.setdefault(source, Part()).merge(part)

    def as_json(self) -> dict[str, Any]:
        """All sources together, and each of them under `sources`."""
        whole = Part()
        for part in self.parts.values():
            whole.merge(part)
        return {**whole.as_json(), "sources": {source: part.as_json() for source, part in self.parts.items()}}
