"""The ledger balances or says that it does not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.clean import Finding
from tutelage.data.ledger import LISTED, Ledger
from tutelage.errors import DataError
from tutelage.types import Origin

EVENTS = st.lists(st.sampled_from(["train", "heldout", "empty-answer", "over-long"]), max_size=50)


def filled(events) -> Ledger:
    ledger = Ledger()
    for line, event in enumerate(events, 1):
        if event in ("train", "heldout"):
            ledger.keep(event, 1, 2)
        else:
            ledger.drop(event, Origin("a.jsonl", line))
    return ledger


@given(EVENTS)
def test_every_row_is_counted_once(events):
    ledger = filled(events)
    ledger.balance(len(events))
    written = ledger.as_json()
    assert written["rows"] == len(events)
    assert written["trained"] == events.count("train")
    assert written["heldout"] == events.count("heldout")
    assert written["examples"] == {"train": 2 * events.count("train"), "heldout": 2 * events.count("heldout")}
    for reason in ("empty-answer", "over-long"):
        assert written["dropped"].get(reason, 0) == events.count(reason)
        lines = [origin["line"] for origin in written["origins"].get(reason, [])]
        assert lines == [line for line, event in enumerate(events, 1) if event == reason]


@given(EVENTS, st.integers(-3, 3).filter(bool))
def test_a_row_that_is_not_accounted_for_is_an_error(events, off):
    with pytest.raises(DataError) as caught:
        filled(events).balance(len(events) + off)
    assert caught.value.code == "data/unbalanced"


def test_a_count_that_was_tampered_with_is_an_error():
    ledger = filled(["train", "over-long"])
    ledger.trained += 1
    with pytest.raises(DataError):
        ledger.balance(2)


def test_the_summary_is_one_line_of_sums():
    ledger = filled(["train"] * 1200 + ["heldout", "over-long", "empty-answer", "over-long"])
    text = "1,204 rows = 1,200 trained + 1 held out + 1 dropped (empty-answer) + 2 dropped (over-long)"
    assert ledger.summary() == text


def test_all_rows_are_counted_and_the_first_thousand_listed():
    ledger = filled(["over-long"] * (LISTED + 5))
    assert ledger.as_json()["dropped"] == {"over-long": LISTED + 5}
    assert len(ledger.as_json()["origins"]["over-long"]) == LISTED


def test_repeated_prompts_are_kept_and_listed():
    ledger = filled(["train", "train"])
    ledger.repeat(Origin("a.jsonl", 2))
    ledger.balance(2)
    assert ledger.as_json()["duplicates"] == 1
    assert ledger.as_json()["origins"] == {"duplicate prompt": [{"file": "a.jsonl", "line": 2}]}


@given(EVENTS)
def test_a_ledger_comes_back_from_its_state(events):
    ledger = filled(events)
    ledger.repeat(Origin("b.jsonl", 3))
    ledger.clean(Origin("b.jsonl", 4), [Finding("secrets", "repaired", "messages[0].content", "sk-...")] * 2)
    ledger.contaminate("gsm8k", Origin("b.jsonl", 5), Origin("test.jsonl", 6), "words", "Janet's ducks")
    again = Ledger.restored(json.loads(json.dumps(ledger.state())))
    assert again == ledger
    again.drop("over-long", Origin("a.jsonl", 99))
    again.clean(Origin("b.jsonl", 7), [Finding("secrets", "kept", "", "")])
    assert again.dropped["over-long"] == ledger.dropped["over-long"] + 1
    assert again.as_json()["cleaned"] == {"secrets": {"kept": 1, "repaired": 1}}
