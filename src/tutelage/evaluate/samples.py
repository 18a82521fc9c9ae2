"""Held-out prompts and what follows them: answered before and after training, and compared with the rows' own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.data.dataset import Dataset, Row
from tutelage.data.encode.tokenizer import Tokenizer
from tutelage.generate.engine import Answer, generate
from tutelage.models.forward import Forward
from tutelage.types import Conversation, Demonstration, Origin


@dataclass(frozen=True, slots=True)
class Question:
    """A held-out prompt with its reference answer."""

    origin: Origin
    prompt_ids: tuple[int, ...]
    messages: list[dict[str, str]]
    """The prompt's turns, for the report; empty for plain text."""
    reference: str


def questions(dataset: Dataset, tokenizer: Tokenizer, stop_ids: Collection[int], limit: int) -> list[Question]:
    """The first trained answer of at most `limit` held-out rows, of all sources; rows of plain text ask nothing."""
    rows = dataset.asking(limit)
    asked = zip(rows, dataset.demonstrations(rows), strict=True)
    return [_question(row, given, tokenizer, stop_ids) for row, given in asked]


def _question(row: Row, given: Demonstration, tokenizer: Tokenizer, stop_ids: Collection[int]) -> Question:
    example = row.examples[0]
    start = example.prompt_length
    # What an answer thinks may come first, untrained; the answer is over where training ends.
    trained = start + int(np.flatnonzero(example.weights[start:])[0])
    after = np.flatnonzero(example.weights[trained:] == 0)
    end = trained + int(after[0]) if len(after) else len(example)
    answer = example.input_ids[start:end].tolist()
    if answer and answer[-1] in stop_ids:
        answer = answer[:-1]
    messages = []
    if isinstance(given, Conversation):
        for message in given.messages:
            if message.role == "assistant" and message.trained > 0:
                break
            messages.append({"role": message.role, "content": message.content})
    prompt = tuple(example.input_ids[:start].tolist())
    return Question(example.origin, prompt, messages, tokenizer.decode(answer))


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with the model's answer."""

    question: Question
    answer: Answer
    text: str

    def as_json(
        self, *, model: str, step: int, prompt: str, max_new_tokens: int, correct: bool | None
    ) -> dict[str, Any]:
        """A line of `samples.jsonl`."""
        return {
            "step": step,
            "model": model,
            "origin": {"file": self.question.origin.file, "line": self.question.origin.line},
            "messages": self.question.messages,
            "prompt": prompt,
            "answer": self.text,
            "reference": self.question.reference,
            "stopped": self.answer.stopped,
            "tokens": len(self.answer.input_ids),
            "decoding": {"method": "greedy", "max_new_tokens": max_new_tokens},
            "correct": correct,
        }


def ask(
    forward: Forward,
    asked: Sequence[Question],
    tokenizer: Tokenizer,
    *,
    stop_ids: Collection[int],
    max_new_tokens: int,
    progress: Callable[[int], None],
) -> list[Answered]:
    """The model's greedy answer to each question."""
    answers = generate(
        forward,
        [question.prompt_ids for question in asked],
        stop_ids=stop_ids,
        max_new_tokens=max_new_tokens,
        progress=progress,
    )
    return [
        Answered(question, answer, tokenizer.decode(answer.input_ids))
        for question, answer in zip(asked, answers, strict=True)
    ]
