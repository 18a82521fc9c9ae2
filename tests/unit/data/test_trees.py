"""Trees: the best path, the messages that are left out, and a pair for every ranking."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.formats import parse
from tutelage.data.formats.trees import ranked_pairs
from tutelage.errors import DataError
from tutelage.types import Conversation, Origin, Record


def ask(text: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "prompter", "text": text, "replies": list(replies), **more}


def say(text: str, rank: float | None, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "text": text, "rank": rank, "replies": list(replies), **more}


def record(root: Any) -> Record:
    return Record(Origin("trees.jsonl", 3), {"prompt": root})


def path(root: Any) -> list[str]:
    row = parse(record(root), "oasst")
    assert isinstance(row, Conversation)
    return [message.content for message in row.messages]


def pairs(root: Any) -> list[tuple[list[str], str, str, float]]:
    found = ranked_pairs(record(root), 1.0)
    return [([m.content for m in p.prompt], p.chosen[0].content, p.rejected[0].content, p.weight) for p in found]


def refused(root: Any) -> tuple[str, str]:
    with pytest.raises(DataError) as caught:
        parse(record(root), "oasst")
    return caught.value.code, caught.value.problems[0].what


def test_the_best_path() -> None:
    best = say("b", 0, ask("q1"), ask("q2", say("c", None), say("d", 1)))
    assert path(ask("a", say("x", 2), best, say("y", None))) == ["a", "b", "q2", "d"]
    assert path(ask("a", say("x", None), say("y", None))) == ["a", "x"]
    assert path(ask("a", say("b", 0, ask("q1")))) == ["a", "b"]
    assert path(ask("a", say("x", float("nan")), say("b", 3))) == ["a", "b"]


def test_deleted_messages_and_those_not_accepted_are_left_out() -> None:
    for out in ({"deleted": True}, {"review_result": False}, {"review_result": None}):
        assert path(ask("a", say("x", 0, **out), say("b", 1))) == ["a", "b"]
        assert path(ask("a", say("b", 0, ask("q", say("c", 0), **out), ask("p", say("d", 0))))) == ["a", "b", "p", "d"]
        assert path(ask("a", say("b", 0, ask("q", say("c", 0, **out))))) == ["a", "b"]
        assert pairs(ask("a", say("x", 0, **out), say("b", 1))) == []
        assert refused(ask("a", say("b", 0), **out))[0] == "data/not-chosen"
        assert refused(ask("a", say("b", 0, **out)))[0] == "data/not-chosen"
    assert refused(ask("a"))[0] == "data/not-chosen"


@pytest.mark.parametrize(
    ("root", "code", "what"),
    [
        ("text", "data/bad-row", "`prompt` is not an object"),
        (say("a", 0), "data/bad-row", "`prompt.role`"),
        (ask("a", {"role": "narrator", "text": "b"}), "data/bad-row", "`prompt.replies[0].role`"),
        (ask("a", {"role": "assistant"}), "data/bad-row", "`prompt.replies[0].text`"),
        (ask("a", say("b", "first")), "data/bad-row", "`prompt.replies[0].rank`"),  # type: ignore[arg-type]
        ({"role": "prompter", "text": "a", "replies": "b"}, "data/bad-row", "`prompt.replies`"),
        (ask("a", say(" ", 0)), "data/empty-answer", "`prompt.replies[0].text`"),
        (ask(" ", say("b", 0)), "data/bad-row", "`prompt` is empty"),
    ],
)
def test_trees_that_are_refused(root: Any, code: str, what: str) -> None:
    found = refused(root)
    assert (found[0], found[1].startswith(what)) == (code, True)


def test_every_branching_gives_pairs_that_share_its_weight() -> None:
    root = ask("a", say("x", 2), say("b", 0, ask("q", say("d", 1), say("c", 0))), say("y", 1), say("z", None))
    third = 1 / 3
    assert pairs(root) == [
        (["a"], "b", "y", third),
        (["a"], "b", "x", third),
        (["a"], "y", "x", third),
        (["a", "b", "q"], "c", "d", 1.0),
    ]


def test_equal_answers_and_equal_ranks_make_no_pair() -> None:
    assert pairs(ask("a", say("b", 0), say("b", 1))) == []
    assert pairs(ask("a", say("b", 0), say("c", 0))) == []
    assert pairs(ask("a", say("b", 0))) == []


@given(
    st.lists(st.tuples(st.text(min_size=1).filter(str.strip), st.none() | st.integers(0, 5)), min_size=1, max_size=6)
)
def test_pairs_point_up_the_ranking(replies: list[tuple[str, int | None]]) -> None:
    found = ranked_pairs(record(ask("a", *(say(text, rank) for text, rank in replies))))
    better = {(a, b) for a, i in replies for b, j in replies if i is not None and j is not None and i < j and a != b}
    assert {(pair.chosen[0].content, pair.rejected[0].content) for pair in found} == better
    assert not found or sum(pair.weight for pair in found) == pytest.approx(1)


def test_a_deep_tree_is_no_trouble() -> None:
    node = say("end", 0)
    for index in range(5000):
        node = say(f"a{index}", 0, ask(f"q{index}", node))
    assert len(path(ask("first", node))) == 10_002
