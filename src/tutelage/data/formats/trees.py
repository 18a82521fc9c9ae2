"""Trees of messages, as OpenAssistant publishes them: one conversation a tree, or a pair for every ranking.

The conversation is the best path. At a question: the accepted reply with the lowest rank (0 is the best), one without
a rank after those with one, the first in the file among equals. At an answer: the first accepted question in the file
that was answered in its turn. A message is accepted unless it is deleted or its review says no (or is null: never
reviewed); a file without the review's column is taken as reviewed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, NamedTuple

from tutelage.data.formats.conversations import conversation
from tutelage.data.formats.fields import bad_row, empty_answer, wrong_type
from tutelage.errors import DataError, Problem
from tutelage.types import Conversation, Message, Preference, Record

_ROLES = {"prompter": "user", "user": "user", "assistant": "assistant"}


class _Node(NamedTuple):
    """A message of the tree, and where it stands."""

    place: str
    value: Mapping[str, Any]
    message: Message
    rank: float | None


def read_tree(record: Record, weight: float) -> Conversation:
    """Read the best path of the tree in `prompt`.

    Raises:
        DataError: data/not-chosen where no accepted answer is left; data/bad-row, data/empty-answer.
    """
    path = [_root(record)]
    while (following := _best(record, path[-1])) is not None:
        path.append(following)
    if path[-1].message.role == "user":
        path.pop()
    if not path:
        raise _not_chosen(record, "has no accepted answer")
    for node in path:
        _check_answer(record, node)
    return conversation(record, "prompt", (), tuple(node.message for node in path), weight)


def ranked_pairs(record: Record, weight: float = 1.0) -> list[Preference]:
    """Return each two answers of which one is ranked above the other, at every branching of the tree.

    All pairs of one branching together have the weight of one, as InstructGPT weighs them (Ouyang et al. 2022, 3.5):
    else the branching with nine answers would count thirty-six times. Answers that are equal, or equal in rank, make
    no pair. Raises `DataError`, as `read_tree` does.
    """
    pairs: list[Preference] = []
    waiting: list[tuple[_Node, tuple[Message, ...]]] = [(_root(record), ())]
    while waiting:
        node, before = waiting.pop()
        path = (*before, node.message)
        replies = list(_accepted(record, node))
        waiting += [(reply, path) for reply in reversed(replies)]
        ranked = [reply for reply in replies if reply.message.role == "assistant" and reply.rank is not None]
        for reply in ranked:
            _check_answer(record, reply)
        ordered = combinations(sorted(ranked, key=lambda reply: reply.rank or 0), 2)
        unequal = [(a, b) for a, b in ordered if a.rank != b.rank and a.message.content != b.message.content]
        for better, worse in unequal:
            share = weight / len(unequal)
            pairs.append(Preference(record.origin, path, (better.message,), (worse.message,), share))
    return pairs


def _root(record: Record) -> _Node:
    root = _node(record, record.fields.get("prompt"), "prompt")
    if root.message.role != "user":
        raise bad_row(record, "prompt.role", "is not the prompter's", repr(root.value.get("role")))
    if not _is_accepted(root.value):
        raise _not_chosen(record, "is deleted or was not accepted by its reviewers")
    return root


def _node(record: Record, value: object, place: str) -> _Node:
    if not isinstance(value, Mapping):
        raise wrong_type(record, place, "an object {text, role, replies}", value)
    role, content, rank = value.get("role"), value.get("text"), value.get("rank")
    if not isinstance(role, str) or role not in _ROLES:
        raise bad_row(record, f"{place}.role", "is not a known role", repr(role), "prompter or assistant")
    if not isinstance(content, str):
        raise wrong_type(record, f"{place}.text", "text", content, value)
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int | float)):
        raise wrong_type(record, f"{place}.rank", "a number", rank)
    ranked = rank is not None and not math.isnan(rank)  # a table of numbers holds what is missing as NaN
    return _Node(place, value, Message(_ROLES[role], content), rank if ranked else None)


def _accepted(record: Record, node: _Node) -> Iterator[_Node]:
    replies = node.value.get("replies") or []
    if not isinstance(replies, list):
        raise wrong_type(record, f"{node.place}.replies", "a list of messages", replies)
    for index, value in enumerate(replies):
        reply = _node(record, value, f"{node.place}.replies[{index}]")
        if _is_accepted(value):
            yield reply


def _is_accepted(value: Mapping[str, Any]) -> bool:
    return not value.get("deleted") and value.get("review_result", True) is True


def _best(record: Record, node: _Node) -> _Node | None:
    replies = list(_accepted(record, node))
    if node.message.role == "user":
        answers = [reply for reply in replies if reply.message.role == "assistant"]
        return min(answers, key=lambda reply: (reply.rank is None, reply.rank), default=None)
    questions = (reply for reply in replies if reply.message.role == "user")
    return next((question for question in questions if _best(record, question) is not None), None)


def _check_answer(record: Record, node: _Node) -> None:
    if node.message.role == "assistant" and not node.message.content.strip():
        raise empty_answer(record, f"{node.place}.text", node.message.content)


def _not_chosen(record: Record, what: str) -> DataError:
    return DataError(Problem("data/not-chosen", f"the tree in `prompt` {what}", str(record.origin)))
