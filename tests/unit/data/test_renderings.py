"""A rendering changes the words of the question, never the answer; which one a row takes is uniform and its own."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tutelage.data.formats import parse
from tutelage.data.renderings import choose, rendered
from tutelage.recipe import Format, Rendering, RenderingOptions
from tutelage.types import Conversation, Instruction, Message, Origin, Record

NAMES: tuple[Rendering, ...] = get_args(Rendering)
HERE = Origin("a.jsonl", 1)


def conversation(text: str, given: str = "", *before: Message) -> Conversation:
    asked = "\n\n".join(part for part in (text, given) if part)
    turns = (*before, Message("user", asked), Message("assistant", "The answer."))
    return Conversation(HERE, turns, 0.5, instruction=Instruction(text, given))


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text(min_size=1), extra=st.text())
def test_instruction_and_input_are_there_verbatim_and_the_answer_is_untouched(
    name: Rendering, text: str, extra: str
) -> None:
    row = conversation(text, extra)
    said = rendered(row, name)
    asked = said.messages[-2].content
    assert text in asked
    assert extra in asked
    assert said.messages[-1] is row.messages[-1]
    assert (said.origin, said.weight, said.instruction) == (row.origin, row.weight, row.instruction)
    assert [m.role for m in said.messages if m.role != "system"] == ["user", "assistant"]


def test_plain_is_the_row_as_it_was_read() -> None:
    for row in (conversation("Add.", "1 2"), conversation("Add."), conversation("", "1 2")):
        assert rendered(row, "plain") == row


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_do_not_give_their_parts_come_back_as_they_are(name: Rendering) -> None:
    row = Conversation(HERE, (Message("user", "Hello"), Message("assistant", "Hi")))
    assert rendered(row, name) is row
    bare = Conversation(HERE, (Message("assistant", "Hi"),), instruction=Instruction("Hello"))
    assert rendered(bare, name) is bare


def test_no_two_renderings_are_the_same() -> None:
    row = conversation("Add the numbers.", "1 2")
    assert len({rendered(row, name).messages for name in NAMES}) == len(NAMES) >= 8


@pytest.mark.parametrize("name", NAMES)
def test_nothing_speaks_of_an_input_that_is_not_there(name: Rendering) -> None:
    said = " ".join(m.content.lower() for m in rendered(conversation("Add."), name).messages[:-1])
    assert not {"input", "context", "text:"} & set(said.replace(":", ": ").split()), said
    assert "{" not in said
    assert "paired" not in said


@pytest.mark.parametrize("name", NAMES)
def test_braces_in_a_row_are_text(name: Rendering) -> None:
    asked = rendered(conversation("{input} {0} {", "}} {text}"), name).messages[-2].content
    assert "{input} {0} {" in asked
    assert "}} {text}" in asked


def test_a_system_message_is_brought_only_where_there_is_none() -> None:
    for name in ("plain-system", "alpaca-system"):
        assert [m.role for m in rendered(conversation("Add."), name).messages] == ["system", "user", "assistant"]
        own = rendered(conversation("Add.", "1", Message("system", "Be brief.")), name)
        assert [m.content for m in own.messages if m.role == "system"] == ["Be brief."]
    assert "paired" in rendered(conversation("Add.", "1"), "alpaca-system").messages[0].content
    assert "paired" not in rendered(conversation("Add."), "alpaca-system").messages[0].content


def test_only_the_last_question_of_a_history_changes() -> None:
    history = Message("user", "Hello"), Message("assistant", "Hi")
    row = conversation("Add.", "1 2", *history)
    said = rendered(row, "task-text")
    assert said.messages[:2] == history
    assert said.messages[2].content == "Task: Add.\nText: 1 2"


def test_the_weight_of_the_question_is_kept() -> None:
    row = Conversation(
        HERE, (Message("user", "Add.", weight=0.25), Message("assistant", "3")), instruction=Instruction("Add.")
    )
    assert rendered(row, "alpaca").messages[0].weight == 0.25


@pytest.mark.parametrize("size", [2, 3, 5, 12])
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_the_choice_is_uniform(size: int, epoch: int) -> None:
    rows = 12_000
    counts = Counter(choose(f"a.jsonl:{row}", epoch, NAMES[:size]) for row in range(rows))
    expected = rows / size
    assert sum((counts[i] - expected) ** 2 / expected for i in range(size)) < 40  # chi-square, 11 degrees at most
    assert set(counts) == set(range(size))


@given(key=st.integers() | st.text(), size=st.integers(1, 12), turn=st.integers(0, 5))
def test_a_row_takes_each_once_before_one_comes_again(key: int | str, size: int, turn: int) -> None:
    names = NAMES[:size]
    epochs = range(turn * size, (turn + 1) * size)
    assert sorted(choose(key, epoch, names) for epoch in epochs) == list(range(size))


def test_the_choice_is_the_same_in_every_process_and_the_orders_differ() -> None:
    assert [choose("a.jsonl:1", epoch, NAMES[:4]) for epoch in range(8)] == [3, 0, 1, 2, 3, 1, 2, 0]
    assert [choose(7, epoch, NAMES[:4]) for epoch in range(4)] == [choose("7", epoch, NAMES[:4]) for epoch in range(4)]
    orders = {tuple(choose(row, epoch, NAMES[:4]) for epoch in range(4)) for row in range(500)}
    assert len(orders) == 24


def test_a_name_given_twice_is_taken_twice_as_often() -> None:
    names: tuple[Rendering, ...] = ("plain", "plain", "alpaca")
    taken = Counter(names[choose(row, 0, names)] for row in range(6000))
    assert abs(taken["plain"] / 6000 - 2 / 3) < 0.03


def test_the_recipe_names_them() -> None:
    options = RenderingOptions.model_validate({"train": ["plain", "alpaca"], "heldout": ["quoted"]})
    assert options.train == ("plain", "alpaca")
    assert options.heldout == ("quoted",)
    with pytest.raises(ValueError, match="train"):
        RenderingOptions.model_validate({"train": ["no-such-wording"]})
    with pytest.raises(ValueError, match="heldout"):
        RenderingOptions.model_validate({"heldout": []})


def test_the_page_shows_each_wording_as_it_is() -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "prompt-formats.md").read_text("utf-8")
    row = conversation("Add the numbers.", "1 2")
    shown = dict(re.findall(r"^\| `([a-z-]+)` \| `(.*)` \|$", page, re.MULTILINE))
    assert shown == {name: rendered(row, name).messages[-2].content.replace("\n", "⏎") for name in NAMES}
    (text,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    RenderingOptions.model_validate(YAML(typ="safe").load(text)["data"]["renderings"])


@pytest.mark.parametrize(
    ("file", "format"), [("llamafactory_alpaca_en_demo", "alpaca"), ("dolly_6400_no_context", "dolly")]
)
def test_real_rows_are_plain_as_they_were_read_and_whole_in_every_wording(
    shared_data: Path, file: str, format: Format
) -> None:
    with gzip.open(shared_data / "sft" / f"{file}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [parse(Record(Origin(file, n), json.loads(line)), format) for n, line in enumerate(lines, 1) if n < 800]
    for row in rows:
        assert isinstance(row, Conversation)
        assert row.instruction is not None
        assert rendered(row, "plain") == row
        for name in NAMES:
            asked = rendered(row, name).messages[-2].content
            assert row.instruction.text in asked
            assert row.instruction.input in asked
