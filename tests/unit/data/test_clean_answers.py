"""Answers, turns and placeholders: what is found, what is no fault, and how turns are repaired."""

from __future__ import annotations

import pytest
from test_clean import KEEP, chat, cleaned, contents, found, told

from tutelage.data.clean.answers import copied, other_script, truncated
from tutelage.data.clean.loops import loop
from tutelage.data.clean.phrases import refusal, variables
from tutelage.types import Completion, Conversation, Instruction, Message, Origin

# ------------------------------------------------------------------------------------------------ placeholders


@pytest.mark.parametrize("input", ["<noinput>", "< No Input >", "`<noinput>`", "\\<noinput\\>", "(noinput)", "Noinput"])
def test_an_input_that_says_there_is_none_is_removed(input: str) -> None:
    done = cleaned(told("Tell a joke.", input))
    assert done.row == told("Tell a joke.", "")
    assert [(f.rule, f.action, f.field) for f in done.findings] == [("placeholders", "repaired", "messages[0].content")]
    assert cleaned(told("Tell a joke.", input), placeholders="drop").row is None


def test_a_last_line_that_says_there_is_no_input_is_removed() -> None:
    assert contents(cleaned(chat("u:Tell a joke.\n\n<noinput>", "a:Ha.")))[0] == "Tell a joke."
    assert contents(cleaned(chat("u:Tell a joke.\n### Input:\n<noinput>", "a:Ha.")))[0] == "Tell a joke."
    done = cleaned(Completion(Origin("x", 1), "Tell a joke.\n\n<noinput>\n", "Ha."))
    assert isinstance(done.row, Completion)
    assert done.row.prompt == "Tell a joke."


def test_an_answer_that_says_there_is_none_drops_the_row() -> None:
    for answer in ("<nooutput>", "<NoOutput>", " <no output>\n", "<noinput>"):
        done = cleaned(told("Do it.", "", answer))
        assert done.row is None
        assert [(f.rule, f.action) for f in done.findings] == [("placeholders", "dropped")]
    kept = told("What does `pass` print?", "", "No output")
    assert cleaned(kept).row is kept


def test_placeholders_inside_are_only_counted() -> None:
    for row in (
        told("Do it.", "", "<nooutput> - a drawing."),
        told("Why write <noinput> in it?", "a"),
        chat("u:<noinput>", "a:What?"),
        chat("u:a", Message("assistant", "<nooutput>", 0.0), "u:b", "a:c"),
    ):
        done = cleaned(row)
        assert done.row is row
        assert {(f.rule, f.action) for f in done.findings} == {("placeholders", "kept")}


def test_variables() -> None:
    for text in ("I am {{name}}.", "{{ user.name }}", "Dear <YOUR NAME>,", "<MASK>"):
        assert len(list(variables(text))) == 1, text
    for text in (
        "<BR><TABLE>",
        "\\mathbf{{x}}",
        "{name}",
        "{{1, 2}, {3}}",
        "a <B c> d",
        "vector<T>",
        "{{}}",
        "x^{{a}}",
    ):
        assert list(variables(text)) == [], text


# ----------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI language model, I do not have feelings.",
        "As a large language model, I am unable to draw.",
        "I'm sorry, but I can't assist with that.",
        "Unfortunately, I am not able to access the internet.",
        "I’m sorry, but as an AI I can’t do it.",
        "很抱歉，作为一个人工智能，我无法执行点外卖等外部任务。",
        "对不起，我不能回答这个问题。",
    ],
)
def test_refusals(answer: str) -> None:
    assert refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "I can't wait to see it!",
        "I cannot thank you enough for your support.",
        "I'm sorry for being late to our meeting.",
        "Such systems are known as an aid to the blind.",
        "Transparency suffers as a result of AI-driven choices.",
        "He said: " + "word " * 60 + "I cannot provide it.",
        "I am a language model trained by many people.",
        "我不能没有你。",
    ],
)
def test_what_only_sounds_like_a_refusal_is_none(answer: str) -> None:
    assert refusal(answer) is None


def test_copied_prompts() -> None:
    long = "Name the three largest cities."
    assert copied(long, "", long + " \n") == (0, len(long))
    assert copied("Sort: a b", "a b", " a b") == (1, 4)
    assert copied(long, "", long + " They are:") == (0, len(long))
    assert copied("\n" + long, "", long)
    assert copied("The", "", "The sun is a star.") is None
    assert copied("", "", "Anything") is None
    assert copied(long, "", "Name one? Paris.") is None


def test_truncated_answers() -> None:
    long = "This sentence is here to fill the space that is needed. " * 10
    assert truncated("", "", long + "and so the very last of them all just stops in")
    assert truncated("", "", "Here:\n```python\nx = 1\n")
    for answer in (
        long + "The end.",
        long + "(see above)",
        long + "\n- apples and pears and a number of other kinds of fruit",
        long + "\n    return the_value of all that was computed in the loop",
        long + "\nYours, Jo",
        long + "\n```\ncode that ends without a full stop in its last line of text\n```",
        "short and without an end as so many good answers are",
    ):
        assert truncated("", "", answer) is None, answer[-60:]


def test_loops() -> None:
    assert loop("So. " + "I do not know. " * 20)
    assert loop("So. " + "the cat and the dog and " * 5 + "the cat a")
    start, end = loop("abc def. " + "Again and again. " * 10) or (0, 0)
    assert (start, end) == (9, 9 + 170)
    for text in (
        "- " * 100,
        "=" * 200,
        "1 0 " * 100,
        "| --- " * 40,
        "Well, no. " * 3,
        "a b c d e f g " * 2 + "x " * 10,
    ):
        assert loop(text) is None, text
    assert loop("x" * 59) is None
    assert loop("word " * 100_000)


def test_another_script() -> None:
    han = "今天天气很好我们去公园散步吧"
    assert other_script("How is the weather there?", "", han)
    assert other_script("今天的天气怎么样我们应该去哪里", "", "The weather is very nice today.")
    for prompt, answer in (
        ("Translate to Chinese: the weather is nice", han),
        ("How do I say this in Mandarin?", han),
        ("请把这句话翻译成另一种语言好吗谢谢", "The weather is very nice today."),
        ("How is the weather? 天气很好吗", han),
        ("How is the weather there?", "Fine! 好"),
        ("写一个快速排序的程序并且加上注释", "```python\ndef quick_sort(values): return sorted(values)\n```"),
    ):
        assert other_script(prompt, "", answer) is None, prompt


def test_only_trained_answers_are_looked_at() -> None:
    no = "I'm sorry, but I cannot do that."
    assert found(chat("u:a", Message("assistant", no, 0.0), "u:b", "a:c")) == []
    assert found(chat("u:a", f"a:{no}", "u:b", "a:c")) == [("refusals", "kept", "messages[1].content")]


# ------------------------------------------------------------------------------------------------------- turns


def test_empty_turns() -> None:
    done = cleaned(chat("s: ", "u:a", "a:b", "u:", "a:c"), empty_turns="repair")
    assert contents(done) == ["a", "b", "", "c"]
    assert [(f.action, f.field) for f in done.findings] == [
        ("repaired", "messages[0].content"),
        ("kept", "messages[2].content"),
    ]
    assert found(chat("u:a", Message("assistant", "", tool_calls=({},)), "t:", "a:b")) == []


def test_turns_of_one_role_are_joined() -> None:
    row = chat("u:a", "u:b", "u:c", "a:d")
    done = cleaned(row, same_role_turns="repair")
    assert contents(done) == ["a\n\nb\n\nc", "d"]
    assert [(f.rule, f.action) for f in done.findings] == [("same_role_turns", "repaired")] * 2
    instructed = chat("u:a", "u:b\n\nc", "a:d", instruction=Instruction("b", "c"))
    joined = cleaned(instructed, same_role_turns="repair").row
    assert isinstance(joined, Conversation)
    assert joined.messages[0].content == "a\n\nb\n\nc"
    assert joined.instruction == Instruction("a\n\nb", "c")


def test_turns_that_may_not_be_joined_are_kept() -> None:
    for second in (Message("user", "b", name="Jo"), Message("user", "b", weight=1.0)):
        row = chat("u:a", second, "a:c")
        assert cleaned(row, same_role_turns="repair").row is row
    answers = chat("u:a", "a:b", "a:c")
    done = cleaned(answers, same_role_turns="repair")
    assert done.row is answers
    assert [(f.action, f.field) for f in done.findings] == [("kept", "messages[2].role")]
    call = Message("assistant", "", tool_calls=({},))
    assert found(chat("u:a", "a:Let me see.", call, "t:1", "t:2", "a:c")) == []


@pytest.mark.parametrize(
    ("turns", "place"),
    [
        (("a:x", "u:y", "a:z"), 0),
        (("u:x", "s:y", "u:w", "a:z"), 1),
        (("u:x", "t:y", "a:z"), 1),
        (("s:x", "u:y", "a:z", "u:w"), 3),
    ],
)
def test_turns_out_of_order(turns: tuple[str, ...], place: int) -> None:
    row = chat(*turns)
    assert ("role_order", "kept", f"messages[{place}].role") in found(row)
    assert cleaned(row, **{**KEEP.model_dump(), "role_order": "drop"}).row is None
    assert found(chat("s:x", "u:y", "a:z", "t:1", "a:w", "u:v", "a:q")) == []
