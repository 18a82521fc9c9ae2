"""Scores of answers, base against tuned on the same rows; and the questions that are asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest

from tutelage.data.dataset import Row
from tutelage.evaluate.samples import questions
from tutelage.evaluate.tasks import score
from tutelage.types import Conversation, Example, Message, Origin


def test_exact_match_by_hand():
    references = ["a", "b", "c", "d"] * 3
    base = ["a", "x", "x", "x"] * 3
    tuned = ["a", "b", "c", "x"] * 3
    found = score("exact", base, tuned, references, confidence=0.95).as_json()
    assert (found["base"], found["tuned"], found["difference"], found["n"]) == (0.25, 0.75, 0.5, 12)
    assert found["base_interval"][0] < 0.25 < found["base_interval"][1]
    assert found["tuned_interval"][0] < 0.75 < found["tuned_interval"][1]
    assert found["verdict"] == "better"
    assert found["fields"] == {}
    json.dumps(found, allow_nan=False)


def test_more_right_answers_are_better_fewer_are_worse():
    right, wrong = ["a"] * 20, ["b"] * 20
    assert score("exact", wrong, right, right, confidence=0.95).verdict == "better"
    assert score("exact", right, wrong, right, confidence=0.95).verdict == "worse"
    assert score("exact", right, right, right, confidence=0.95).verdict == "no difference"


def test_json_is_scored_by_field_too():
    references = ['{"a": 1, "b": 2}', '{"a": 1}']
    found = score("json", ["no", '{"a": 1}'], ['{"b": 2, "a": 0}', '{"a": 1}'], references, confidence=0.95)
    assert found.difference.base == found.difference.tuned == 0.5
    assert found.fields == {"a": {"base": 0.5, "tuned": 0.5}, "b": {"base": 0.0, "tuned": 1.0}}


class Words:
    """Ids are words by number."""

    @staticmethod
    def decode(ids: list[int]) -> str:
        return " ".join(f"w{id}" for id in ids)


class Rows:
    """A data set of these rows; the first of the weights are those of the prompt."""

    def __init__(self, *given: tuple[int, str, list[float]], texts: tuple[int, ...] = ()) -> None:
        self.given, self.texts = given, texts

    def asking(self, limit: int) -> list[Row]:
        return list(islice(self._asking(), limit))

    def _asking(self) -> Iterator[Row]:
        for line, side, weights in self.given:
            if side == "heldout" and line not in self.texts:
                origin = Origin("a", line)
                start = next(i for i, weight in enumerate(weights) if weight)
                ids = np.arange(10, 10 + len(weights), dtype=np.int32)
                example = Example(ids, np.array(weights, dtype=np.float32), origin, start)
                yield Row(line, origin, side, 0, (example,))

    def demonstrations(self, rows: list[Row]) -> list[Conversation]:
        turns = (Message("system", "s"), Message("user", "u"), Message("assistant", "a"), Message("user", "later"))
        return [Conversation(row.origin, turns) for row in rows]


def test_questions_are_the_first_trained_answers_of_held_out_rows():
    rows = Rows(
        (1, "train", [0, 1, 1]),
        (2, "heldout", [0, 0, 1, 1, 1, 0, 1]),
        (3, "heldout", [0, 1]),
        (4, "heldout", [0, 1, 0.5]),
        (5, "heldout", [0, 1]),
        texts=(3,),
    )
    found = questions(rows, Words(), [14], 2)
    assert [question.origin.line for question in found] == [2, 4]
    assert found[0].prompt_ids == (10, 11)
    assert found[0].reference == "w12 w13"
    assert found[0].messages == [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert found[1].reference == "w11 w12"
    assert questions(rows, Words(), [14], 0) == []


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_questions_stop_at_the_limit(limit):
    rows = Rows(*((n, "heldout", [0, 1]) for n in range(10)))
    assert len(questions(rows, Words(), [], limit)) == min(limit, 10)
