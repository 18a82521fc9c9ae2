"""Cleaning as a whole: what is kept, repaired and dropped, that repairs are consistent, and that they end."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.data.clean import RULES, Cleaned, Cleaner
from tutelage.data.clean.passages import changed, texts
from tutelage.errors import MachineError
from tutelage.recipe import CleanOptions
from tutelage.types import Completion, Conversation, Demonstration, Document, Instruction, Message, Origin

ORIGIN = Origin("rows.jsonl", 7)
KEEP = CleanOptions(**dict.fromkeys(CleanOptions.model_fields, "keep"))
REPAIR: dict[str, Any] = {rule.name: "repair" for rule in RULES if "repair" in rule.actions}


def chat(*turns: str | Message, **fields: Any) -> Conversation:
    """Turns as "u:...", "a:...", "s:..." and "t:...", or as messages."""
    roles = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    messages = [turn if isinstance(turn, Message) else Message(roles[turn[0]], turn[2:]) for turn in turns]
    return Conversation(ORIGIN, tuple(messages), **fields)


def told(text: str, input: str, answer: str = "Fine.") -> Conversation:
    """A row of one instruction, as the formats build it."""
    whole = "\n\n".join(part for part in (text, input) if part)
    return chat(f"u:{whole}", f"a:{answer}", instruction=Instruction(text, input))


def cleaned(row: Demonstration, **options: Any) -> Cleaned:
    return Cleaner(CleanOptions(**options))(row)


def found(row: Demonstration, **options: Any) -> list[tuple[str, str, str]]:
    return [(f.rule, f.action, f.field) for f in cleaned(row, **options).findings]


def contents(done: Cleaned) -> list[str]:
    assert isinstance(done.row, Conversation)
    return [message.content for message in done.row.messages]


# ------------------------------------------------------------------------------------------------- the whole


def test_clean_rows_come_back_as_they_are() -> None:
    rows: tuple[Demonstration, ...] = (
        told("Name a colour.", "", "Red."),
        chat("s:Be short.", "u:Hi", "a:Hello!", "u:Bye", "a:See you."),
        Completion(ORIGIN, "2 + 2 =", " 4"),
        Document(ORIGIN, "Once upon a time\nthere was a café — naïve, 中文, हिन्दी, 👩‍🚀."),
    )
    for row in rows:
        for options in (CleanOptions(), CleanOptions(**{**REPAIR, "mojibake": "keep"})):
            done = Cleaner(options)(row)
            assert done.row is row
            assert done.findings == ()


def test_every_option_is_a_rule_with_its_meaning_and_default() -> None:
    assert [rule.name for rule in RULES] == list(CleanOptions.model_fields)
    defaults = CleanOptions()
    for rule in RULES:
        assert rule.default == getattr(defaults, rule.name)
        assert len(rule.meaning) > 20
        assert rule.actions in (("keep", "drop"), ("keep", "repair", "drop"))


def test_the_page_lists_every_rule() -> None:
    page = (Path(__file__).parents[3] / "docs" / "concepts" / "cleaning.md").read_text("utf-8")
    for rule in RULES:
        assert f"| `{rule.name}` | {rule.meaning} | {', '.join(rule.actions)} | {rule.default} |" in page


FAULTS: dict[str, Demonstration] = {
    "mojibake": told("Say it.", "", "It's the cafÃ© on the corner."),
    "line_endings": told("Say it.", "", "One\r\ntwo"),
    "control_characters": told("Say it.", "", "a\x00b"),
    "zero_width": told("Say it.", "", "a\u200bb"),
    "bidi_controls": told("Say it.", "", "a\u202eb"),
    "tag_characters": told("Say it.", "", "a\U000e0041b"),
    "unicode_nfc": told("Say it.", "", "cafe\u0301"),
    "replacement_character": told("Say it.", "", "caf\ufffd"),
    "placeholders": told("Say it.", "<noinput>"),
    "template_variables": told("Say it.", "", "I am {{name}}."),
    "secrets": told("Say it.", "", "ghp_" + "a1B2c3D4e5" * 4),
    "personal_data": told("Say it.", "", "Write to jo.public@mail.org."),
    "empty_turns": chat("s:", "u:Hi", "a:Ho"),
    "same_role_turns": chat("u:Hi", "u:You", "a:Ho"),
    "role_order": chat("u:Hi", "s:Be short.", "u:So?", "a:Ho"),
    "refusals": told("Say it.", "", "I'm sorry, but I cannot do that."),
    "prompt_copied": told("Fix this.", "The dog runs.", "The dog runs."),
    "truncated_answers": told("Say it.", "", "This goes on. " * 40 + "and then it stops in the middle of the"),
    "repetition_loops": told("Say it.", "", "Well. " + "I like it very much. " * 9 + "I like"),
    "other_script": told("How is the weather over there?", "", "今天天气很好我们去公园散步吧"),
}


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_each_rule_finds_keeps_and_drops(rule: str) -> None:
    row = FAULTS[rule]
    kept = Cleaner(KEEP)(row)
    assert kept.row is row
    assert [(f.rule, f.action) for f in kept.findings] == [(rule, "kept")]
    gone = Cleaner(KEEP.model_copy(update={rule: "drop"}))(row)
    assert gone.row is None
    assert [(f.rule, f.action) for f in gone.findings] == [(rule, "dropped")]


REPAIRED = {
    "line_endings": "One\ntwo",
    "control_characters": "ab",
    "zero_width": "ab",
    "bidi_controls": "ab",
    "tag_characters": "ab",
    "unicode_nfc": "café",
    "secrets": "[SECRET]",
    "personal_data": "Write to [EMAIL].",
}


@pytest.mark.parametrize("rule", REPAIRED)
def test_each_text_rule_repairs(rule: str) -> None:
    row = FAULTS[rule]
    done = Cleaner(KEEP.model_copy(update={rule: "repair"}))(row)
    assert contents(done)[1] == REPAIRED[rule]
    assert [(f.rule, f.action, f.field) for f in done.findings] == [(rule, "repaired", "messages[1].content")]


# ------------------------------------------------------------------------------------------------- properties

PIECES = st.sampled_from(
    [
        *("\r", "\n", "\r\n", "\x00", "\x0b", "\x1b[0m", "\x93", "\u200b", "\ufeff", "\u200d", "\u200c", "\u2028"),
        *("\u202e", "\u200e", "\U000e0041", "🏴\U000e0067\U000e007f", "e\u0301", "क\u094d", "ไทย", "سلام", "👩", "Ã©"),
        *("a", "b ", "Hello there. ", "<noinput>", "<nooutput>", "{{x}}", " jo@mail.org ", "+44 20 7946 0958", "ight)"),
        *(" AKIA" + "Q2W3E4R5T6Y7U8I9 ", "4111 1111 1111 1111", "â€™", "token: ", "A1b2C3d4E5f6G7h8", " ", "rac{"),
    ]
)
TEXT = st.lists(PIECES, min_size=1, max_size=8).map("".join)


@st.composite
def rows(draw: Any) -> Demonstration:
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return Document(ORIGIN, draw(TEXT))
    if kind == 1:
        return Completion(ORIGIN, draw(TEXT), draw(TEXT))
    if kind == 2:
        return told(draw(TEXT), draw(st.one_of(st.just(""), TEXT)), draw(TEXT))
    turns = [Message(draw(st.sampled_from(["system", "user"])), draw(st.one_of(st.just(""), TEXT)))]
    turns += [Message(draw(st.sampled_from(["user", "assistant"])), draw(TEXT)) for _ in range(draw(st.integers(0, 3)))]
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": draw(TEXT), "n": 1}}}
    return chat("u:Go", *turns, Message("assistant", draw(TEXT), None, draw(TEXT), (call,)))


@given(rows(), st.sets(st.sampled_from(sorted(set(REPAIR) - {"mojibake"}))))
@settings(max_examples=300, deadline=None)
def test_cleaning_again_changes_nothing(row: Demonstration, repaired: set[str]) -> None:
    clean = Cleaner(KEEP.model_copy(update=dict.fromkeys(repaired, "repair")))
    once = clean(row)
    if once.row is None:
        assert any(f.action == "dropped" for f in once.findings)
        return
    twice = clean(once.row)
    assert twice.row is once.row
    assert not any(f.action == "repaired" for f in twice.findings)
    assert (once.row is row) == (not any(f.action == "repaired" for f in once.findings))
    assert {f.rule for f in once.findings if f.action == "repaired"} <= repaired


@given(rows())
@settings(max_examples=200, deadline=None)
def test_keep_never_changes_a_row(row: Demonstration) -> None:
    done = Cleaner(KEEP)(row)
    assert done.row is row
    assert all(f.action == "kept" for f in done.findings)
    assert all(f.excerpt.isprintable() and len(f.excerpt) < 400 for f in done.findings)


@given(rows())
@settings(max_examples=200, deadline=None)
def test_repaired_text_holds_nothing_forbidden(row: Demonstration) -> None:
    done = cleaned(row, **{**REPAIR, "mojibake": "keep"})
    if done.row is None:
        return
    for _, text in texts(done.row):
        assert not set(text) & {*map(chr, range(9)), *map(chr, range(11, 32)), *map(chr, range(127, 160))}
        assert not set(text) & {"\u2028", "\u2029", "\ufeff", "\u2060", "\u202e"}
        assert "jo@mail.org" not in text
        assert "AKIAQ2W3E4R5T6Y7U8I9" not in text


# ------------------------------------------------------------------------------------------------- consistency


def test_a_message_and_its_instruction_are_repaired_alike() -> None:
    done = cleaned(told("Sum up\r", "one\u200b\r\ntwo"))
    assert done.row == told("Sum up\n", "one\ntwo")
    assert [(f.rule, f.field) for f in done.findings] == [
        ("line_endings", "messages[0].content"),
        ("zero_width", "messages[0].content"),
    ]


def test_thinking_arguments_and_references_are_repaired_but_no_structure() -> None:
    arguments = {"a\u200b": ["x\u200by", {"n": 3, "b": "\u200b"}], "flag": True}
    call = {"id": "c\u200b", "type": "function", "function": {"name": "f\u200b", "arguments": arguments}}
    row = chat(
        "u:Go", Message("assistant", "", None, "hm\u200bm", (call,)), "t:ok", "a:Done.", references=("o\u200bk",)
    )
    done = cleaned(row)
    assert isinstance(done.row, Conversation)
    assert done.row.messages[1].thinking == "hmm"
    (new,) = done.row.messages[1].tool_calls
    assert new["function"] == {"name": "f\u200b", "arguments": {"a\u200b": ["xy", {"n": 3, "b": ""}], "flag": True}}
    assert new["id"] == "c\u200b"
    assert done.row.references == ("ok",)
    assert arguments["a\u200b"] == ["x\u200by", {"n": 3, "b": "\u200b"}], "the row that was given stays as it was"
    assert [f.field for f in done.findings] == [
        "messages[1].thinking",
        "messages[1].tool_calls[0].arguments.a\u200b[0]",
        "messages[1].tool_calls[0].arguments.a\u200b[1].b",
        "references[0]",
    ]


def test_a_row_whose_answer_is_repaired_away_is_dropped() -> None:
    for row in (
        told("Say it.", "", "\u200b\u200b"),
        Completion(ORIGIN, "Say it.", "\ufeff"),
        Completion(ORIGIN, "\ufeff", "It."),
        Document(ORIGIN, "\u200b"),
        chat("u:\u200b", "a:Hello!"),
    ):
        done = cleaned(row)
        assert done.row is None
        assert [(f.rule, f.action) for f in done.findings] == [("zero_width", "dropped")]
    untrained = chat("u:Hi", Message("assistant", "\u200b", 0.0), "u:So?", "a:Fine.")
    assert cleaned(untrained).row is not None


def test_changed_keeps_rows_that_do_not_change() -> None:
    row = told("Name it.", "Blue")
    assert changed(row, str) is row
    other = replace(row, instruction=Instruction("Something else", "Blue"))
    mended = changed(other, lambda text: text.replace("Blue", "Red"))
    assert isinstance(mended, Conversation)
    assert mended.messages[0].content == "Name it.\n\nRed"
    assert mended.instruction == Instruction("Something else", "Red")


def test_mojibake_is_repaired_by_ftfy_where_it_is_sure() -> None:
    pytest.importorskip("ftfy")
    row = told("Say it.", "", "It’s fine.\nItâ€™s the cafÃ© on the corner.\nnaïve «Â»")
    done = cleaned(row, mojibake="repair")
    assert contents(done)[1] == "It’s fine.\nIt’s the café on the corner.\nnaïve «Â»"
    assert ("mojibake", "repaired", "messages[1].content") in found(row, mojibake="repair")
    assert Cleaner(CleanOptions(mojibake="repair"))(done.row).row is done.row  # type: ignore[arg-type]


def test_a_missing_package_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    Cleaner(CleanOptions())
    with pytest.raises(MachineError) as caught:
        Cleaner(CleanOptions(mojibake="repair"))
    assert caught.value.code == "machine/missing-package"
    assert "ftfy" in str(caught.value)
