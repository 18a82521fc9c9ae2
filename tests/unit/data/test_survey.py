"""Rows looked at without a tokenizer: the same choice as a run's, and the same rows when they are read again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tinyruns
from tutelage.assemble import prepare_data
from tutelage.config import resolve
from tutelage.data.stream import Dropped, Parsed
from tutelage.data.survey import Survey
from tutelage.errors import DataError, Problem
from tutelage.recipe import DataOptions
from tutelage.types import Completion, Conversation, Document, Origin

LONG = "once upon a time there was a small grey bird that lived in the old tower by the wide and quiet river "


def row(prompt: str, answer: str = "Yes.") -> dict[str, str]:
    return {"instruction": prompt, "output": answer}


ROWS: list[dict[str, Any]] = [
    row("What is it?"),
    row("what is  it"),
    row("What is it?", "No."),
    row(LONG + "and sang"),
    row(LONG + "and slept"),
    row("Broken", ""),
    row("Empty", "<nooutput>"),
    row("Line\u2028end?", "As an AI language model, I cannot."),
    *(row(f"Number {n}?", f"It is {n}.") for n in range(30)),
]


def survey(path: Path, **options: Any) -> Survey:
    given = {"heldout": 0, "on_bad_row": "quarantine", "max_quarantined": 0.5, **options}
    return Survey(DataOptions(train=({"path": str(path)},), **given))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tinyruns.write_rows(tmp_path / "rows.jsonl", ROWS)


def test_every_row_is_counted_once(path: Path) -> None:
    looked = survey(path)
    ledger = looked.ledger
    assert (ledger.rows, ledger.trained, ledger.heldout) == (38, 36, 0)
    assert dict(ledger.dropped) == {"empty-answer": 1, "placeholders": 1}
    assert (ledger.duplicates, ledger.conflicts) == (2, 1)
    assert {rule: dict(counts) for rule, counts in ledger.cleaned.items()} == {
        "placeholders": {"dropped": 1},
        "line_endings": {"repaired": 1},
        "refusals": {"kept": 1},
    }
    assert looked.statistics.as_json()["rows"] == 36
    assert [str(problem.where) for problem in looked.problems] == [f"{path}:6"]
    assert looked.kinds == {Conversation}
    assert looked.origin(35) == Origin(str(path), 38)


def test_the_rows_read_again_stand_beside_what_became_of_them(path: Path) -> None:
    looked = survey(path, duplicates={"exact": "drop", "near": "drop"}, heldout=0.3)
    items = list(looked.items())
    assert len(items) == 38
    assert [type(item) for item, _, _ in items[5:7]] == [Problem, Dropped]
    assert [(number, side) for _, number, side in items[5:7]] == [(-1, -1)] * 2
    numbered = [(number, side, item.row.origin) for item, number, side in items if isinstance(item, Parsed)]
    assert [number for number, _, _ in numbered] == list(range(36))
    assert [side for _, side, _ in numbered] == looked.selection.sides.tolist()
    assert [origin for _, _, origin in numbered] == [looked.origin(number) for number in range(36)]
    assert looked.stream.counts == {0: 38}, "the second reading counts anew"


def test_repeats_are_told_with_the_first_row(path: Path) -> None:
    looked = survey(path)
    places = [looked.alike(number) for number in range(36)]
    first, bird = Origin(str(path), 1), Origin(str(path), 4)
    assert places == [None, first, first, None, bird, *[None] * 31]
    assert survey(path, duplicates={"near": "off"}).alike(4) is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heldout": 0.3},
        {"heldout": 0.3, "duplicates": {"near": "off"}},
        {"heldout": 0.3, "duplicates": {"exact": "drop"}},
        {"heldout": 0.2, "duplicates": {"prompt": "drop"}},
        {"heldout": 0.2, "duplicates": {"near": "drop"}},
        {"heldout": 0.2, "clean": {"refusals": "drop", "line_endings": "drop"}},
    ],
)
def test_it_chooses_what_a_run_would_train(
    path: Path, tmp_path: Path, tiny_model: Callable[..., Path], options: dict[str, Any]
) -> None:
    data = {"heldout": 0.0, "on_bad_row": "quarantine", "max_quarantined": 0.5, **options}
    values = tinyruns.recipe(tiny_model("llama"), path, tmp_path / "run", data=data)
    dataset = prepare_data(resolve(values).recipe).dataset
    looked = survey(path, **options)
    for name, side in (("train", 0), ("heldout", 1)):
        here = [looked.origin(number) for number in looked.selection.rows(side).tolist()]
        assert here == [example.origin for example in dataset.examples(name)]
    mine, theirs = looked.ledger.as_json(), dataset.ledger.as_json()
    assert mine == theirs


def test_a_held_out_file_is_a_source_of_its_own(path: Path, tmp_path: Path) -> None:
    asked = tinyruns.write_rows(tmp_path / "asked.jsonl", [row("Number 3"), row(LONG + "and flew"), row("New?")])
    looked = survey(path, heldout={"path": str(asked)})
    assert looked.ledger.heldout == 3
    assert dict(looked.ledger.dropped) == {
        "empty-answer": 1,
        "placeholders": 1,
        "prompt is also held out": 1,
        "nearly held out": 2,
    }
    assert set(looked.statistics.as_json()["sources"]) == {str(path), "held out"}


def test_contaminated_rows_are_dropped_with_the_question(path: Path, tmp_path: Path) -> None:
    asked = tinyruns.write_rows(tmp_path / "asked.jsonl", [{"question": LONG + "and sang"}])
    looked = survey(path, decontaminate={"against": [f"birds={asked}"]})
    assert looked.ledger.dropped["in evaluation set birds"] == 2
    assert {found["question"] for found in looked.ledger.found["birds"]} == {f"{asked}:1"}


def test_malformed_rows_stop_it_as_they_would_stop_a_run(path: Path) -> None:
    with pytest.raises(DataError) as caught:
        survey(path, on_bad_row="stop")
    assert (caught.value.code, caught.value.problems[0].where) == ("data/empty-answer", f"{path}:6")
    with pytest.raises(DataError, match=r"more than data\.max_quarantined"):
        survey(path, max_quarantined=0.01)


def test_kinds_are_those_of_the_rows(tmp_path: Path) -> None:
    asked = tinyruns.write_rows(tmp_path / "a.jsonl", [{"prompt": "1 + 1 =", "completion": " 2"}])
    page = tinyruns.write_rows(tmp_path / "b.jsonl", [{"text": "A page."}])
    options = DataOptions(train=({"path": str(asked)}, {"path": str(page)}), heldout=0)
    assert Survey(options, as_chat=False).kinds == {Completion, Document}
    assert Survey(options).kinds == {Conversation, Document}


def test_plain_text_is_cleaned_and_keyed_as_its_turns_are(tmp_path: Path) -> None:
    """So it does not matter whether rows are surveyed as turns, and written as they were."""
    rows = [{"prompt": r["instruction"], "completion": r["output"]} for r in ROWS if r["output"]]
    path = tinyruns.write_rows(tmp_path / "rows.jsonl", rows)
    options = DataOptions(train=({"path": str(path)},), heldout=0.3, duplicates={"near": "drop"})
    turns, plain = Survey(options), Survey(options, as_chat=False)
    assert turns.selection.sides.tolist() == plain.selection.sides.tolist()
    assert turns.rows.tolist() == plain.rows.tolist()
    assert turns.ledger.dropped == plain.ledger.dropped
    assert turns.ledger.cleaned == plain.ledger.cleaned


def test_progress_is_told(path: Path) -> None:
    said: list[tuple[str, int]] = []
    options = DataOptions(train=({"path": str(path)},), on_bad_row="quarantine", max_quarantined=0.5)
    Survey(options, lambda stage, rows: said.append((stage, rows)))
    assert sum(rows for _, rows in said) == 38


def test_rows_beyond_a_block_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.data.survey.BLOCK", 7)
    path = tinyruns.write_rows(tmp_path / "rows.jsonl", [row(f"Number {n}?") for n in range(23)])
    looked = survey(path)
    assert looked.rows["line"].tolist() == list(range(1, 24))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["a", "b", "<nooutput>", ""])), min_size=1, max_size=25),
    st.sampled_from([0.0, 0.2, 0.6]),
    st.sampled_from(["keep", "drop"]),
)
def test_the_ledger_balances_and_no_prompt_is_on_both_sides(
    tmp_path: Path, rows: list[tuple[int, str]], heldout: float, exact: str
) -> None:
    path = tinyruns.write_rows(tmp_path / "rows.jsonl", [row(f"Number {n}?", said) for n, said in rows])
    looked = survey(path, heldout=heldout, duplicates={"exact": exact}, max_quarantined=1.0)
    ledger = looked.ledger
    assert ledger.rows == len(rows) == ledger.trained + ledger.heldout + sum(ledger.dropped.values())
    sides = [set(looked.rows["prompt"][looked.selection.rows(side)].tolist()) for side in (0, 1)]
    assert not sides[0] & sides[1]
    assert sum(1 for _ in looked.items()) == len(rows)
