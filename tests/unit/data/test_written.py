"""What is written reads back as the same rows, and a file is there whole or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tutelage.data.clean.passages import joined
from tutelage.data.formats import detect, expand, parse, parse_preference
from tutelage.data.sources import read
from tutelage.data.written import Files, Form, as_line, explained, pair_as_line
from tutelage.errors import DataError, MachineError
from tutelage.recipe import Source
from tutelage.types import (
    Completion,
    Conversation,
    Demonstration,
    Document,
    Instruction,
    Message,
    Origin,
    Preference,
    Record,
)

ORIGIN = Origin("rows.jsonl", 1)
CHARACTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from('\u2028\u2029\r\n\t\0\x85"\\{}<>é中😀 ')
TEXT = st.text(CHARACTERS, max_size=12)
SAID = TEXT.filter(lambda text: bool(text.strip()) and not text.strip().startswith("<think>"))
WEIGHT = st.none() | st.sampled_from([0.0, 0.25, 1.0, 3.0])
TASK = st.sampled_from(["", "sums", "Rätsel, two"])
ROW_WEIGHT = st.sampled_from([1.0, 0.0, 0.5, 7.0])
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
ARGUMENTS = st.dictionaries(TEXT, VALUE, max_size=2)
TOOL = st.fixed_dictionaries(
    {"type": st.just("function"), "function": st.fixed_dictionaries({"name": st.just("look"), "parameters": ARGUMENTS})}
)


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """A call in the one form that there is, of the one tool that is declared."""
    identity = draw(st.none() | SAID)
    function = {"name": "look", "arguments": draw(ARGUMENTS)}
    return {**({} if identity is None else {"id": identity}), "type": "function", "function": function}


@st.composite
def messages(draw: st.DrawFn) -> Message:
    role = draw(st.sampled_from(["system", "user", "assistant", "tool"]))
    called = tuple(draw(st.lists(calls(), max_size=2))) if role == "assistant" else ()
    return Message(
        role,
        draw(TEXT if called else SAID),
        draw(WEIGHT),
        draw(st.none() | TEXT) if role == "assistant" else None,
        called,
        draw(st.none() | TEXT),
        draw(st.none() | TEXT) if role == "tool" else None,
    )


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    turns = (*draw(st.lists(messages(), max_size=3)), Message("assistant", draw(SAID)))
    return Conversation(ORIGIN, turns, draw(ROW_WEIGHT), tuple(draw(st.lists(TOOL, max_size=2))), task=draw(TASK))


@st.composite
def instructions(draw: st.DrawFn) -> Conversation:
    """One instruction with one answer; with its parts apart, or a user's message alone."""
    before = (Message("system", draw(SAID)),) if draw(st.booleans()) else ()
    parts = Instruction(draw(SAID), draw(TEXT))
    turns = (*before, Message("user", joined(parts.text, parts.input)), Message("assistant", draw(SAID)))
    parts_or_none = draw(st.sampled_from([parts, None]))
    return Conversation(ORIGIN, turns, draw(ROW_WEIGHT), instruction=parts_or_none, task=draw(TASK))


COMPLETIONS = st.builds(Completion, st.just(ORIGIN), SAID, SAID, ROW_WEIGHT, TASK)
DOCUMENTS = st.builds(Document, st.just(ORIGIN), SAID, ROW_WEIGHT, TASK)


def again(row: Demonstration, path: Path, form: Form) -> Demonstration:
    """The row written to a file, and read as a source of a recipe."""
    path.unlink(missing_ok=True)
    with Files(path) as files:
        files.write(path, as_line(row, form))
    (record,) = read(Source(path=str(path)))
    assert isinstance(record, Record), record
    (part,) = expand(record, detect([record], source="rows"))
    assert record.fields["origin"] == str(row.origin)
    return replace(parse(part, detect([record], source="rows")), origin=row.origin)


many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(conversations() | COMPLETIONS | DOCUMENTS)
def test_a_row_reads_back_as_it_was(tmp_path: Path, row: Demonstration) -> None:
    assert again(row, tmp_path / "rows.jsonl", "as-read") == row


@many
@given(conversations())
def test_a_conversation_as_messages_is_the_same(tmp_path: Path, row: Conversation) -> None:
    assert again(row, tmp_path / "rows.jsonl", "messages") == row


@many
@given(COMPLETIONS)
def test_a_completion_as_messages_is_its_two_turns(tmp_path: Path, row: Completion) -> None:
    turns = (Message("user", row.prompt), Message("assistant", row.completion))
    for form in ("messages", "alpaca"):
        read_again = again(row, tmp_path / "rows.jsonl", form)
        assert isinstance(read_again, Conversation)
        assert (read_again.messages, read_again.weight, read_again.task) == (turns, row.weight, row.task)


@many
@given(instructions())
def test_an_instruction_keeps_its_parts_as_alpaca(tmp_path: Path, row: Conversation) -> None:
    read_again = again(row, tmp_path / "rows.jsonl", "alpaca")
    whole = Instruction(row.messages[-2].content)
    assert read_again == replace(row, instruction=row.instruction or whole)
    as_messages = again(row, tmp_path / "rows.jsonl", "messages")
    assert as_messages == replace(row, instruction=None)


@many
@given(conversations())
def test_as_alpaca_nothing_is_lost_in_silence(tmp_path: Path, row: Conversation) -> None:
    """A row is either refused, or has the same turns when it is read again."""
    try:
        as_line(row, "alpaca")
    except DataError:
        return
    read_again = again(row, tmp_path / "rows.jsonl", "alpaca")
    assert isinstance(read_again, Conversation)
    plain = [(message.role, message.content, message.trained) for message in row.messages]
    assert [(message.role, message.content, message.trained) for message in read_again.messages] == plain
    assert not row.tools


@many
@given(
    st.lists(messages(), max_size=2),
    SAID,
    SAID,
    st.lists(TOOL, max_size=1),
    ROW_WEIGHT,
)
def test_a_pair_reads_back_as_it_was(
    tmp_path: Path, before: list[Message], chosen: str, rejected: str, tools: list[dict[str, Any]], weight: float
) -> None:
    assume(chosen != rejected)
    turns = [replace(m, weight=0.0) if m.role == "assistant" and m.weight is None else m for m in before]
    prompt = (*turns, Message("user", "Which?"))
    answers = [(Message("assistant", text),) for text in (chosen, rejected)]
    pair = Preference(ORIGIN, prompt, *answers, weight, tuple(tools))
    path = tmp_path / "pairs.jsonl"
    path.unlink(missing_ok=True)
    with Files(path) as files:
        files.write(path, pair_as_line(pair))
    (record,) = read(Source(path=str(path)))
    assert isinstance(record, Record)
    assert replace(parse_preference(record), origin=ORIGIN) == pair


ASKED, ANSWERED = Message("user", "Why?"), Message("assistant", "So.")
CALL = {"type": "function", "function": {"name": "look", "arguments": {}}}


@pytest.mark.parametrize(
    "row",
    [
        Conversation(ORIGIN, (ANSWERED,)),
        Conversation(ORIGIN, (ASKED, ANSWERED, ASKED, ANSWERED)),
        Conversation(ORIGIN, (Message("system", ""), ASKED, ANSWERED)),
        Conversation(ORIGIN, (ASKED, replace(ANSWERED, weight=0.5))),
        Conversation(ORIGIN, (replace(ASKED, weight=1.0), ANSWERED)),
        Conversation(ORIGIN, (replace(ASKED, name="Ann"), ANSWERED)),
        Conversation(ORIGIN, (ASKED, replace(ANSWERED, thinking="Hm."))),
        Conversation(ORIGIN, (ASKED, replace(ANSWERED, tool_calls=(CALL,)))),
        Conversation(ORIGIN, (ASKED, ANSWERED), tools=(CALL,)),
        Document(ORIGIN, "A page."),
    ],
)
def test_what_alpaca_cannot_say_is_refused(row: Demonstration) -> None:
    with pytest.raises(DataError) as caught:
        as_line(row, "alpaca")
    assert (caught.value.code, caught.value.problems[0].where) == ("data/bad-row", "rows.jsonl:1")


def test_parts_that_do_not_make_up_the_message_are_not_written() -> None:
    row = Conversation(ORIGIN, (ASKED, ANSWERED), instruction=Instruction("Why?", "<noinput>"))
    assert as_line(row, "alpaca") == {"instruction": "Why?", "input": "", "output": "So.", "origin": "rows.jsonl:1"}


def test_weights_that_say_what_is_so_anyway_do_not_matter() -> None:
    row = Conversation(ORIGIN, (replace(ASKED, weight=0.0), replace(ANSWERED, weight=1.0)))
    assert as_line(row, "alpaca")["output"] == "So."


# ------------------------------------------------------------------------------------------------- files


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_appear_when_all_are_whole(tmp_path: Path) -> None:
    one, other = tmp_path / "new" / "one.jsonl", tmp_path / "other.jsonl"
    with Files(one, other) as files:
        files.write(one, {"text": "é\u2028"})
        files.write(other, {"text": "b"})
        files.write(other, {"text": "c"})
        assert not one.exists()
        assert not other.exists()
    assert files.lines == {one: 1, other: 2}
    assert names(tmp_path) == ["new/one.jsonl", "other.jsonl"]
    assert one.read_bytes() == '{"text": "é\u2028"}\n'.encode()
    assert json.loads(other.read_text("utf-8").splitlines()[1]) == {"text": "c"}


def test_a_file_without_lines_is_not_made(tmp_path: Path) -> None:
    with Files(tmp_path / "one.jsonl", tmp_path / "other.jsonl") as files:
        files.write(tmp_path / "one.jsonl", {"text": "a"})
    assert names(tmp_path) == ["one.jsonl"]


@pytest.mark.parametrize("stopped", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_stops_the_writing_leaves_nothing(tmp_path: Path, stopped: type[BaseException]) -> None:
    def write() -> None:
        with Files(tmp_path / "one.jsonl", tmp_path / "other.jsonl") as files:
            files.write(tmp_path / "one.jsonl", {"text": "a"})
            raise stopped

    with pytest.raises(stopped):
        write()
    assert names(tmp_path) == []


def test_a_second_file_that_cannot_be_opened_removes_the_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(MachineError, match="a file stands where a folder is needed"),
        Files(tmp_path / "a.jsonl", tmp_path / "file" / "b.jsonl"),
    ):
        pass
    assert names(tmp_path) == ["file"]


def test_what_an_earlier_kill_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".a.jsonl.part").write_text('{"text": "half')
    with Files(tmp_path / "a.jsonl") as files:
        files.write(tmp_path / "a.jsonl", {"text": "b"})
    assert names(tmp_path) == ["a.jsonl"]
    assert (tmp_path / "a.jsonl").read_text() == '{"text": "b"}\n'


@pytest.mark.parametrize("count", [1, 20_000])
def test_a_full_disk_leaves_nothing(tmp_path: Path, count: int) -> None:
    """Whether it shows at the last flush or at a write before."""
    path = tmp_path / "a.jsonl"
    (tmp_path / ".a.jsonl.part").symlink_to("/dev/full")

    def write() -> None:
        with Files(path) as files:
            for number in range(count):
                files.write(path, {"text": str(number)})

    with pytest.raises(MachineError) as caught:
        write()
    assert caught.value.code == "machine/disk-full"
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (PermissionError(13, "Permission denied"), "machine/read-only"),
        (OSError(30, "Read-only file system"), "machine/read-only"),
        (OSError(122, "Disk quota exceeded"), "machine/disk-full"),
    ],
)
def test_what_the_file_system_says_is_told(raised: OSError, code: str) -> None:
    with pytest.raises(MachineError) as caught, explained(Path("out/a.jsonl")):
        raise raised
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == (code, "out/a.jsonl")
    assert problem.found.startswith(str(raised.strerror))
    assert problem.found.endswith("are free") == (code == "machine/disk-full")
    assert problem.fix


def test_no_other_error_is_hidden() -> None:
    with pytest.raises(ZeroDivisionError), explained(Path("a.jsonl")):
        _ = 1 / 0
