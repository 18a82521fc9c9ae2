"""The data page: what is known is there, what is not has no block, and no row's text does anything."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from madeup import HOSTILE
from madeupdata import facts, ledger
from test_report_page import Outline, check_harmless

from tutelage.cli.show_data import data_text
from tutelage.report.data_page import data_page
from tutelage.report.facts import Facts, completed
from tutelage.report.histogram import histogram
from tutelage.report.notes import notes
from tutelage.report.text import percent

SECTIONS = ("rows", "sources", "tokens", "contents", "repeats", "cleaning", "contamination", "samples")


def sections(html: str) -> list[str]:
    return re.findall(r'<section id="([a-z]+)"', html)


def replaced(value: Any, text: str) -> Any:
    """The same tree with every text and every key replaced, as far as keys are not the page's own."""
    if isinstance(value, str):
        return text
    if isinstance(value, dict):
        return {key: replaced(one, text) for key, one in value.items()}
    return [replaced(one, text) for one in value] if isinstance(value, list) else value


def hostile(text: str) -> Facts:
    """Facts in which every text of a row, every name and every label is this one."""
    made = json.loads(json.dumps(facts()))
    for names in (
        made["ledger"]["dropped"],
        made["ledger"]["cleaned"],
        made["ledger"]["contaminated"],
        made["ledger"]["found"],
        made["ledger"]["origins"],
        made["tokens"]["sources"],
        made["statistics"]["sources"],
        made["statistics"]["roles"],
        made["statistics"]["answers"]["scripts"],
    ):
        names[text] = next(iter(names.values()))
    return replaced(made, text)


def test_everything_that_is_known_is_told() -> None:
    html = data_page(facts())
    words = check_harmless(html).words()
    assert sections(html) == list(SECTIONS)
    assert "100 rows in = 88 trained + 5 held out + 4 bad-row + 3 contaminated." in words
    assert "shop/orders.jsonl alpaca 60 4.00 KiB" in words
    assert "60 6.25" in words, "the mixture"
    assert "have at most this many tokens 504 1,620 2,000 2,000" in words
    assert "personal data E-mail addresses" in words
    assert "write to [EMAIL]" in words
    assert "gsm8k – 3" in words
    assert "how many apples" in words
    assert "shop/orders.jsonl:9 · output · kept" in words
    assert '<b title="weight 1">·there</b>' in html
    assert '<b title="weight 0.5" style="--w:0.5">' in html
    assert html.count("<svg") == 3


def test_what_is_missing_has_no_block() -> None:
    assert sections(data_page({})) == []
    assert sections(data_page(facts(ledger=None, statistics={}, tokens=None, samples=[], mixture=None))) == ["sources"]
    assert sections(data_page({"statistics": facts()["statistics"]})) == ["contents", "repeats"]
    assert sections(data_page({"tokens": facts()["tokens"]})) == ["tokens"]
    for name in ("ledger", "sources", "statistics", "tokens", "mixture", "samples"):
        some: Facts = {name: facts()[name]}  # type: ignore[misc]
        html = data_page(some)
        seen = check_harmless(html)
        linked = [value[1:] for key, value in seen.attributes if key == "href"]
        assert set(linked) == set(sections(html)), "the navigation names what is there"


def test_what_an_older_run_wrote_is_taken_too() -> None:
    tokens = {"train": 1200, "supervised": 300, "heldout": 10, "quantiles": {"50": 3, "100": 9}}
    words = check_harmless(data_page({"tokens": tokens})).words()
    assert "1,200 tokens to train on, 300 of them trained; the rest" in words


def test_own_findings_take_the_place_of_the_ledgers() -> None:
    own = facts(cleaning=[], contamination=[{"set": "mmlu", "questions": 14042, "rows": 0, "examples": []}])
    words = check_harmless(data_page(own)).words()
    assert "What cleaning found" not in words
    assert "mmlu 14,042 0" in words
    assert completed({"ledger": ledger().as_json()}).get("duplicates") == {"prompts": 12, "conflicts": 2}


def test_the_page_forbids_itself_any_request() -> None:
    html = data_page(facts())
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert html.index(policy) < html.index("<style>")
    assert not re.search("https?:", html)


def test_hostile_rows_are_shown_and_do_nothing() -> None:
    html = data_page(hostile(HOSTILE))
    words = check_harmless(html).words()
    assert "<script>alert('row')</script></textarea></style><img src=x onerror=alert(1)>" in words
    assert sections(html) == list(SECTIONS)


@given(
    text=st.text(st.characters(), max_size=60)
    | st.sampled_from(["]]>", "-->", "<!--", "\\", "&lt;", "' \"", "{{ 7 }}"])
)
@settings(max_examples=30, deadline=None)
def test_any_text_anywhere_is_harmless(text: str) -> None:
    check_harmless(data_page(hostile(text)))
    assert all("\x1b" not in line and "\n" not in line for line in data_text(hostile(text)))


def test_the_worst_data_make_a_small_page() -> None:
    long = '"\u202e' * 5000
    made = json.loads(json.dumps(facts()))
    made["sources"] = made["sources"] * 500
    made["mixture"] = made["mixture"] * 500
    made["samples"] = [{"origin": {"file": long, "line": 1}, "tokens": [['"', 0.37]] * 5000}] * 50
    made["statistics"]["answers"]["repeated"]["most"] = [{"text": long, "times": 9}] * 50
    made["statistics"]["turns"] = [[number, 3] for number in range(3000)]
    made["statistics"]["sources"] = {f"{long}{n}": made["statistics"]["sources"]["chat"] for n in range(300)}
    made["ledger"]["found"]["personal_data"] = [{"file": long, "line": 1, "excerpt": long, "field": long}] * 900
    assert len(data_page(made).encode("utf-8", "replace")) < 1_500_000


def test_headings_tables_and_charts_can_be_read_aloud() -> None:
    html = data_page(facts())
    levels = [int(tag[1]) for tag in Outline(html).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert html.count("<svg") == len(re.findall('role="img" aria-label="[^"]+', html))
    assert html.count("<th ") == html.count("<th scope=")
    for region in re.findall('<div class="scroll"[^>]*>', html):
        assert 'tabindex="0" role="region" aria-label="' in region


# ---------------------------------------------------------------------------------------------------------- notes


def test_notes_name_what_is_worth_a_look() -> None:
    said = [note.sentence for note in notes(facts())]
    assert said == [
        "3 rows hold a question of gsm8k, and were left out.",
        "6 rows hold what looks like personal data, and will be trained on as they are.",
        "2 prompts have more than one answer.",
        "4.0 % of the rows were dropped: bad-row.",
        "3.0 % of the rows were dropped: contaminated.",
        "26 examples are longer than 1,024 tokens.",
        "5.0 % of the answers are “I am sorry.”.",
        "The run passes orders 6.25 times.",
    ]
    assert {note.section for note in notes(facts())} <= set(SECTIONS)


def test_rows_that_ended_nowhere_are_the_first_note() -> None:
    made = json.loads(json.dumps(facts()))
    made["ledger"]["trained"] -= 5
    assert notes(made)[0].sentence == "5 rows are not accounted for: this is a bug in Tutelage."


def test_good_data_have_no_notes() -> None:
    good: Facts = {"ledger": {"rows": 10, "trained": 9, "heldout": 1, "dropped": {}}}
    assert notes(good) == []
    assert "Nothing in these rows stands out as wrong." in check_harmless(data_page(good)).words()


# ------------------------------------------------------------------------------------------------------- terminal


def test_lines_for_a_terminal() -> None:
    lines = data_text(facts())
    assert "rows    100 = 88 trained + 5 held out + 4 dropped (bad-row) + 3 dropped (contaminated)" in lines
    assert "data    a.jsonl, b.jsonl (messages, 40 rows)" in lines
    assert "length  half up to 504, 99 % up to 2,000, the longest 2,000 tokens" in lines
    assert "clean   personal data: 6 kept" in lines
    assert "mix     orders: 60 examples in an epoch, 6.25 passes in the run" in lines
    assert lines[-1] == "look    The run passes orders 6.25 times."
    assert all(re.match(r"[a-z]{2,7} +\S", line) and line[7] == " " for line in lines)
    assert data_text({}) == []


# ----------------------------------------------------------------------------------------------------- histograms


@given(st.lists(st.integers(0, 10**6), min_size=1), st.integers(1, 10**6) | st.none())
def test_a_histogram_stays_within_its_frame(values: list[int], limit: int | None) -> None:
    from tutelage.data.statistics.quantiles import bins

    counts = {value: values.count(value) for value in values}
    drawn = histogram(bins(counts), title="T", of="rows", unit="tokens", width=900, height=300, limit=limit)
    assert f"T. {len(values):,} rows; half have up to" in drawn
    bars = re.findall(r'class="column" x="([^"]+)" y="([^"]+)" width="([^"]+)" height="([^"]+)"', drawn)
    for x, y, width, height in (map(float, bar) for bar in bars):
        assert x >= 0
        assert x + width <= 900
        assert y >= 0
        assert height >= 0
        assert y + height <= 300
    assert drawn.count("<title>") == len(bins(counts))
    assert (limit is not None) == ("max_length" in drawn)


def test_nothing_counted_draws_nothing() -> None:
    drawn = histogram([], title="Lengths", of="rows", unit="tokens", width=900, height=300)
    assert drawn == '<p class="empty">Lengths: nothing counted yet.</p>'


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0 %"), (1, "100 %"), (1e-6, "< 0.1 %"), (1 - 1e-6, "> 99.9 %"), (0.05, "5.0 %"), (0.5, "50 %"), (None, "–")],
)
def test_shares(share: float | None, said: str) -> None:
    assert percent(share) == said
