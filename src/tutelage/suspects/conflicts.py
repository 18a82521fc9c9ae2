"""Rows that ask the same and answer differently: found by their keys, and confirmed by their text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from tutelage.data.dataset import Dataset
from tutelage.data.split import answered, asked
from tutelage.suspects.courses import Courses
from tutelage.suspects.ranking import FAR, Found, losses_of
from tutelage.types import Conversation, Demonstration

MOST = 2000
"""Rows whose text is read; of more, those with the highest losses for rows like them."""


def in_conflict(courses: Courses, dataset: Dataset) -> tuple[list[Found], int]:
    """The trained rows whose prompt stands elsewhere with another answer, and how many more there may be.

    Equal keys overlook signs, so `5 + 3` and `5 - 3` have the same: the text decides.
    """
    stored = dataset.store.rows[courses.rows]
    score = np.nan_to_num(courses.at_last(courses.score))
    groups: dict[int, list[int]] = defaultdict(list)
    for place, prompt in enumerate(stored["prompt"].tolist()):
        groups[prompt].append(place)
    alike = [places for places in groups.values() if len({int(stored["pair"][place]) for place in places}) > 1]
    alike.sort(key=lambda places: (-float(score[places].max()), places[0]))
    chosen: list[int] = []
    while alike and len(chosen) + len(alike[0]) <= MOST:
        chosen += alike.pop(0)
    texts = dataset.demonstrations(dataset.trained(int(courses.rows[place]) for place in chosen))
    asking: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, row in zip(chosen, texts, strict=True):
        asking[_prompt(row)][_spaced(" ".join(answered(row)))].append(place)
    found = [
        _found(courses, place, len(answers), other, float(score[place]))
        for answers in asking.values()
        if len(answers) > 1
        for place, other in _others(answers, dataset, courses).items()
    ]
    return found, sum(map(len, alike))


def _others(answers: Mapping[str, list[int]], dataset: Dataset, courses: Courses) -> dict[int, str]:
    """For each row the first place where another answer stands."""
    firsts = {answer: places[0] for answer, places in answers.items()}
    return {
        place: str(dataset.store.origin(int(courses.rows[next(o for a, o in firsts.items() if a != answer)])))
        for answer, places in answers.items()
        for place in places
    }


def _found(courses: Courses, place: int, answers: int, other: str, score: float) -> Found:
    weight = 0.0 if score >= FAR else round(1 / answers, 3)
    why = f"the same prompt has {answers} answers; another one stands in {other}"
    return Found(int(courses.rows[place]), "in conflict", score, losses_of(courses, place), weight, why)


def _prompt(row: Demonstration) -> str:
    """What is asked, with its signs; case and spacing are overlooked."""
    system = [m.content for m in row.messages if m.role == "system"] if isinstance(row, Conversation) else []
    return "\x1f".join(_spaced(text).casefold() for text in (*system, *asked(row)))


def _spaced(text: str) -> str:
    return " ".join(text.split())
