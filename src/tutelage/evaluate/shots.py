"""Held-out answers, each in three places: after its own prompt, after it and a few examples, and as a control.

    zero-shot                               prompt          answer
    few-shot    training row · row · row ·  prompt          answer
    control     training row · row · row ·  another row's   answer

The examples are training rows as earlier turns of the same conversation; without a chat template they stand as text
before the prompt. The control has the same ones, so it differs from the few-shot place by the prompt alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.data.dataset import Dataset, Row
from tutelage.data.encode import Encoder
from tutelage.data.split import prompt_key
from tutelage.data.stream import sources_of
from tutelage.errors import TutelageError
from tutelage.types import Completion, Conversation, Demonstration, Example, Message, Origin

SHOTS = 3
SETS = 4
"""Sets of examples that are shown, for each source: what one set happens to hold should not decide."""
LONGEST = 256
"""Tokens of an answer that are looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A held-out answer in its three places, all of which predict the same tokens."""

    origin: Origin
    shots: int
    answer: tuple[int, ...]
    """The tokens that are predicted."""
    zero: Example
    few: Example
    control: Example


def placed(
    dataset: Dataset, encoder: Encoder, *, stop_ids: Collection[int], limit: int, max_length: int
) -> list[Placed]:
    """The first trained answers of at most `limit` held-out rows; without those that do not fit with an example."""
    # One of its own: an encoder counts what it meets, and these prompts are nobody's.
    encoder = Encoder(encoder.tokenizer, encoder.template)
    asked = list(_asked(dataset, stop_ids, limit))
    pool = _pool(dataset, max_length // (SHOTS + 2))
    found = (_placed(one, _other(one, asked), _shown(one, pool), encoder, max_length) for one in asked)
    return [one for one in found if one is not None]


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    source: int
    given: Demonstration
    key: int
    prompt: list[int]
    answer: list[int]
    counted: NDArray[np.bool_]
    """Which tokens of the answer are trained."""


def _asked(dataset: Dataset, stop_ids: Collection[int], limit: int) -> Iterator[_Asked]:
    """Held-out prompts with their answers; how an answer ends is a matter of form, so its stop token is left out."""
    rows = dataset.asking(limit)
    for row, given in zip(rows, dataset.demonstrations(rows), strict=True):
        example = row.examples[0]
        start, ids = example.prompt_length, example.input_ids.tolist()
        # What an answer thinks may come first, untrained; the answer is over where training ends.
        trained = start + int(np.flatnonzero(example.weights[start:])[0])
        after = np.flatnonzero(example.weights[trained:] == 0)
        end = trained + int(after[0]) if len(after) else len(example)
        end = min(end - (ids[end - 1] in stop_ids), trained + LONGEST)
        if end > trained and isinstance(given, Completion | Conversation):
            counted = example.weights[start:end] > 0
            yield _Asked(row.source, given, prompt_key(given), ids[:start], ids[start:end], counted)


def _other(one: _Asked, asked: Sequence[_Asked]) -> _Asked | None:
    """The row whose prompt has the next hash, of the same source if there is one."""
    others = sorted(
        (other for other in asked if other.key != one.key), key=lambda other: (other.key < one.key, other.key)
    )
    return next((other for other in others if other.source == one.source), others[0] if others else None)


def _pool(dataset: Dataset, longest: int) -> dict[int, list[Demonstration]]:
    """By source, training rows to show: short ones of different prompts, in the order of the prompts' hashes."""
    store, examples = dataset.store, dataset.examples("train")
    rows, first, counts = np.unique(dataset.rows_of(examples), return_index=True, return_counts=True)
    about, short = store.rows[rows], examples.lengths[first] <= longest
    chosen: list[Row] = []
    for number, source in enumerate(sources_of(dataset.options)[: len(store.facts["sources"])]):
        if store.facts["sources"][number]["format"] in ("text", "code") and source.completion_after is None:
            continue
        mine = (about["source"] == number) & (counts == 1)
        mine = mine & short if (mine & short).sum() >= SHOTS else mine
        _, distinct = np.unique(about["prompt"][mine], return_index=True)  # sorted by hash
        for index in rows[mine][distinct[: SHOTS * SETS]].tolist():
            chosen.append(Row(index, store.origin(index), "train", number, ()))
    found: dict[int, list[Demonstration]] = {}
    for row, given in zip(chosen, dataset.demonstrations(chosen), strict=True):
        if isinstance(given, Completion) or (isinstance(given, Conversation) and not given.tools):
            found.setdefault(row.source, []).append(given)
    return found


def _shown(one: _Asked, pool: dict[int, list[Demonstration]]) -> list[Demonstration]:
    """The examples for a row, of its own source where that has any; which set of them is a matter of its hash."""
    mine = pool.get(one.source) or [given for shots in pool.values() for given in shots]
    first = one.key % max(1, len(mine) // SHOTS) * SHOTS
    return mine[first : first + SHOTS]


def _placed(
    one: _Asked, other: _Asked | None, shots: Sequence[Demonstration], encoder: Encoder, max_length: int
) -> Placed | None:
    """The answer after as many of the examples as fit; None where none does."""
    if other is None:
        return None
    for count in range(len(shots), 0, -1):
        try:
            few, control = (_prompt(encoder, shots[:count], each.given) for each in (one, other))
        except TutelageError:
            return None  # The template takes no such conversation.
        if max(len(few), len(control)) + len(one.answer) <= max_length:
            zero, few_shot, another = (_example(before, one) for before in (one.prompt, few, control))
            answer = tuple(np.asarray(one.answer)[one.counted].tolist())
            return Placed(one.given.origin, count, answer, zero, few_shot, another)
    return None


def _prompt(encoder: Encoder, shots: Sequence[Demonstration], given: Demonstration) -> list[int]:
    """The ids of a prompt after examples, which stand behind its message of the system."""
    if isinstance(given, Completion):
        before = [f"{shot.prompt}{shot.completion}" for shot in shots if isinstance(shot, Completion)]
        return encoder.tokenizer.encode_text("\n\n".join([*before, given.prompt]))
    assert isinstance(given, Conversation)
    own = _turns(given)[:-1]
    system = [message for message in own[:1] if message.role == "system"]
    shown = [turn for shot in shots if isinstance(shot, Conversation) for turn in _turns(shot) if turn.role != "system"]
    return encoder.prompt_ids([*system, *shown, *own[len(system) :]], [dict(tool) for tool in given.tools])


def _turns(given: Conversation) -> tuple[Message, ...]:
    """Up to the first answer that is trained."""
    trained = (n for n, turn in enumerate(given.messages) if turn.role == "assistant" and turn.trained > 0)
    return given.messages[: next(trained) + 1]


def _example(before: Sequence[int], one: _Asked) -> Example:
    ids = np.array([*before, *one.answer], dtype=np.int32)
    weights: NDArray[np.float32] = np.zeros(len(ids), dtype=np.float32)
    weights[len(before) :] = one.counted
    return Example(ids, weights, one.given.origin, len(before))
