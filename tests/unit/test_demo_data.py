"""The demo's rows can be read back: a reader written here from the language alone finds the same order.

`read` knows nothing of skeletons and slots. Where it finds exactly one date, at most one time, and the items in
order, a careful human does too.
"""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import sys
from datetime import date, timedelta
from itertools import product as combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.demo import menu
from tutelage.demo.orders import SYSTEM, rows, write
from tutelage.demo.patterns import PATTERNS
from tutelage.errors import MachineError

EXAMPLE = Path(__file__).parents[2] / "examples" / "orders.py"
NUMBERS = {"a": 1, "an": 1, "a couple of": 2, "a dozen": 12} | {word: n for n, word in enumerate(menu.NUMBERS)}
CANONICAL = {plural: product for product, plural in menu.MENU.items()} | {product: product for product in menu.MENU}

ITEM = re.compile(
    rf"\b({'|'.join(sorted(NUMBERS, key=len, reverse=True))}|\d+) "
    rf"({'|'.join(sorted(CANONICAL, key=len, reverse=True))})\b",
    re.IGNORECASE,
)
DATE = re.compile(rf"\b(tomorrow|today|{'|'.join(menu.WEEKDAYS)})\b", re.IGNORECASE)
TIME = re.compile(r"\b(noon|\d\d:\d\d|\d+(?::\d\d)? [ap]m)\b")
SERVICE = {
    "delivery": r"\bdeliver|\bsend\b|\bbring .* (to|over)\b|\bbrought\b|\bdrop .* off\b",
    "table": r"\btable\b|\beat(ing)? in\b|\bdine in\b|\bsit inside\b",
}


def read(user: str) -> dict[str, Any]:
    """The fields of the order that can be found without knowing how the sentence was made."""
    opening, sentence = user.split(". ", 1)
    days = calendar(opening)
    said, times = DATE.findall(sentence), TIME.findall(sentence)
    assert len(said) == 1, f"not one date in {sentence!r}"
    assert len(times) <= 1, f"more than one time in {sentence!r}"
    services = [name for name, cue in SERVICE.items() if re.search(cue, sentence, re.IGNORECASE)]
    assert len(services) <= 1, f"more than one service in {sentence!r}"
    return {
        "items": [read_item(amount, product) for amount, product in ITEM.findall(sentence)],
        "date": read_date(said[0].lower(), days),
        "time": read_time(times[0]) if times else None,
        "service": services[0] if services else "pickup",
    }


def read_item(amount: str, product: str) -> dict[str, Any]:
    quantity = NUMBERS.get(amount.lower()) or int(amount)
    assert (product.lower() in menu.MENU) == (quantity == 1), f"{amount} {product}: wrong number"
    return {"product": CANONICAL[product.lower()], "quantity": quantity}


def calendar(opening: str) -> list[str]:
    """The days that the opening lists: "today 28 July", "tomorrow 29 July", "Wednesday 30 July" and so on."""
    assert opening.startswith("Calendar: today ")
    return opening.removeprefix("Calendar: ").split(", ")


def read_date(said: str, days: list[str]) -> str:
    fitting = [day for day in days if day.lower().startswith(said)]
    assert len(fitting) == 1, f"{said!r} is not one day of {days}"
    return fitting[0]


def dates(days: list[str]) -> list[date]:
    """The calendar's days in the one year in which its weekdays are right."""
    numbers = [(int(day.split()[1]), menu.MONTHS.index(day.split()[2]) + 1) for day in days]
    for year in (2025, 2026, 2027):
        start = date(year, numbers[0][1], numbers[0][0])
        made = [start + timedelta(days=n) for n in range(len(days))]
        if [menu.WEEKDAYS[day.weekday()] for day in made[2:]] == [day.split()[0] for day in days[2:]]:
            assert [(day.day, day.month) for day in made] == numbers
            return made
    raise AssertionError(f"no year has these days: {days}")


def read_time(said: str) -> str:
    if said == "noon":
        return "12:00"
    if clock := re.fullmatch(r"(\d+)(?::(\d\d))? ([ap])m", said):
        return f"{int(clock[1]) % 12 + 12 * (clock[3] == 'p'):02}:{clock[2] or '00'}"
    return said


def contents(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The sentence and the order of a row."""
    system, user, assistant = row["messages"]
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    assert system["content"] == SYSTEM
    order = json.loads(assistant["content"])
    assert assistant["content"] == json.dumps(order, ensure_ascii=False)
    return user["content"], order


def skeleton_words(text: str) -> set[str]:
    """The words of every variant of a skeleton, without slots and punctuation."""
    parts = re.split(r"(\[[^]]*\])", text)
    variants = combinations(*[(part[1:-1], "") if part.startswith("[") else (part,) for part in parts])
    return {" ".join(re.findall(r"[\w']+", re.sub(r"{\w+}", " ", "".join(v)).lower())) for v in variants}


SEEDS = st.integers(0, 2**32)
SPLITS = st.sampled_from(["train", "test"])


@settings(max_examples=60, deadline=None)
@given(SPLITS, SEEDS)
def test_each_row_can_be_read_back(split, seed):
    for row in rows(40, split=split, seed=seed):
        user, order = contents(row)
        assert list(order) == ["items", "date", "time", "service", "name", "note"]
        assert read(user) == {field: order[field] for field in ("items", "date", "time", "service")}, user
        for field in ("name", "note"):
            assert order[field] is None or user.count(order[field]) == 1, user


@settings(max_examples=30, deadline=None)
@given(SPLITS, SEEDS)
def test_a_null_name_or_note_is_not_in_the_sentence(split, seed):
    names = {*menu.NAMES, *menu.HELDOUT_NAMES}
    wishes = {*menu.WISHES, *menu.DRINK_WISHES, *menu.BAKED_WISHES, *menu.HELDOUT_WISHES}
    notes = wishes | {*menu.ALLERGIES, *menu.HELDOUT_ALLERGIES}
    for row in rows(40, split=split, seed=seed):
        user, order = contents(row)
        assert {name for name in names if re.search(rf"\b{name}\b", user)} == {order["name"]} - {None}
        assert {note for note in notes if note in user} == {order["note"]} - {None}


@settings(max_examples=30, deadline=None)
@given(SPLITS, SEEDS)
def test_orders_stay_within_their_ranges(split, seed):
    for row in rows(40, split=split, seed=seed):
        user, order = contents(row)
        assert order["date"] in calendar(user.split(". ", 1)[0])
        assert order["time"] is None or order["time"] in menu.TIMES
        products = [item["product"] for item in order["items"]]
        assert 1 <= len(products) == len(set(products)) <= 3
        assert set(products) <= set(menu.MENU)
        assert all(1 <= item["quantity"] <= 12 for item in order["items"])


@settings(max_examples=30, deadline=None)
@given(SPLITS, SEEDS)
def test_the_calendar_lists_today_and_the_five_days_after_it(split, seed):
    for row in rows(20, split=split, seed=seed):
        listed = calendar(contents(row)[0].split(". ", 1)[0])
        assert [day.split()[0] for day in listed[:2]] == ["today", "tomorrow"]
        assert len(dates(listed)) == 6


def test_no_test_skeleton_is_a_train_skeleton():
    assert len(PATTERNS) == len({pattern.key for pattern in PATTERNS})
    by_split: dict[str, list[set[str]]] = {"train": [], "test": []}
    for pattern in PATTERNS:
        by_split[pattern.split].append(skeleton_words(pattern.skeleton))
    assert len(by_split["train"]) >= 60
    assert len(by_split["test"]) >= 25
    # bare slots ("{items} {on}") are the one overlap that words cannot show, so none may be left without words
    assert all(all(variants) for variants in by_split["test"])
    assert not set().union(*by_split["train"]) & set().union(*by_split["test"])


def test_each_skeleton_asks_for_at_most_one_note_and_knows_its_slots():
    slots = {"items", "date", "on", "time", "name", "wish", "allergy", "note", "service"}
    for pattern in PATTERNS:
        used = [slot.lower() for slot in re.findall(r"{(\w+)}", pattern.skeleton)]
        assert set(used) <= slots, pattern
        assert len(used) == len(set(used)), pattern
        assert used.count("items") == 1, pattern
        assert len({"date", "on"} & set(used)) == 1, pattern
        assert len({"wish", "allergy", "note"} & set(used)) <= 1, pattern
        assert ("service" in used) == (pattern.service == "said"), pattern


def test_no_sentence_occurs_twice():
    train = [contents(row)[0] for row in rows(3000, split="train", seed=0)]
    test = [contents(row)[0] for row in rows(600, split="test", seed=0)]
    assert len(set(train) | set(test)) == 3600


def test_all_patterns_are_used_evenly():
    counts: dict[str, int] = {}
    for row in rows(660, split="train", seed=3):
        counts[row["pattern"]] = counts.get(row["pattern"], 0) + 1
    assert set(counts) == {pattern.key for pattern in PATTERNS if pattern.split == "train"}
    assert max(counts.values()) - min(counts.values()) <= 1


def test_held_out_values_and_days_occur_in_test_rows_only():
    held_out = {*menu.HELDOUT_NAMES, *menu.HELDOUT_WISHES, *menu.HELDOUT_ALLERGIES}
    seen = {}
    days = {}
    for split, count in (("train", 3000), ("test", 1000)):
        read_rows = [contents(row) for row in rows(count, split=split, seed=1)]
        seen[split] = {order[field] for _, order in read_rows for field in ("name", "note")} & held_out
        days[split] = {dates(calendar(user.split(". ", 1)[0]))[0] for user, _ in read_rows}
    assert seen == {"train": set(), "test": held_out}
    assert not days["train"] & days["test"]


def test_no_product_is_part_of_another():
    spoken = [*menu.MENU, *menu.MENU.values()]
    for one in menu.MENU:
        assert [other for other in spoken if one in other and CANONICAL[other] != one] == []
    assert len(menu.MENU) == 24


def test_the_same_arguments_make_the_same_rows():
    """The digest holds on every Python version; it changes only when the wording or the draws do."""
    text = json.dumps(rows(120, split="train", seed=0)) + json.dumps(rows(60, split="test", seed=0))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "2f9c4c3731869706"


def test_a_longer_list_begins_with_the_shorter_one():
    assert rows(90, split="test", seed=7)[:30] == rows(30, split="test", seed=7)
    assert rows(30, split="test", seed=8) != rows(30, split="test", seed=7)


def test_write_makes_both_files(tmp_path):
    train, test = write(tmp_path / "new" / "folder", train=5, test=3, seed=2)
    assert (train.name, test.name) == ("train.jsonl", "test.jsonl")
    lines = [json.loads(line) for line in train.read_text(encoding="utf-8").splitlines()]
    assert lines == rows(5, split="train", seed=2)
    lines = [json.loads(line) for line in test.read_text(encoding="utf-8").splitlines()]
    assert lines == rows(3, split="test", seed=2)


def test_a_folder_that_cannot_be_made_is_a_machine_error(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(MachineError, match="machine/read-only"):
        write(tmp_path / "taken", train=1, test=1)


def test_the_example_prints_a_recipe_for_what_it_wrote(tmp_path, monkeypatch, capsys):
    arguments = [str(EXAMPLE), str(tmp_path), "--train", "4", "--test", "2", "--seed", "9"]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    written = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert written == rows(4, split="train", seed=9)
    assert len((tmp_path / "test.jsonl").read_text().splitlines()) == 2
    assert f"train: [{{path: {tmp_path / 'train.jsonl'}}}]" in capsys.readouterr().out
