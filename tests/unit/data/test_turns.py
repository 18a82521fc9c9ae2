"""Turns: ids and older spellings of tool calls, keys that are misspelt, thinking that never ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.formats import parse
from tutelage.errors import DataError, Problem
from tutelage.types import Conversation, Message, Origin, Record

USER = {"role": "user", "content": "hi"}
BOT = {"role": "assistant", "content": "hello"}
ADD = {"name": "add", "arguments": {"a": 1}}
CALL = {"type": "function", "function": ADD}


def row(*turns: dict[str, Any], **fields: Any) -> Conversation:
    parsed = parse(Record(Origin("rows.jsonl", 7), {"messages": list(turns), **fields}), "messages")
    assert isinstance(parsed, Conversation)
    return parsed


def refused(*turns: dict[str, Any], **fields: Any) -> Problem:
    with pytest.raises(DataError) as caught:
        row(*turns, **fields)
    (problem,) = caught.value.problems
    assert problem.where == "rows.jsonl:7"
    return problem


# ----------------------------------------------------------------------------------------------------- tool calls


def test_ids_of_calls_and_of_their_answers_stay() -> None:
    call = {"id": "c1", **CALL, "function": {"name": "add", "arguments": '{"a": 1}'}}
    answered = {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "add"}
    _, bot, tool, _ = row(USER, {"role": "assistant", "content": None, "tool_calls": [call]}, answered, BOT).messages
    assert bot.tool_calls == ({"id": "c1", **CALL},)
    assert tool == Message("tool", "2", name="add", tool_call_id="c1")
    assert "tool_call_id" in refused(USER, {**answered, "tool_call_id": 1}, BOT).what


def test_older_function_calls() -> None:
    older = {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": '{"a": 1}'}}
    parsed = row(USER, older, {"role": "function", "name": "add", "content": "2"}, BOT, functions=[{"name": "add"}])
    assert parsed.messages[1] == Message("assistant", "", tool_calls=(CALL,))
    assert parsed.messages[2] == Message("tool", "2", name="add")
    assert parsed.tools == ({"type": "function", "function": {"name": "add"}},)
    assert "twice" in refused(USER, {**older, "tool_calls": [CALL]}).what
    assert "`messages[1].function_call[0]" in refused(USER, {**older, "function_call": {"name": "add"}}).what


def test_a_column_of_functions_that_are_not_declared_tools_is_passed_over() -> None:
    assert row(USER, BOT, functions=["sin", "cos"]).tools == ()


@pytest.mark.parametrize("wrap", [lambda tools: tools, json.dumps, lambda tools: [json.dumps(t) for t in tools]])
def test_tools_have_the_form_that_servers_send(wrap) -> None:
    whole = {"type": "function", "function": {"name": "mul", "parameters": {}}}
    other = {"type": "code_interpreter"}
    parsed = row(USER, BOT, tools=wrap([{"name": "add"}, whole, other]))
    assert parsed.tools == ({"type": "function", "function": {"name": "add"}}, whole, other)


def test_a_trained_call_of_a_tool_that_is_not_declared_is_refused() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [ADD]}
    assert len(row(USER, call, tools=[{"name": "add"}]).messages) == 2
    problem = refused(USER, call, tools=[{"name": "mul"}])
    assert (problem.code, problem.found) == ("data/bad-row", "add")
    assert "`mul`" in problem.fix
    assert len(row(USER, call).messages) == 2  # declares none
    assert len(row(USER, {**call, "train": False}, USER, BOT, tools=[{"name": "mul"}]).messages) == 4


# ----------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("weigth", "weight"),
        ("weights", "weight"),
        ("Weight", "weight"),
        ("wieght", "weight"),
        ("trian", "train"),
        ("los_weight", "loss_weight"),
        ("tool_call", "tool_calls"),
        ("reasonning_content", "reasoning_content"),
        ("thinkng", "thinking"),
    ],
)
def test_misspelt_keys_are_refused(key: str, meant: str) -> None:
    problem = refused(USER, {**BOT, key: 0})
    assert problem.code == "data/bad-row"
    assert f"`messages[1].{key}` looks like `{meant}`" in problem.what
    assert row(USER, {**BOT, key: None}).messages[1].trained == 1  # a null is nothing


def test_a_misspelt_weight_in_sharegpt_is_refused() -> None:
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "x", "weigth": 0}]
    with pytest.raises(DataError, match="looks like `weight`"):
        parse(Record(Origin("r", 1), {"conversations": turns}), "sharegpt")


@pytest.mark.parametrize("key", ["mask", "loss", "loss_mask", "training", "trainable", "train_detail"])
def test_other_tools_words_for_what_is_trained_are_refused(key: str) -> None:
    assert "what is trained" in refused(USER, {**BOT, key: False}).what


@pytest.mark.parametrize("key", ["id", "timestamp", "model", "context", "lang", "score", "rank", "text", "emojis"])
def test_other_keys_are_passed_over(key: str) -> None:
    assert row(USER, {**BOT, key: "anything"}).messages == row(USER, BOT).messages


def test_a_key_like_one_that_is_given_is_another_key() -> None:
    assert row(USER, {**BOT, "weight": 0.5, "weights": [1]}).messages[1].weight == 0.5


# ------------------------------------------------------------------------------------------------------- thinking


def test_thinking_inside_the_content_stays_where_it_is() -> None:
    for said in ("<think>\nhm\n</think>\n\nYes.", "<think>\n\n</think>\n\nYes.", "hm</think>Yes.", "Write <think> so."):
        assert row(USER, {"role": "assistant", "content": said}).messages[1] == Message("assistant", said)
    assert row(USER, {**BOT, "reasoning": "hm"}).messages[1].thinking == "hm"


def test_thinking_without_an_answer_is_refused() -> None:
    def turn(said: str, **more: Any) -> dict[str, Any]:
        return {"role": "assistant", "content": said, **more}

    assert "never comes to an answer" in refused(USER, turn(" <think>hm")).what
    assert refused(USER, turn("<think>hm</think>\n")).code == "data/empty-answer"
    assert "more than once" in refused(USER, turn("<think>hm</think>Yes.", thinking="hm")).what
    calls = row(USER, turn("<think>hm</think>", tool_calls=[ADD])).messages[1]
    assert calls.tool_calls
    assert row(USER, turn("<think>hm", train=False), USER, BOT).messages[1].trained == 0


# --------------------------------------------------------------------------------------------------- properties

CONTENT = st.text(min_size=1).filter(lambda text: text.strip() and "<think>" not in text)


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "tool", "assistant"]), CONTENT), max_size=6), CONTENT)
def test_roles_and_content_go_through_exactly(turns: list[tuple[str, str]], last: str) -> None:
    """The short way for plain turns and the long way, taken with any other key, give the same messages."""
    expected = [*turns, ("assistant", last)]
    plain = [{"role": role, "content": content} for role, content in expected]
    short, long = row(*plain), row(*[{**turn, "id": 1} for turn in plain])
    assert short == long
    assert [(m.role, m.content) for m in short.messages] == expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "role",
                        "content",
                        "tool_calls",
                        "function",
                        "name",
                        "arguments",
                        "type",
                        "weight",
                        "from",
                        "value",
                    ]
                ),
                x,
            )
        ),
        max_leaves=20,
    )
)
def test_whatever_a_row_holds_it_is_read_or_refused(value: Any) -> None:
    for format, column in (("messages", "messages"), ("sharegpt", "conversations"), ("oasst", "prompt")):
        for held in (value, [value], [USER, value]):
            try:
                parse(Record(Origin("r", 1), {column: held, "tools": value}), format)  # type: ignore[arg-type]
            except DataError as error:
                assert error.problems[0].code in ("data/bad-row", "data/empty-answer", "data/not-chosen")  # noqa: PT017
