"""Pairs in every spelling, the pairs that are refused, and answers that were judged one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tutelage.data.formats import LEFT_OUT, parse, parse_preference
from tutelage.errors import DataError, Problem
from tutelage.types import Completion, Conversation, Message, Origin, Preference, Record

ORIGIN = Origin("rows.jsonl", 7)
HUMAN = {"from": "human", "value": "hi"}
USER = {"role": "user", "content": "hi"}


def bot(said: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": said, **more}


def pair(**fields: Any) -> Preference:
    return parse_preference(Record(ORIGIN, fields))


def demonstration(**fields: Any) -> list[tuple[str, str, float]]:
    row = parse(Record(ORIGIN, fields), "preference")
    assert isinstance(row, Conversation)
    return [(message.role, message.content, message.trained) for message in row.messages]


def refused(**fields: Any) -> Problem:
    """Both readings of a pair refuse it, for the same reason."""
    with pytest.raises(DataError) as caught:
        pair(**fields)
    with pytest.raises(DataError) as again:
        parse(Record(ORIGIN, fields), "preference")
    assert str(caught.value) == str(again.value)
    assert caught.value.problems[0].where == "rows.jsonl:7"
    return caught.value.problems[0]


HH = "\n\nHuman: hi\n\nAssistant: "
SPELLINGS: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "hi", "input": "", "output": "yes", "chosen": "yes", "rejected": "no"},
    "text": {"prompt": "hi", "chosen": "yes", "rejected": "no"},
    "sharegpt": {
        "conversations": [HUMAN],
        "chosen": {"from": "gpt", "value": "yes"},
        "rejected": {"from": "gpt", "value": "no"},
    },
    "sharegpt and text": {"conversations": [HUMAN], "chosen": "yes", "rejected": "no"},
    "messages and text": {"messages": [USER], "chosen": "yes", "rejected": "no"},
    "prompt and lists": {"prompt": [USER], "chosen": [bot("yes")], "rejected": [bot("no")]},
    "prompt in the lists": {"chosen": [USER, bot("yes")], "rejected": [USER, bot("no")]},
    "prompt twice": {"prompt": "hi", "chosen": [USER, bot("yes")], "rejected": [USER, bot("no")]},
    "prompt and messages": {
        "prompt": "hi",
        "messages": [USER, bot("yes")],
        "chosen": [USER, bot("yes")],
        "rejected": [USER, bot("no")],
    },
    "text and a turn": {"prompt": "hi", "chosen": bot("yes"), "rejected": bot("no")},
    "hh-rlhf": {"chosen": f"{HH}yes", "rejected": f"{HH}no"},
    "hh-rlhf prompt": {"prompt": "\n\nHuman: hi\n\nAssistant:", "chosen": "yes", "rejected": "no"},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_one_pair(spelling: str) -> None:
    fields = SPELLINGS[spelling]
    found = pair(**fields)
    assert (found.prompt, found.chosen, found.rejected, found.weight) == (
        (Message("user", "hi"),),
        (Message("assistant", "yes"),),
        (Message("assistant", "no"),),
        1.0,
    )
    assert demonstration(**fields) == [("user", "hi", 0), ("assistant", "yes", 1)]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_equal_and_empty_answers_are_refused(spelling: str) -> None:
    fields = SPELLINGS[spelling]
    equal = refused(**{**fields, "rejected": fields["chosen"]})
    assert (equal.code, equal.what) == ("data/bad-row", "`rejected` is equal to `chosen`")
    for field in ("chosen", "rejected"):
        text = json.dumps(fields[field])
        empty = json.loads(text.replace("yes" if field == "chosen" else "no", " "))
        assert refused(**{**fields, field: empty}).code == "data/empty-answer"


def test_only_the_last_answer_of_a_pair_is_trained() -> None:
    before = [USER, bot("a"), USER]
    expected = [("user", "hi", 0), ("assistant", "a", 0), ("user", "hi", 0), ("assistant", "yes", 1)]
    assert demonstration(chosen=[*before, bot("yes")], rejected=[*before, bot("no")]) == expected
    assert demonstration(prompt=before, chosen=[bot("yes")], rejected=[bot("no")]) == expected
    marked = [USER, bot("a", train=True), USER]
    assert demonstration(prompt=marked, chosen=[bot("yes")], rejected=[bot("no")])[1][2] == 1
    text = "\n\nHuman: hi\n\nAssistant: a\n\nHuman: hi\n\nAssistant: "
    assert demonstration(chosen=text + "yes", rejected=text + "no") == expected


def test_answers_of_several_turns() -> None:
    chosen = [bot("", tool_calls=[{"name": "f", "arguments": {}}]), {"role": "tool", "content": "1"}, bot("yes")]
    found = pair(chosen=[USER, *chosen], rejected=[USER, bot("no")], tools=[{"name": "f"}])
    assert [message.role for message in found.chosen] == ["assistant", "tool", "assistant"]
    assert found.tools == ({"type": "function", "function": {"name": "f"}},)
    assert "not declared" in refused(chosen=[USER, *chosen], rejected=[USER, bot("no")], tools=[{"name": "g"}]).what


def test_systems_histories_and_weights() -> None:
    found = pair(instruction="b", input="c", system="S", history=[["q", "a"]], chosen="yes", rejected="no", weight=2)
    assert [message.content for message in found.prompt] == ["S", "q", "a", "b\n\nc"]
    assert found.weight == 2
    assert parse_preference(Record(ORIGIN, {**SPELLINGS["text"], "weight": 0.5}), 3.0).weight == 1.5
    assert pair(conversations=[HUMAN], system="S", chosen="yes", rejected="no").prompt[0] == Message("system", "S")


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"chosen": "a", "rejected": "b"}, "`prompt` is missing"),
        ({"prompt": "hi", "chosen": "a"}, "`rejected` is missing"),
        ({"prompt": "hi", "rejected": "a"}, "`chosen` is missing"),
        ({"prompt": "hi", "chosen": 3, "rejected": "b"}, "`chosen` is not text"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "`prompt` is empty"),
        ({"prompt": "hi", "chosen": [bot("a")], "rejected": [USER, bot("b")]}, "`rejected` does not begin with an"),
        ({"chosen": [USER, bot("a")], "rejected": [{**USER, "content": "ho"}, bot("b")]}, "`chosen` does not begin"),
        ({"chosen": [USER], "rejected": [USER, bot("b")]}, "`chosen` does not begin with an assistant's turn"),
        ({"prompt": "ho", "chosen": [USER, bot("a")], "rejected": [USER, bot("b")]}, "`prompt` is not the prompt"),
        ({"chosen": f"{HH}a", "rejected": "b"}, "`rejected` does not begin with `Human:`"),
    ],
)
def test_pairs_that_are_refused(fields: dict[str, Any], what: str) -> None:
    problem = refused(**fields)
    assert problem.code == "data/bad-row"
    assert problem.what.startswith(what)


# ---------------------------------------------------------------------------------------------- judged one by one


def dropped(**fields: Any) -> str:
    with pytest.raises(DataError) as caught:
        parse(Record(ORIGIN, fields), "preference")
    return caught.value.code


@pytest.mark.parametrize("column", ["label", "kto_tag", "reward"])
@pytest.mark.parametrize(("good", "bad"), [(True, False), (1, 0), (1.0, 0.0), ("True", "false"), ("1", "0")])
def test_answers_judged_good_are_trained_and_bad_ones_leave(column: str, good: object, bad: object) -> None:
    turns = [USER, bot("a"), USER, bot("b")]
    rows = demonstration(messages=turns, **{column: good})
    assert [weight for _, _, weight in rows] == [0, 0, 0, 1]
    assert dropped(messages=turns, **{column: bad}) == "data/not-chosen"
    assert "data/not-chosen" in LEFT_OUT


@pytest.mark.parametrize("judged", [None, 0.5, "good", -1, [True], 2])
def test_judgements_that_say_neither_are_refused(judged: object) -> None:
    assert dropped(messages=[USER, bot("a")], label=judged) == "data/bad-row"


def test_a_judgement_may_stand_beside_any_format() -> None:
    good = {"label": True}
    assert demonstration(instruction="i", output="o", history=[["q", "a"]], **good)[1] == ("assistant", "a", 0)
    assert demonstration(conversations=[HUMAN, {"from": "gpt", "value": "a"}], **good)[1] == ("assistant", "a", 1)
    row = parse(Record(ORIGIN, {"prompt": "p", "completion": "c", **good}), "preference")
    assert row == Completion(ORIGIN, "p", "c")
    assert dropped(other="p", **good) == "data/unknown-format"
    assert dropped(prompt="p", completion="c") == "data/bad-row"


def test_dialogues_with_a_reward() -> None:
    context = [
        {"role": "agent", "text": "Welcome."},
        {"role": "user", "text": "tea"},
        {"role": "agent", "api": {"find": {"query": "tea"}}},
        {"role": "api", "response": {"find": {"items": ["é"]}}},
    ]
    generation = {"role": "agent", "api": {"add": {"item": 1}}}
    for write in (json.dumps, lambda value: value):
        row = parse(
            Record(ORIGIN, {"context": write(context), "generation": write(generation), "reward": 1.0}), "preference"
        )
        assert isinstance(row, Conversation)
        assert [(m.role, m.trained) for m in row.messages] == [
            ("assistant", 0),
            ("user", 0),
            ("assistant", 0),
            ("tool", 0),
            ("assistant", 1),
        ]
        assert row.messages[3] == Message("tool", '{"items": ["é"]}', name="find")
        assert row.messages[4].tool_calls == (
            {"type": "function", "function": {"name": "add", "arguments": {"item": 1}}},
        )
    assert dropped(context=context, generation=generation, reward=0.0) == "data/not-chosen"


@pytest.mark.parametrize(
    ("context", "generation", "code"),
    [
        ("{", "{}", "data/bad-row"),
        ("{}", "{}", "data/bad-row"),
        ("[]", "[]", "data/bad-row"),
        ("[]", '{"role": "robot", "text": "x"}', "data/bad-row"),
        ("[]", '{"role": "agent"}', "data/bad-row"),
        ("[]", '{"role": "agent", "api": []}', "data/bad-row"),
        ("[]", '{"role": "agent", "api": {"f": 1}}', "data/bad-row"),
        ("[]", '{"role": "user", "text": "x"}', "data/bad-row"),
        ("[]", '{"role": "api", "response": "x"}', "data/bad-row"),
        ("[]", '{"role": "agent", "text": " "}', "data/empty-answer"),
    ],
)
def test_dialogues_that_are_refused(context: str, generation: str, code: str) -> None:
    assert dropped(context=context, generation=generation, reward=1) == code
