"""Training rows that hold a question of an evaluation set.

A row is a hit when its prompt is the question but for little ("near"), when the prompt holds a whole short question
("whole"), or when any of its texts, the answer too, has a run of many words in common with a question or a solution
in code ("words"). A run counts only when it tells something: not when it stands in many questions, as the head of a
few-shot prompt does, and not when it is made of numbers and signs, as 1, 2, 3 to 13 is.

To find runs without looking at each place: a run of n words holds, at one of the places that are multiples of
(n + 1) / 2, a run of that many words. Only those are looked up; what is found is then followed to both sides.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tutelage.data.repeats.questions import Question, read_sets
from tutelage.data.repeats.words import jaccard, shingles, words
from tutelage.data.split import asked
from tutelage.recipe import DecontaminateOptions
from tutelage.types import Completion, Conversation, Demonstration, Origin

NEAR = 3
"""Words in the runs that prompts and questions are compared by."""
CONTAINED = 5
"""A question of at least so many words is a hit anywhere in a prompt; a shorter one only when it is the prompt."""
COMMON = 5
"""A run of words that stands in so many questions is nobody's own."""
_EXCERPT = 200

Kind = Literal["words", "whole", "near"]


@dataclass(frozen=True, slots=True)
class Hit:
    """What of an evaluation set a row holds."""

    set: str
    """The set's name."""
    origin: Origin
    """Where its question stands."""
    kind: Kind
    excerpt: str
    """The words in common; the question's, where it is near."""


class Decontaminator:
    """The evaluation sets of a recipe, made ready for comparing rows with them.

    Raises what `questions.read_sets` raises.
    """

    def __init__(self, options: DecontaminateOptions) -> None:
        self.options = options
        self.sets = read_sets(options.against)
        self._questions = [question for one in self.sets for question in one.questions]
        self._words = [words(question.text) for question in self._questions]
        self._step = (options.words + 1) // 2
        self._common = self._runs_in_many()
        self._places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        """A run of `_step` words -> the texts it stands in, and where."""
        self._near: dict[tuple[str, ...], list[int]] = defaultdict(list)
        """A run of NEAR words -> the questions it stands in."""
        self._short: dict[tuple[str, ...], list[tuple[int, str]]] = defaultdict(list)
        """The first NEAR words of a question that is looked for as a whole -> it, with spaces around."""
        self._shortest: dict[str, int] = {}
        """A question of fewer than CONTAINED words -> it."""
        for number in range(len(self._questions)):
            self._index(number)
        # Sets remember the hashes of what they hold, which dictionaries' keys do not when they are intersected.
        self._known = frozenset(self._near)
        self._short_known = frozenset(self._short)

    def hit(self, row: Demonstration) -> Hit | None:
        """What the row holds of an evaluation set; the most telling kind where it is several."""
        split = [words(text) for text in asked(row)]
        for prompt in split:
            found = self._alike(prompt)
            if found is not None:
                return found
        for text in split:
            found = self._overlap(text)
            if found is not None:
                return found
        for other in _others(row):
            found = self._overlap(words(other))
            if found is not None:
                return found
        return None

    def identity(self) -> dict[str, Any]:
        """What decides the hits, as JSON: the options and a hash of each set's texts."""
        chosen = {"words": self.options.words, "threshold": self.options.threshold}
        return {**chosen, "sets": [one.identity() for one in self.sets]}

    # ------------------------------------------------------------------------------------------- making ready

    def _index(self, number: int) -> None:
        text, size = self._words[number], self.options.words
        for place in range(len(text) - self._step + 1) if len(text) >= size else ():
            self._places[" ".join(text[place : place + self._step])].append((number, place))
        if self._questions[number].solution:
            return
        for run in shingles(text, NEAR):
            self._near[run].append(number)
        if len(text) < CONTAINED or len(text) < NEAR:
            self._shortest.setdefault(" ".join(text), number)
        elif not any(self._tells(text[start : start + size]) for start in range(len(text) - size + 1)):
            self._short[tuple(text[:NEAR])].append((number, f" {' '.join(text)} "))

    def _runs_in_many(self) -> frozenset[str]:
        """The runs of words that stand in many different texts."""
        size = self.options.words
        counts: Counter[str] = Counter()
        for text in {" ".join(text): text for text in self._words}.values():
            counts.update({" ".join(run) for run in _runs(text, size)})
        return frozenset(run for run, count in counts.items() if count >= COMMON)

    def _tells(self, run: Sequence[str]) -> bool:
        """Whether a run of words is one question's own: half of it different words, and not in many questions."""
        plain = {word for word in run if len(word) > 1 or not word.isascii() if not word.isdigit()}
        return len(plain) >= len(run) // 2 and " ".join(run) not in self._common

    # ------------------------------------------------------------------------------------------------ looking

    def _alike(self, prompt: list[str]) -> Hit | None:
        """A question that is the prompt, nearly the prompt, or a short one within it."""
        if len(prompt) < CONTAINED:
            number = self._shortest.get(" ".join(prompt))
            return None if number is None else self._hit(number, "whole", prompt)
        runs = shingles(prompt, NEAR)
        known = runs & self._known
        if not known:
            return None
        for run in known & self._short_known:
            text = f" {' '.join(prompt)} "
            for number, question in self._short[run]:
                if question in text:
                    return self._hit(number, "whole", self._words[number])
        # What both share is a part of the prompt that is no smaller than the threshold.
        if len(known) < self.options.threshold * len(runs):
            return None
        shared = Counter(number for run in known for number in self._near[run])
        near = (number for number, count in shared.items() if count >= self.options.threshold * len(runs))
        found = [(-jaccard(runs, shingles(self._words[number], NEAR)), number) for number in near]
        if not found or -min(found)[0] < self.options.threshold:
            return None
        number = min(found)[1]
        return self._hit(number, "whole" if self._words[number] == prompt else "near", self._words[number])

    def _overlap(self, text: list[str]) -> Hit | None:
        """A run of words in common that tells something."""
        step = self._step
        keys = [" ".join(text[start : start + step]) for start in range(0, len(text) - step + 1, step)]
        if self._places.keys().isdisjoint(keys):
            return None
        for start, key in enumerate(keys):
            for number, place in self._places.get(key, ()):
                run = self._common_run(text, start * step, number, place)
                if run is not None:
                    return self._hit(number, "words", run)
        return None

    def _common_run(self, text: list[str], start: int, number: int, place: int) -> list[str] | None:
        """The words in common around a place, where they are enough and tell something."""
        question, size = self._words[number], self.options.words
        before = 0
        while before < min(start, place) and text[start - before - 1] == question[place - before - 1]:
            before += 1
        begin, end = start - before, start + self._step
        offset = place - start
        while end < len(text) and end + offset < len(question) and text[end] == question[end + offset]:
            end += 1
        run = text[begin:end]
        return run if any(self._tells(part) for part in _runs(run, size)) else None

    def _hit(self, number: int, kind: Kind, run: Sequence[str]) -> Hit:
        question: Question = self._questions[number]
        excerpt = " ".join(run)
        excerpt = excerpt if len(excerpt) <= _EXCERPT else excerpt[: _EXCERPT - 1] + "…"
        return Hit(question.set, question.origin, kind, excerpt)


def _runs(text: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (text[start : start + size] for start in range(len(text) - size + 1))


def _others(row: Demonstration) -> list[str]:
    """The texts of a row beside those that ask."""
    if isinstance(row, Completion):
        return [row.completion]
    if not isinstance(row, Conversation):
        return []
    texts = []
    for turn in row.messages:
        if turn.role != "user":
            texts.append(turn.content)
        if turn.thinking:
            texts.append(turn.thinking)
        texts += map(str, turn.tool_calls)
    return texts
