"""The counts of a data set, against slow and plain ways to count the same; memory that stays small."""

from __future__ import annotations

import gzip
import json
import statistics as reference
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.clean.scripts import scripts
from tutelage.data.statistics import HOLDING, Statistics, dominant, letters
from tutelage.data.statistics.frequent import Frequent
from tutelage.data.statistics.lengths import token_statistics
from tutelage.data.statistics.quantiles import SHARES, Distribution, bins
from tutelage.types import Completion, Conversation, Demonstration, Document, Instruction, Message, Origin

HERE = Origin("a.jsonl", 1)


def asked(question: str, answer: str, *before: Message) -> Conversation:
    return Conversation(HERE, (*before, Message("user", question), Message("assistant", answer)))


def counted(*rows: Demonstration) -> dict:
    found = Statistics()
    for row in rows:
        found.add(row, source="a")
    return found.as_json()


# ------------------------------------------------------------------------------------------------ distributions


@given(st.lists(st.integers(0, 10**7), min_size=1))
def test_quantiles_are_exact_when_small_and_within_one_percent(values: list[int]) -> None:
    found = Distribution()
    for value in values:
        found.add(value)
    for share in SHARES:
        exact = int(np.percentile(values, share, method="inverted_cdf"))
        assert found.quantile(share) <= exact
        assert found.quantile(share) >= (exact if exact < 256 else exact * (1 - 1 / 128))
    assert (found.total, found.count, found.smallest, found.largest) == (
        sum(values),
        len(values),
        min(values),
        max(values),
    )
    assert found.as_json()["mean"] == pytest.approx(reference.fmean(values), abs=0.01)


@given(st.lists(st.integers(0, 10**6)), st.lists(st.integers(0, 10**6)))
def test_two_distributions_merged_are_one_of_all(left: list[int], right: list[int]) -> None:
    one, other, both = Distribution(), Distribution(), Distribution()
    for value in left:
        one.add(value)
        both.add(value)
    for value in right:
        other.add(value)
        both.add(value)
    one.merge(other)
    assert one == both


def test_a_distribution_stays_small() -> None:
    found = Distribution()
    for value in range(0, 3_000_000, 7):
        found.add(value)
    assert len(found.buckets) < 256 + 128 * 22


@given(st.dictionaries(st.integers(0, 10**6), st.integers(1, 50)))
def test_bins_hold_every_number_once(counts: dict[int, int]) -> None:
    found = bins(counts)
    assert sum(count for _, _, count in found) == sum(counts.values())
    for first, last, count in found:
        assert first <= last
        assert count == sum(n for value, n in counts.items() if first <= value <= last)
    assert all(before[1] + 1 == after[0] for before, after in pairwise(found))
    assert not found or (found[0][2] and found[-1][2])


# --------------------------------------------------------------------------------------------------- what repeats


@given(st.lists(st.integers(0, 30)))
def test_the_frequent_ones_are_never_missed_nor_overcounted(values: list[int]) -> None:
    found: Frequent[int] = Frequent(limit=5)
    for value in values:
        found.add(value, str(value))
    exact = Counter(values)
    assert len(found.counts) <= 5
    assert found.missed <= len(values) / 6
    for value, count in exact.items():
        assert count - found.missed <= found.counts.get(value, 0) <= count
    assert found.texts.keys() == found.counts.keys()


def test_answers_that_repeat_are_counted_whatever_their_case_and_spacing() -> None:
    rows = [asked(f"Question {i}?", f"Answer {i}.") for i in range(5000)]
    rows[100:110] = [asked(f"Other {i}?", ("I cannot  say.", "i cannot say.")[i % 2]) for i in range(10)]
    rows[4000:4003] = [asked("Again?", "Again.")] * 3
    found = counted(*rows)
    assert found["answers"]["repeated"] == {
        "distinct": 5000 - 9 - 2,
        "again": 11,
        "most": [{"text": "I cannot  say.", "times": 10}, {"text": "Again.", "times": 3}],
    }
    assert found["prompts"]["repeated"]["again"] == 2


def test_the_most_repeated_is_counted_exactly_among_very_many() -> None:
    found = Statistics()
    for i in range(60_000):
        found.add(Completion(HERE, f"Prompt {i}", "Never mind." if i % 100 == 0 else f"Text {i}"), source="a")
    most = found.as_json()["answers"]["repeated"]["most"]
    assert most == [{"text": "Never mind.", "times": 600}]


# -------------------------------------------------------------------------------------------------------- scripts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain words, 123 + ?!", {"Latin": 10}),
        ("naïve café’s", {"Latin": 10}),
        ("Привет, мир", {"Cyrillic": 9}),
        ("我 love 中文。", {"Han": 3, "Latin": 4}),
        ("ひらカナ漢", {"Kana": 4, "Han": 1}),
        ("한국어", {"Hangul": 3}),
        ("مرحبا", {"Arabic": 5}),
        ("שלום", {"Hebrew": 4}),
        ("ไทย", {"Thai": 3}),
        ("12 + 3 😀 …", {}),
        ("", {}),
        ("\ud800a", {"Latin": 1}),
    ],
)
def test_letters_by_script(text: str, expected: dict[str, int]) -> None:
    assert letters(text) == expected


@given(st.text())
def test_the_quick_count_is_the_plain_one(text: str) -> None:
    found = letters(text)
    assert found == scripts(text)
    assert (dominant(found) == "") == (not found)


def test_scripts_of_prompts_and_answers() -> None:
    found = counted(
        asked("Translate: hello", "Привет"),
        asked("Say hello.", "Hello."),
        asked("1 + 1 =", "2"),
    )
    assert found["prompts"]["scripts"] == {"Latin": 2, "none": 1}
    assert found["answers"]["scripts"] == {"Cyrillic": 1, "Latin": 1, "none": 1}
    assert found["answers"]["letters"] == {"Cyrillic": 6, "Latin": 5}
    assert found["holding"]["other_script"] == 1


# ----------------------------------------------------------------------------------------------- what rows are like


def test_turns_roles_and_lengths() -> None:
    system = Message("system", "Be brief.")
    found = counted(
        asked("One two three?", "Four five.", system),
        asked("Six.", "Seven.", Message("user", "A?"), Message("assistant", "B C", weight=0.0)),
        Completion(HERE, "Prompt:", "done"),
        Document(HERE, "A text of five words"),
    )
    assert (found["rows"], found["conversations"]) == (4, 2)
    assert found["turns"] == [[3, 1], [4, 1]]
    assert found["roles"] == {"user": 3, "assistant": 3, "system": 1}
    assert found["holding"]["system"] == 1
    assert found["holding"]["questions"] == 1
    assert found["prompts"]["count"] == 3, "a document asks nothing"
    assert found["answers"]["count"] == 4, "an answer that is not trained is part of the prompt"
    assert found["answers"]["words"]["total"] == 2 + 1 + 1 + 5
    assert found["prompts"]["words"]["total"] == (2 + 3) + (1 + 2 + 1) + 1
    assert found["answers"]["characters"]["quantiles"]["100"] == 20


@pytest.mark.parametrize(
    ("prompt", "answer", "held"),
    [
        ("What is it?", "A cat.", {"questions"}),
        ("这是什么？", "Fine.", {"questions", "other_script"}),
        ("Write code.", "def f():\n    pass", {"code"}),
        ("Write code.", "Here:\n```\nx\n```", {"code", "markdown"}),
        ("As JSON.", '{"a": [1, 2]}', {"json"}),
        ("As JSON.", " [1, 2] ", {"json"}),
        ("Not JSON.", "{a}", set()),
        ("A list.", "- one\n- two", {"markdown"}),
        ("A list.", "See:\n1. one", {"markdown"}),
        ("A sum.", "2 - 1 is 1", set()),
    ],
)
def test_what_rows_hold(prompt: str, answer: str, held: set[str]) -> None:
    found = counted(asked(prompt, answer))["holding"]
    assert {name for name, count in found.items() if count} == held
    assert tuple(found) == HOLDING


def test_tools_calls_and_thinking() -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    turns = (
        Message("user", "Look."),
        Message("assistant", "", tool_calls=(call, call)),
        Message("tool", "Seen."),
        Message("assistant", "It is there.", thinking="Well."),
    )
    found = counted(Conversation(HERE, turns, tools=({"name": "look"},)), asked("Hi", "Ho"))
    assert {name: found["holding"][name] for name in ("tools", "calling", "thinking")} == {
        "tools": 1,
        "calling": 1,
        "thinking": 1,
    }
    assert found["tool_calls"] == 2
    assert found["answers"]["count"] == 2, "a turn of calls alone has no text to measure"


def test_first_words_are_those_of_the_instruction() -> None:
    rows = [asked("Write a poem.", "x"), asked("“write” it", "y"), asked("Name one.", "z")]
    rows.append(Conversation(HERE, (Message("user", "Input first"),), instruction=Instruction("Write it.", "Input")))
    rows.append(asked("这是一个没有空格的很长很长的句子因此它的第一个词就是整个句子", "x"))
    assert counted(*rows)["first_words"] == [["write", 3], ["name", 1]]


def test_sources_add_up_and_processes_merge() -> None:
    one, other, both = Statistics(), Statistics(), Statistics()
    rows = [(asked(f"Question {i % 7}?", f"Answer {i % 5}"), ("a", "b")[i % 3 == 0]) for i in range(200)]
    for index, (row, source) in enumerate(rows):
        both.add(row, source=source)
        (one if index < 80 else other).add(row, source=source)
    one.merge(other)
    found, merged = both.as_json(), one.as_json()
    assert {name: part["rows"] for name, part in merged["sources"].items()} == {"a": 133, "b": 67}
    merged["sources"] = dict(sorted(merged["sources"].items()))
    found["sources"] = dict(sorted(found["sources"].items()))
    assert merged == found
    assert found["answers"]["repeated"]["distinct"] == 5
    assert json.loads(json.dumps(found)) == found


def test_nothing_counted_is_told_too() -> None:
    found = Statistics().as_json()
    assert found["rows"] == 0
    assert found["answers"]["characters"]["quantiles"] == dict.fromkeys(map(str, SHARES), 0)


@given(st.text(st.characters(), max_size=40), st.text(st.characters(), max_size=40))
def test_any_text_can_be_counted(prompt: str, answer: str) -> None:
    assert counted(asked(prompt, answer))["rows"] == 1


# --------------------------------------------------------------------------------------------------------- tokens


def test_token_statistics() -> None:
    lengths = np.array([10, 20, 30, 40, 1000], dtype=np.int32)
    supervised = np.array([5, 5, 5, 5, 500], dtype=np.int32)
    found = token_statistics(lengths, supervised, np.array([0, 0, 1, 1, 1]), ["a", "b", "c"], max_length=512)
    assert (found["examples"], found["total"], found["supervised"], found["longest"]) == (5, 1100, 520, 1000)
    assert found["quantiles"] == {"50": 30, "90": 1000, "99": 1000, "100": 1000}
    assert found["supervised_share"] == 520 / 1100
    assert found["sources"]["a"] == {"examples": 2, "tokens": 30, "supervised": 10}
    assert found["sources"]["c"] == {"examples": 0, "tokens": 0, "supervised": 0}
    assert found["over_max_length"] == {"examples": 1, "tokens": 1000}
    assert found["padding"] == {"batch": 8, "tokens": 5 * 1000 - 1100, "share": 3900 / 5000}
    assert json.loads(json.dumps(found)) == found


def test_token_statistics_of_equal_lengths_and_of_nothing() -> None:
    assert token_statistics(np.full(100, 7), np.full(100, 3))["padding"]["tokens"] == 0
    empty = token_statistics(np.zeros(0, np.int32), np.zeros(0, np.int32), max_length=8)
    assert (empty["examples"], empty["total"], empty["histogram"], empty["padding"]["share"]) == (0, 0, [], 0)


def test_many_tokens_do_not_overflow() -> None:
    lengths = np.full(70_000, 60_000, dtype=np.uint32)
    found = token_statistics(lengths, lengths, np.zeros(70_000, np.uint8), ["a"], max_length=1)
    assert found["total"] == found["sources"]["a"]["tokens"] == found["over_max_length"]["tokens"] == 4_200_000_000


# ------------------------------------------------------------------------------------------------------ real rows


def test_alpaca(shared_data: Path) -> None:
    with gzip.open(shared_data / "sft" / "alpaca_cleaned_51924.jsonl.gz", "rt", encoding="utf-8") as file:
        fields = [json.loads(line) for line in file]
    rows = [asked(one["instruction"], one["output"]) for one in fields]
    found = Statistics()
    for row in rows:
        found.add(row, source="alpaca")
    told = found.as_json()
    assert told["rows"] == 51_924
    assert told["answers"]["characters"]["total"] == sum(len(one["output"]) for one in fields)
    normal = Counter(" ".join(one["output"].split()).casefold() for one in fields)
    assert told["answers"]["repeated"]["distinct"] == len(normal)
    assert [one["times"] for one in told["answers"]["repeated"]["most"]] == sorted(normal.values(), reverse=True)[:20]
    assert dict(map(tuple, told["first_words"]))["generate"] > 4000
