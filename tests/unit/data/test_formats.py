"""Formats: what a row of each one becomes, how a file's format is told, and what is refused where."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from tutelage.data.formats import detect, expand, parse, sample
from tutelage.errors import DataError, Problem, RecipeError
from tutelage.recipe import Format
from tutelage.types import Completion, Conversation, Document, Message, Origin, Record

ORIGIN = Origin("rows.jsonl", 7)
USER = {"role": "user", "content": "hi"}
BOT = {"role": "assistant", "content": "hello"}
HUMAN = {"from": "human", "value": "hi"}
GPT = {"from": "gpt", "value": "hello"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def record(line: int = 7, **fields: Any) -> Record:
    return Record(Origin("rows.jsonl", line), fields)


def turns(format: Format, **fields: Any) -> list[tuple[str, str]]:
    row = parse(record(**fields), format)
    assert isinstance(row, Conversation)
    return [(message.role, message.content) for message in row.messages]


def messages(*turns: dict[str, Any], **fields: Any) -> tuple[Message, ...]:
    row = parse(record(messages=list(turns), **fields), "messages")
    assert isinstance(row, Conversation)
    return row.messages


def refused(format: Format, completion_after: str | None = None, **fields: Any) -> Problem:
    with pytest.raises(DataError) as caught:
        parse(record(**fields), format, completion_after=completion_after)
    (problem,) = caught.value.problems
    assert problem.where == "rows.jsonl:7"
    assert problem.found
    return problem


# -------------------------------------------------------------------------------------- instruction and answer


def test_alpaca_joins_instruction_and_input() -> None:
    assert turns("alpaca", instruction="Add.", input="1 2", output="3") == [("user", "Add.\n\n1 2"), ("assistant", "3")]
    for nothing in ({}, {"input": ""}, {"input": None}):
        assert turns("alpaca", instruction="Hi", output="Yo", **nothing)[0] == ("user", "Hi")
    assert turns("alpaca", instruction="", input="Hi", output="Yo")[0] == ("user", "Hi")


def test_content_goes_through_exactly() -> None:
    odd = " \r\n<noinput> <|im_end|>\u2028\x01 "
    expected = [("user", f"{odd}\n\n{odd}"), ("assistant", odd)]
    assert turns("alpaca", instruction=odd, input=odd, output=odd) == expected
    assert turns("alpaca", instruction="x", input="<noinput>", output="y")[0] == ("user", "x\n\n<noinput>")


def test_alpaca_system_and_history() -> None:
    row = {"instruction": "3?", "output": "c", "system": "Be brief.", "history": [["1?", "a"], ["2?", "b"]]}
    assert turns("alpaca", **row) == [
        ("system", "Be brief."),
        ("user", "1?"),
        ("assistant", "a"),
        ("user", "2?"),
        ("assistant", "b"),
        ("user", "3?"),
        ("assistant", "c"),
    ]
    assert len(turns("alpaca", instruction="x", output="y", system="", history=[])) == 2
    assert len(turns("alpaca", instruction="x", output="y", system=None, history=None)) == 2


@pytest.mark.parametrize("history", ["text", [["one"]], [["q", 1]], ["ab"]])
def test_alpaca_history_must_be_pairs(history: object) -> None:
    assert "`history[0]`" in refused("alpaca", instruction="x", output="y", history=history).what


def test_dolly_with_and_without_context() -> None:
    assert turns("dolly", instruction="Who?", response="Me") == [("user", "Who?"), ("assistant", "Me")]
    assert turns("dolly", instruction="Who?", context="", response="Me")[0] == ("user", "Who?")
    assert turns("dolly", instruction="Who?", context="It is me.", response="Me")[0] == ("user", "Who?\n\nIt is me.")


@pytest.mark.parametrize(("format", "answer"), [("alpaca", "output"), ("dolly", "response")])
def test_instruction_rows_that_are_refused(format: Format, answer: str) -> None:
    for empty in ("", "  \n", "\u2028"):
        problem = refused(format, **{"instruction": "x", answer: empty})
        assert problem.code == "data/empty-answer"
        assert f"`{answer}`" in problem.what
        assert refused(format, **{"instruction": empty, answer: "x"}).code == "data/bad-row"
    missing = refused(format, **{"instruction": "x", answer.title(): "y"})
    assert missing.code == "data/bad-row"
    assert missing.fix == f"found `{answer.title()}`: did you mean `{answer}`?"
    number = refused(format, **{"instruction": "x", answer: 4})
    assert (number.what, number.found) == (f"`{answer}` is not text", "a number: 4")
    assert refused(format, **{"instruction": None, answer: "x"}).code == "data/bad-row"


# ---------------------------------------------------------------------------------------------------- messages


def test_messages_keep_order_roles_and_names() -> None:
    row = messages(
        {"role": "developer", "content": "d"},
        {"role": "user", "content": "a", "name": "Ann"},
        {"role": "user", "content": "b"},
        BOT,
        {"role": "tool", "content": "t"},
        BOT,
        {"role": "user", "content": ""},
    )
    assert [m.role for m in row] == ["system", "user", "user", "assistant", "tool", "assistant", "user"]
    assert row[1].name == "Ann"
    assert [m.trained for m in row] == [0, 0, 0, 1, 0, 1, 0]


def test_the_first_turn_may_be_the_assistants() -> None:
    assert [m.role for m in messages(BOT, USER, BOT)] == ["assistant", "user", "assistant"]


def test_nulls_count_as_not_given() -> None:
    nulls = dict.fromkeys(["name", "tool_calls", "weight", "train", "loss_weight", "thinking", "reasoning_content"])
    assert messages({**USER, **nulls}, {**BOT, **nulls}, tools=None, weight=None) == messages(USER, BOT)


@pytest.mark.parametrize(
    ("extra", "weight"),
    [({"train": False}, 0), ({"train": True}, 1), ({"weight": 0}, 0), ({"weight": 0.5}, 0.5), ({"loss_weight": 2}, 2)],
)
def test_a_turn_may_set_its_weight(extra: dict[str, Any], weight: float) -> None:
    user, bot = messages({**USER, **extra}, {**BOT, **extra})
    assert user.weight == bot.weight == weight


@pytest.mark.parametrize(
    "extra", [{"weight": -1}, {"weight": float("nan")}, {"weight": "1"}, {"weight": True}, {"train": 1}]
)
def test_weights_that_are_refused(extra: dict[str, Any]) -> None:
    assert f"`messages[1].{next(iter(extra))}`" in refused("messages", messages=[USER, {**BOT, **extra}]).what


def test_two_weights_on_one_turn_are_refused() -> None:
    assert refused("messages", messages=[USER, {**BOT, "train": True, "weight": 1}]).found == "train, weight"


def test_content_in_parts() -> None:
    parts = [
        {"type": "thinking", "thinking": "hm, "},
        {"type": "reasoning", "value": "so"},
        {"type": "text", "text": "one "},
        {"type": "text", "value": "two", "text": None},
    ]
    _, bot = messages(
        {"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant", "content": parts}
    )
    assert (bot.content, bot.thinking) == ("one two", "hm, so")


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ({"type": "image_url", "image_url": {"url": "x"}}, "content[0].type"),
        ({"text": "no type"}, "content[0].type"),
        ("bare", "content[0]"),
        ({"type": "text", "text": 3}, "content[0].text"),
        ({"type": "text"}, "content[0].text"),
    ],
)
def test_parts_that_are_refused(part: object, what: str) -> None:
    problem = refused("messages", messages=[{"role": "user", "content": [part]}, BOT])
    assert f"`messages[0].{what}`" in problem.what


@pytest.mark.parametrize("name", ["thinking", "reasoning_content"])
def test_thinking_beside_the_content(name: str) -> None:
    assert messages(USER, {**BOT, name: "hm"})[1].thinking == "hm"
    twice = {**BOT, name: "hm", "content": [{"type": "thinking", "text": "x"}, {"type": "text", "text": "y"}]}
    assert "more than once" in refused("messages", messages=[USER, twice]).what
    assert refused("messages", messages=[USER, {**BOT, name: 3}]).found == "a number: 3"


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
        {"name": "add", "arguments": {"a": 1}},
    ],
)
@pytest.mark.parametrize("content", [{"content": None}, {"content": ""}, {}])
def test_tool_calls_have_one_form(call: dict[str, Any], content: dict[str, Any]) -> None:
    _, bot = messages(USER, {"role": "assistant", "tool_calls": [call], **content})
    assert (bot.content, bot.tool_calls) == ("", (CALL,))
    _, bot = messages(USER, {"role": "assistant", "tool_calls": [{"id": "c1", **call}], **content})
    assert bot.tool_calls == ({"id": "c1", **CALL},)


@pytest.mark.parametrize(
    ("calls", "field"),
    [
        ("add(1)", "tool_calls"),
        (["add"], "tool_calls[0]"),
        ([{"function": {"arguments": {}}}], "tool_calls[0].name"),
        ([{"name": "add"}], "tool_calls[0].arguments"),
        ([{"name": "add", "arguments": "{"}], "tool_calls[0].arguments"),
        ([{"name": "add", "arguments": "[1]"}], "tool_calls[0].arguments"),
    ],
)
def test_tool_calls_that_are_refused(calls: object, field: str) -> None:
    assert f"`messages[1].{field}`" in refused("messages", messages=[USER, {**BOT, "tool_calls": calls}]).what


@pytest.mark.parametrize("tools", [[{"name": "add"}], '[{"name": "add"}]'])
def test_tools_column(tools: object) -> None:
    for format, fields in (("messages", {"messages": [USER, BOT]}), ("sharegpt", {"conversations": [HUMAN, GPT]})):
        row = parse(record(tools=tools, **fields), format)  # type: ignore[arg-type]
        assert isinstance(row, Conversation)
        assert row.tools == ({"type": "function", "function": {"name": "add"}},)
        for none in (None, "", "[]", []):
            row = parse(record(tools=none, **fields), format)  # type: ignore[arg-type]
            assert isinstance(row, Conversation)
            assert row.tools == ()
        for bad in ("{", '{"name": "add"}', ["add"]):
            assert refused(format, tools=bad, **fields).what.startswith("`tools")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("turns", "what", "detail"),
    [
        ('[{"role": "user"}]', "`messages` is not a list of turns", "text"),
        ([], "`messages` has no assistant turn", "no turns"),
        ([USER], "`messages` has no assistant turn", "user"),
        (["hi"], "`messages[0]` is not an object", "text"),
        ([USER, {"role": "gpt", "content": "x"}], "`messages[1].role` is not a known role", "gpt"),
        ([USER, {"role": "assistant"}], "`messages[1].content` is missing or null", "`role`"),
        ([USER, {"role": "assistant", "content": 5}], "`messages[1].content` is not text", "a number: 5"),
        ([USER, {"content": "x"}], "`messages[1].role` is missing", "`content`"),
        ([USER, {**BOT, "name": 3}], "`messages[1].name` is not text", "a number"),
        ([{"role": "user", "content": " "}, BOT], "`messages` is empty, so there is nothing", "white space"),
    ],
)
def test_messages_that_are_refused(turns: object, what: str, detail: str) -> None:
    problem = refused("messages", messages=turns)
    assert problem.code == "data/bad-row"
    assert problem.what.startswith(what)
    assert detail in problem.found


def test_role_hints() -> None:
    assert refused("messages", messages=[{"role": "human", "content": "x"}, BOT]).fix == "did you mean `user`?"
    assert (
        refused("messages", messages=[USER, {"role": "Assistant", "content": "x"}]).fix == "did you mean `assistant`?"
    )
    assert "tool" in refused("messages", messages=[USER, {"role": "narrator", "content": "x"}]).fix


def test_empty_answers_only_matter_where_they_are_trained() -> None:
    empty = {"role": "assistant", "content": " \n"}
    problem = refused("messages", messages=[USER, BOT, USER, empty])
    assert problem.code == "data/empty-answer"
    assert "`messages[3].content`" in problem.what
    assert len(messages(USER, {**empty, "train": False}, USER, BOT)) == 4


# ---------------------------------------------------------------------------------------------------- ShareGPT


@pytest.mark.parametrize("column", ["conversations", "conversation"])
def test_sharegpt_roles(column: str) -> None:
    names = ["system", "human", "user", "gpt", "assistant", "model", "chatgpt", "bard", "bing"]
    names += ["observation", "tool", "function_response"]
    row = turns("sharegpt", **{column: [{"from": name, "value": name} for name in names]})
    assert [role for role, _ in row] == ["system", *["user"] * 2, *["assistant"] * 6, *["tool"] * 3]
    assert [content for _, content in row] == names


def test_sharegpt_system_column_and_weights() -> None:
    row = parse(record(conversations=[HUMAN, {**GPT, "weight": 0}, HUMAN, GPT], system="S"), "sharegpt")
    assert isinstance(row, Conversation)
    assert row.messages[0] == Message("system", "S")
    assert [m.trained for m in row.messages] == [0, 0, 0, 0, 1]


def test_sharegpt_function_calls() -> None:
    value = {"name": "add", "arguments": {"a": 1}}
    for written in (json.dumps(value), value, json.dumps([value])):
        row = parse(record(conversations=[HUMAN, {"from": "function_call", "value": written}]), "sharegpt")
        assert isinstance(row, Conversation)
        assert row.messages[1] == Message("assistant", "", tool_calls=(CALL,))
    row = parse(record(conversations=[HUMAN, {"from": "function_call", "value": [value, value]}]), "sharegpt")
    assert isinstance(row, Conversation)
    assert row.messages[1].tool_calls == (CALL, CALL)
    for bad in ("add(1)", "[]", '{"name": "add"}', "3", None):
        assert "value" in refused("sharegpt", conversations=[HUMAN, {"from": "function_call", "value": bad}]).what


def test_sharegpt_rows_that_are_refused() -> None:
    assert refused("sharegpt", conversations=[HUMAN, {"from": "GPT", "value": "x"}]).fix == "did you mean `assistant`?"
    assert "`conversations[1].value`" in refused("sharegpt", conversations=[HUMAN, {"from": "gpt"}]).what
    empty = refused("sharegpt", conversations=[HUMAN, {"from": "gpt", "value": ""}])
    assert (empty.code, "conversations[1].value" in empty.what) == ("data/empty-answer", True)
    assert "no assistant turn" in refused("sharegpt", conversation=[HUMAN]).what
    assert "`conversations`" in refused("sharegpt", other=[]).what


# ------------------------------------------------------------------------------------- completions, documents


@pytest.mark.parametrize("answer", ["completion", "response", "demonstration"])
def test_prompt_and_completion_as_text(answer: str) -> None:
    row = parse(record(prompt="Q: ", **{answer: " A\n"}), "prompt-completion")
    assert row == Completion(ORIGIN, "Q: ", " A\n")
    assert refused("prompt-completion", prompt="Q", **{answer: " "}).code == "data/empty-answer"
    assert refused("prompt-completion", prompt=" ", **{answer: "A"}).code == "data/bad-row"
    assert refused("prompt-completion", prompt=["Q"], **{answer: "A"}).code == "data/bad-row"
    assert refused("prompt-completion", prompt="Q").what.startswith("`completion` is missing")


def test_prompt_and_completion_as_turns() -> None:
    row = parse(record(prompt=[USER, BOT, USER], completion=[BOT], tools=[{"name": "t"}]), "prompt-completion")
    assert isinstance(row, Conversation)
    assert [(m.role, m.trained) for m in row.messages] == [("user", 0), ("assistant", 0), ("user", 0), ("assistant", 1)]
    assert row.tools == ({"type": "function", "function": {"name": "t"}},)
    assert "no assistant" in refused("prompt-completion", prompt=[USER, BOT], completion=[USER]).what
    assert "`prompt` is empty" in refused("prompt-completion", prompt=[], completion=[BOT]).what
    empty = {"role": "assistant", "content": ""}
    assert refused("prompt-completion", prompt=[USER], completion=[empty]).code == "data/empty-answer"


def test_text_is_a_document() -> None:
    assert parse(record(text=" a\nb "), "text") == Document(ORIGIN, " a\nb ")
    assert refused("text", text=" \n").code == "data/empty-answer"
    assert refused("text", text=None).code == "data/bad-row"


def test_text_split_at_the_last_marker() -> None:
    row = parse(record(text="Q: 1\nA: x\nQ: 2\nA: y"), "text", completion_after="\nA:")
    assert row == Completion(ORIGIN, "Q: 1\nA: x\nQ: 2\nA:", " y")
    assert "`completion_after`" in refused("text", completion_after="\nA:", text="no marker").what
    assert refused("text", completion_after="A:", text="Q A: ").code == "data/empty-answer"
    assert refused("text", completion_after="\n", text=" \nA").code == "data/bad-row"


def test_a_marker_for_another_format_is_a_conflict() -> None:
    with pytest.raises(RecipeError) as caught:
        parse(record(instruction="x", output="y"), "alpaca", completion_after="\nA:")
    assert caught.value.code == "recipe/conflict"


# ----------------------------------------------------------------------------------------------------- weights

ONE_OF_EACH: dict[Format, dict[str, Any]] = {
    "alpaca": {"instruction": "x", "output": "y"},
    "dolly": {"instruction": "x", "response": "y"},
    "sharegpt": {"conversations": [HUMAN, GPT]},
    "messages": {"messages": [USER, BOT]},
    "prompt-completion": {"prompt": "x", "completion": "y"},
    "oasst": {"prompt": {"role": "prompter", "text": "x", "replies": [{"role": "assistant", "text": "y"}]}},
    "natural-instructions": {"Definition": "d", "input": "x", "output": ["y"]},
    "self-instruct": {"instruction": "i", "instances": [{"input": "x", "output": "y"}]},
    "text": {"text": "x"},
}


@pytest.mark.parametrize("format", ONE_OF_EACH)
def test_weights_multiply(format: Format) -> None:
    fields = ONE_OF_EACH[format]

    def weight(given: float = 1.0, **more: object) -> float:
        (row,) = expand(record(**fields, **more), format)
        return parse(row, format, weight=given).weight

    assert weight() == 1.0
    assert weight(0.5) == 0.5
    for half in (0.5, "0.5"):
        assert weight(3.0, weight=half) == 1.5
    for none in (None, ""):
        assert weight(2.0, weight=none) == 2.0
    assert weight(weight=0) == 0.0
    for bad in (-1, "heavy", "nan", True, [1], float("inf"), 1e7):
        assert "`weight`" in refused(format, **fields, weight=bad).what


@pytest.mark.parametrize("format", ONE_OF_EACH)
def test_a_row_may_name_its_task(format: Format) -> None:
    def task(given: object) -> str:
        (row,) = expand(record(**ONE_OF_EACH[format], task=given), format)
        return parse(row, format).task

    assert [task(given) for given in ("a\n sum", ["a", "b"], 3)] == ["a sum", "a, b", "3"]
    assert [task(given) for given in (None, "", {"a": 1}, [1], True)] == [""] * 5
    assert len(task("long " * 100)) == 120


def test_weights_multiply_for_split_text_and_turns() -> None:
    assert parse(record(text="a:b", weight=2), "text", completion_after=":", weight=3.0).weight == 6.0
    assert parse(record(prompt=[USER], completion=[BOT], weight=2), "prompt-completion", weight=3.0).weight == 6.0


# --------------------------------------------------------------------------------------------------- detection


@pytest.mark.parametrize("format", ONE_OF_EACH)
def test_each_format_is_told_by_its_columns(format: Format) -> None:
    rows = (
        [record(line, **ONE_OF_EACH[format], text="anything", id=line) for line in range(3)]
        if format != "text"
        else [record(text="x", id=1)]
    )
    assert detect(rows, source="rows.jsonl") == format


@pytest.mark.parametrize(
    ("fields", "format"),
    [
        ({"instruction": "a", "input": "b", "output": "c", "text": "a b c"}, "alpaca"),
        ({"prompt": "p", "prompt_id": "1", "messages": [USER, BOT]}, "messages"),
        ({"prompt": "p", "response": "r", "text": "t"}, "prompt-completion"),
        ({"conversation": [HUMAN, GPT], "system": "s"}, "sharegpt"),
        ({"instruction": "i", "text": "t"}, "text"),
        ({"messages": "a text", "text": "t"}, "text"),
        ({"messages": [{"text": "no role"}], "prompt": "p", "completion": "c"}, "prompt-completion"),
    ],
)
def test_the_more_telling_format_wins(fields: dict[str, Any], format: Format) -> None:
    assert detect([record(**fields)], source="rows.jsonl") == format


def test_a_broken_row_does_not_hide_the_format() -> None:
    rows = [record(1, instruction="x", output="y"), record(2, instruction="x")]
    assert detect(rows, source="rows.jsonl") == "alpaca"
    assert refused("alpaca", instruction="x").what.startswith("`output` is missing")


def test_mixed_formats_name_two_lines() -> None:
    rows = [record(1, text="x"), record(2, text="y"), record(9, messages=[USER, BOT])]
    with pytest.raises(DataError) as caught:
        detect(rows, source="rows.jsonl")
    (problem,) = caught.value.problems
    assert problem.code == "data/mixed-formats"
    assert problem.found == "rows.jsonl:1 is `text`; rows.jsonl:9 is `messages`"


def unknown(*rows: dict[str, Any]) -> Problem:
    with pytest.raises(DataError) as caught:
        detect([record(**row) for row in rows], source="rows.jsonl")
    (problem,) = caught.value.problems
    assert problem.code == "data/unknown-format"
    return problem


def test_unknown_columns_are_listed_with_the_formats() -> None:
    problem = unknown({"question": "x", "turns": None}, {"question": "y", "turns": [{"from": "a", "text": "b"}]})
    assert problem.found == "`question` (text), `turns` (a list of {from, text})"
    for format in ONE_OF_EACH:
        assert f"{format}: " in problem.fix
    assert "instruction, output" in problem.fix


def test_near_columns_get_a_hint() -> None:
    problem = unknown({"Instruction": "x", "output ": "y"})
    assert "found `Instruction`: did you mean `instruction`?" in problem.why
    assert "found `output `: did you mean `output`?" in problem.why


@pytest.mark.parametrize(
    "columns",
    [
        {"chosen": "x", "rejected": "y"},
        {"instruction": "i", "output": "o", "chosen": "x", "rejected": None},
        {"messages": [USER, BOT], "rejected_response": "y"},
        {"messages": [USER, BOT], "label": False},
        {"instruction": "i", "output": "o", "kto_tag": True},
        {"context": "[]", "generation": "{}", "reward": 1.0},
    ],
)
def test_rows_of_preferences_are_not_taken_for_demonstrations(columns: dict[str, object]) -> None:
    problem = unknown(columns)
    assert "preferences" in problem.what
    assert "format: preference trains on the chosen answers only" in problem.fix
    assert "`tutelage data convert --to pairs` makes pairs" in problem.fix


def test_a_flag_named_rejected_is_no_preference() -> None:
    assert detect([record(instruction="i", output="o", rejected=False)], source="rows.jsonl") == "alpaca"


@pytest.mark.parametrize("column", ["content", "code"])
def test_code_is_never_guessed(column: str) -> None:
    problem = unknown({column: "print()", "lang": "Python", "path": "a.py"})
    assert "code: content (only if named" in problem.fix


def test_turns_as_json_text_are_named() -> None:
    text = json.dumps([USER, BOT])
    assert "`messages` holds JSON as text" in unknown({"messages": text}).why
    assert "holds JSON as text" in refused("messages", messages=text).fix


def test_misspelt_columns_get_a_hint() -> None:
    assert "found `instrution`: did you mean `instruction`?" in unknown({"instrution": "x", "answer": "y"}).why
    assert refused("alpaca", instruction="x", outputs="y").fix == "found `outputs`: did you mean `output`?"


def test_sample_is_evenly_spread() -> None:
    rows = [record(line, text="x") for line in range(1, 1001)]
    lines = [row.origin.line for row in sample(rows)]
    assert len(lines) == 100
    assert (lines[0], lines[-1]) == (1, 1000)
    gaps = {later - earlier for earlier, later in pairwise(lines)}
    assert gaps == {10, 11}
    assert sample(rows[:100]) == rows[:100]
    assert sample(rows[:3]) == rows[:3]
    assert sample(rows, 1) == rows[:1]
    assert sample([]) == []
