"""Each scorer on answers whose mark is known, and on the reference answers of real benchmarks."""

from __future__ import annotations

import gzip
import json
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tutelage.errors import MachineError
from tutelage.scoring import overlap
from tutelage.scoring.choice import Letter, Likelihood, Option
from tutelage.scoring.mark import BadReference
from tutelage.scoring.number import Number, numbers, plain
from tutelage.scoring.overlap import Bleu, Chrf, Rouge, corpus
from tutelage.scoring.pattern import Pattern
from tutelage.scoring.scorers import KINDS, Scorer
from tutelage.scoring.structured import Json, unfenced
from tutelage.scoring.text import Exact, Normal

EVAL = Path(__file__).parents[4] / "shared/data/eval"


def rows(name: str) -> list[dict]:
    path = EVAL / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip("shared data is not here")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(
    ("overlook", "answer", "reference", "score"),
    [
        ({}, " Red\n", "Red", 1),
        ({}, "red", "Red", 0),
        ({}, "e\u0301", "\u00e9", 1),
        ({"unicode": "no"}, "e\u0301", "\u00e9", 0),
        ({"unicode": "nfkc"}, "\uff11", "1", 1),
        ({"strip": False}, "a ", "a", 0),
        ({"case": True}, "STRASSE", "stra\u00dfe", 1),
        ({"punctuation": True}, "it\u2019s, red!", "its red", 1),
        ({"spaces": True}, "a \n b", "a b", 1),
        ({}, "a  b", "a b", 0),
        ({}, "b", ["a", "b"], 1),
        ({}, "7", 7, 1),
        ({}, "7", 7.0, 1),
        ({}, "0.5", 0.5, 1),
        ({}, "true", True, 1),
        ({}, "None", None, 0),
        ({}, '{"a": 1}', {"a": 1}, 1),
    ],
)
def test_exact_overlooks_what_is_named_and_nothing_else(overlook, answer, reference, score):
    assert Exact(overlook=Normal(**overlook)).mark(answer, reference).score == score


@pytest.mark.parametrize(
    ("options", "answer", "reference", "score"),
    [
        ({}, '{"b": 2, "a": 1}', '{"a": 1, "b": 2}', 1),
        ({}, '{"a": 1}', {"a": 1}, 1),
        ({}, '```json\n{"a": 1}\n```', {"a": 1}, 0),
        ({"fence": "allow"}, '```json\n{"a": 1}\n```', {"a": 1}, 1),
        ({"fence": "allow"}, 'Here:\n```json\n{"a": 1}\n```', {"a": 1}, 0),
        ({"fence": "require"}, '{"a": 1}', {"a": 1}, 0),
        ({"fence": "require"}, '```\n{"a": 1}\n```\n', {"a": 1}, 1),
        ({}, '{"a": 1, "b": 3}', {"a": 1, "b": 2}, 0),
        ({"credit": "fields"}, '{"a": 1, "b": 3}', {"a": 1, "b": 2}, 0.5),
        ({"credit": "fields"}, '{"a": 1, "b": 2, "c": 3, "d": 4}', {"a": 1, "b": 2}, 0.5),
        ({"credit": "fields"}, '{"a": true}', {"a": 1}, 0),
        ({"credit": "fields"}, "[]", {"a": 1}, 0),
        ({"credit": "fields"}, "{}", {}, 1),
        ({"credit": "fields"}, "[1]", [1], 1),
        ({}, "null", "null", 1),
        ({}, "no", "no", 0),
    ],
)
def test_json(options, answer, reference, score):
    assert Json(**options).mark(answer, reference).score == score


def test_json_names_the_parts():
    assert Json().mark('{"a": 1}', '{"a": 1, "b": 2}').parts == {"a": 1.0, "b": 0.0}
    assert Json().mark("x", '{"a": 1}').parts == {"a": 0.0}
    assert Json().mark("x", "{}").why == "the answer is not JSON"
    assert unfenced("```json\n1\n```\n```json\n2\n```") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("16-3 = 13", [16, 3, 13]),
        ("-3 and (-4.5)", [-3, Decimal("-4.5")]),
        ("$1,234.50 or 1,234,567", [Decimal("1234.5"), 1234567]),
        ("-$5, 50%, 18.", [-5, 50, 18]),
        ("1,23 and 12,3456", [1, 23, 12, 3456]),
        ("1\u202f000\u202f000 km, 1 000", [1000000, 1000]),
        ("$12{,}345$, 12\\,345.5 or 1,\\!234,\\!567", [12345, Decimal("12345.5"), 1234567]),
        ("The total is 12 000.", [12000]),
        ("€-12 000.50 and 1 234 567 km", [Decimal("-12000.5"), 1234567]),
        ("100 200 30, 2020 500, 1.5 200 and 2 500-piece", [100, 200, 30, 2020, 500, Decimal("1.5"), 200, 2, 500]),
        ("x2 .5 1e3 2.5E-2 3em", [2, Decimal("0.5"), 1000, Decimal("0.025"), 3]),
        ("a well-3 b", [3]),
        ("", []),
        ("no", []),
    ],
)
def test_numbers_in_a_text(text, found):
    assert numbers(text) == found


@pytest.mark.parametrize(
    ("options", "answer", "score"),
    [
        ({}, "It is 9 * 2.\n#### 18", 1),
        ({}, "#### $18.00 a day", 1),
        ({}, "so she makes 18 dollars", 1),
        ({}, "18 eggs, or 3 dozen", 0),
        ({}, "#### 18 of 20", 1),
        ({}, "#### \n18", 1),
        ({}, "18 ####", 1),
        ({}, "#### Step 4: add 5 and 13.\n\nThe answer is 18.", 1),
        ({}, "#### **18**\n\n#### Check of all 7\nIt is right.", 1),
        ({}, "#### _18_", 1),
        ({"take": "marked"}, "#### it is 18, not 17", 1),
        ({"take": "marked"}, "18", 0),
        ({"take": "last"}, "#### 17 no, 18", 1),
        ({"tolerance": 0.5}, "18.5", 1),
        ({"tolerance": 0.4}, "18.5", 0),
        ({"marker": "Answer:"}, "Answer: 18. Or 17?", 1),
        ({}, "-18", 0),
        ({}, "eighteen", 0),
    ],
)
def test_number(options, answer, score):
    mark = Number(**options).mark(answer, options.get("marker", "####") + " 18")
    assert mark.score == score
    assert (mark.why == "") == bool(score)


def test_gsm8k_agrees_with_itself_and_with_nothing_else():
    scorer, given = Number(), rows("gsm8k_test")
    assert len(given) == 1319
    for row in given:
        written = row["answer"].rpartition("#### ")[2].replace(",", "")
        assert plain(scorer.found(row["answer"])) == written
        assert scorer.mark(row["answer"], row["answer"]).score == 1
        for wrong in (str(int(written) + 1), str(-int(written)) if written != "0" else "1", written + "0.5", ""):
            if wrong != written:
                assert scorer.mark(f"#### {wrong}", row["answer"]).score == 0
    assert sum(scorer.mark(row["question"], row["answer"]).score for row in given) < 0.05 * len(given)


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{}", "{:,}", "${:,}.00", "It is {} apples.", "**{}**"]))
def test_a_number_is_found_however_it_is_written(value, form):
    if value < 0 and form.startswith("$"):
        form = "{:,}"
    assert numbers(form.format(value)) == [value]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("B", "B"),
        ("(b)", None),
        ("(B)", "B"),
        ("**B**", "B"),
        ("B. Paris", "B"),
        ("B) Paris", "B"),
        ("A dog runs", None),
        ("The answer is B.", "B"),
        ("The answer is (C), not B.", "C"),
        ("Answer: D", "D"),
        ("answer: **D**", "D"),
        ("The answer is A. Wait: the answer is B", "B"),
        ("The answer is Berlin", None),
        ("B\nbecause A is wrong", "B"),
        ("E", None),
        ("", None),
    ],
)
def test_letters(answer, found):
    assert Letter().found(answer) == found
    assert Letter().mark(answer, "B").score == float(found == "B")


def test_letters_by_number_and_alone():
    assert Letter().mark("C", 2).score == 1
    assert Letter().mark("C", 7).score == 0
    assert Letter().mark("C", 7).why == "the reference names no option"
    for reference in ("2", 2.0, "c", "(C)", " C. "):
        assert Letter().mark("C", reference).score == 1
    assert Letter(letters="abcd").mark("a", "a").score == 1
    assert Letter(letters="abcd").mark("a", "A").score == 1
    assert Letter(letters="1234").mark("2", 2).score == Letter(letters="1234").mark("2", "2").score == 1
    assert Letter(rule="alone").found("The answer is B") is None
    assert Letter(rule="alone").found(" (B). ") == "B"


def test_the_likeliest_option():
    """By sum the short one, by token the one of many tokens, by byte the long one."""
    options = [Option("no", -2.0, 1), Option("a bit", -3.0, 4), Option("a very long one", -4.0, 2)]
    for by, right in (("sum", 0), ("token", 1), ("byte", 2)):
        mark = Likelihood(by=by).mark_options(options, right)
        assert (mark.score, mark.found) == (1.0, options[right].text)
        assert Likelihood(by=by).mark_options(options, (right + 1) % 3).score == 0.0
    for reference in ("no", "0", 0.0, "A", "a"):
        assert Likelihood(by="sum").mark_options(options, reference).score == 1.0
    for reference in (7, -1, None, "D", "7", True, "nothing"):
        mark = Likelihood(by="sum").mark_options(options, reference)
        assert (mark.score, mark.why) == (0.0, "the reference names no option")
    digits = [Option("2", -1.0, 1), Option("3", -2.0, 1), Option("0", -3.0, 1)]
    assert Likelihood().mark_options(digits, "2").score == 1.0  # Its text comes before its place.
    same = [Option("a", -1.0, 1), Option("b", -1.0, 1), Option("c", -2.0, 1)]
    assert [Likelihood().mark_options(same, right).score for right in range(3)] == [0.5, 0.5, 0.0]
    assert Likelihood().mark_options([Option("", 0.0, 0)], 0).why == "an option is empty"


def test_patterns():
    assert Pattern(pattern=r"\d+").mark("a 12 b 34", "12").score == 1
    assert Pattern(pattern=r"\d+", take="last").mark("a 12 b 34", "34").score == 1
    assert Pattern(pattern=r"is (\w+)", group=1).mark("it is red", "red").found == "red"
    assert Pattern(pattern=r"^yes", overlook=Normal(case=True)).mark("no yes", None).score == 0
    assert Pattern(pattern="yes").mark("oh yes", None).score == 1
    assert "bracket 3" in Pattern(pattern="a", group=3).mark("a", "a").why
    with pytest.raises(ValidationError, match="not a regular expression"):
        Pattern(pattern="(a")


def test_a_pattern_without_end_is_ended(monkeypatch):
    monkeypatch.setattr("tutelage.scoring.pattern.SECONDS", 0.05)
    mark = Pattern(pattern=r"(?:a|a|aa)+$").mark("a" * 60 + "b", None)
    assert (mark.score, "needs more than" in mark.why) == (0.0, True)


def test_overlaps_as_worked_by_hand():
    """Three of four words: recall 3/4, precision 1. Pairs of words: 2 of 3, and 1."""
    pytest.importorskip("rouge_score")
    pytest.importorskip("sacrebleu")
    answer, reference = "the cat sat", "the cat sat down"
    assert Rouge(variant="1").mark(answer, reference).score == pytest.approx(2 * 0.75 / 1.75)
    assert Rouge(variant="2").mark(answer, reference).score == pytest.approx(2 * (2 / 3) / (5 / 3))
    assert Rouge(variant="L").mark("sat the cat", reference).score == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))
    assert Rouge().mark(answer, ["x", answer]).score == 1
    assert Bleu().mark(answer, reference).score == pytest.approx(2.718281828 ** (1 - 4 / 3), rel=1e-6)
    for scorer in (Rouge(), Chrf(), Bleu()):
        assert scorer.mark(reference, reference).score == pytest.approx(1.0)
        assert scorer.mark("", reference).score == 0.0
        assert 0 < scorer.mark(answer, reference).score < 1
    assert corpus(Bleu(), [reference] * 2, [reference] * 2) == pytest.approx(1.0)
    assert corpus(Chrf(words=2), ["abc"], ["xyz"]) == 0.0


@pytest.mark.parametrize(
    "text", ["привет мир", "你好世界", "καλημέρα κόσμε", "नमस्ते दुनिया", "สวัสดีชาวโลก", "über café", "カード"]
)
def test_rouge_in_any_script(text):
    pytest.importorskip("rouge_score")
    for variant in ("1", "2", "L"):
        assert Rouge(variant=variant).mark(text, text).score == 1.0
        assert Rouge(variant=variant).mark("other words", text).score == 0.0


def test_rouge_counts_words_where_there_are_spaces_and_signs_where_there_are_none():
    pytest.importorskip("rouge_score")
    assert Rouge(variant="1").mark("Привет, мир", "мир вам").score == pytest.approx(0.5)
    assert Rouge(variant="1").mark("你好", "你好世界").score == pytest.approx(2 * 0.5 / 1.5)
    assert overlap.words("GPT-4は速い、cafe\u0301") == ["gpt", "4", "は", "速", "い", "café"]
    assert Rouge(variant="1").mark("naïve dogs", "naïve dog").score == 0.5
    assert Rouge(variant="1", stem=True).mark("naïve dogs", "naïve dog").score == 1.0
    # Where the reference has no other letters, words are those of the benchmark, also of the answer.
    assert Rouge(variant="1").mark("na\u00efve", "na ve").score == 1.0


BAD = [
    (Exact(), None, "null"),
    (Exact(), [], "empty"),
    (Exact(), ["a", None], "null"),
    (Pattern(pattern="a"), [], "empty"),
    (Json(), None, "null"),
    (Json(), "{", "not JSON"),
    (Number(), None, "no number"),
    (Number(), True, "no number"),
    (Number(), "many", "no number"),
    (Letter(), "E", "A, B, C, D"),
    (Letter(), 4, "from 0 to 3"),
    (Letter(), None, "neither"),
    (Letter(letters="1234"), 0, "1, 2, 3, 4"),
    (Rouge(), [], "empty"),
    (Rouge(), "!?", "no word"),
    (Rouge(), None, "null"),
    (Chrf(), " ", "empty"),
    (Bleu(), [], "empty"),
]


@pytest.mark.parametrize(("scorer", "reference", "why"), BAD)
def test_a_reference_that_no_answer_can_be_right_by_is_refused(scorer, reference, why):
    with pytest.raises(BadReference, match=why):
        scorer.check(reference)


@pytest.mark.parametrize(
    ("scorer", "reference"),
    [
        *((Exact(), reference) for reference in ("", "a", 3.0, True, ["a", "b"])),
        *((Json(), reference) for reference in ("null", "[]", {}, 3)),
        *((Number(), reference) for reference in ("#### 5", 5, 5.0, "five is 5")),
        *((Letter(), reference) for reference in ("a", "D", 0, "3", 1.0)),
        *((Rouge(), reference) for reference in ("мир", ["a", "b"], 7)),
        (Pattern(pattern="a"), None),
        (Chrf(), "世"),
    ],
)
def test_any_other_reference_is_taken(scorer, reference):
    scorer.check(reference)


def test_options_and_references_that_fit_no_choice_are_refused():
    Likelihood().check_options(["a", "b"], "1")
    for options, reference, why in (
        ([], 0, "no option"),
        (["a", " "], 0, "says nothing"),
        (["a", "b"], 2, "from 0 to 1"),
    ):
        with pytest.raises(BadReference, match=why):
            Likelihood().check_options(options, reference)


@pytest.mark.parametrize(("scorer", "module"), [(Rouge(), "rouge_score.rouge_scorer"), (Chrf(), "sacrebleu.metrics")])
def test_a_missing_package_is_named(scorer, module, monkeypatch):
    for cached in (overlap._rouge, overlap._chrf):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MachineError, match=r"tutelage\[scorers\]") as refused:
        scorer.mark("a", "a")
    assert refused.value.code == "machine/missing-package"


def test_each_kind_is_made_of_its_name_and_says_its_version():
    one = TypeAdapter(Scorer)
    for kind, made in KINDS.items():
        options = {"pattern": "a"} if kind == "pattern" else {}
        scorer = one.validate_python({"kind": kind, **options})
        assert type(scorer) is made
        described = scorer.described()
        assert (described["kind"], described["version"]) == (kind, made.version)
    with pytest.raises(ValidationError):
        one.validate_python({"kind": "vibes"})
    with pytest.raises(ValidationError):
        one.validate_python({"kind": "exact", "fence": "allow"})
