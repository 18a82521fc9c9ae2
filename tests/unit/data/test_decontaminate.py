"""Decontamination: what holds an evaluation question is found wherever it stands, and nothing else is."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.data.repeats.decontaminate import Decontaminator
from tutelage.data.repeats.words import jaccard, shingles, words
from tutelage.recipe import DecontaminateOptions
from tutelage.types import Completion, Conversation, Document, Message, Origin

LONG = (
    "A baker sells twelve loaves each morning and nine more after lunch, and every loaf costs three coins; "
    "how many coins does he earn in five days if nobody is given one for free?"
)
SHORT = "Which mountain is the tallest in Iceland?"
TINY = "Who are you?"


def row(prompt, answer="Yes.", *more):
    turns = (prompt, answer, *more)
    roles = ("user", "assistant") * len(turns)
    return Conversation(Origin("made", 1), tuple(map(Message, roles, turns)))


@pytest.fixture
def against(rows):
    """Make a decontaminator of these questions."""

    def make(*questions, **options):
        path = rows([{"question": question} for question in questions], "bench.jsonl")
        return Decontaminator(DecontaminateOptions(against=(str(path),), **options))

    return make


@pytest.fixture
def plain(against):
    return against(LONG, SHORT, TINY)


def kind(decontaminator, row):
    hit = decontaminator.hit(row)
    return None if hit is None else hit.kind


def test_a_hit_says_which_question(plain):
    hit = plain.hit(row(f"Please answer: {SHORT.upper()} Thanks!"))
    assert (hit.set, hit.origin.line, hit.kind) == ("bench", 2, "whole")
    assert hit.origin.file.endswith("bench.jsonl")
    assert hit.excerpt == "which mountain is the tallest in iceland"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (row(LONG), "whole"),
        (row(LONG.replace("twelve", "eleven")), "near"),
        (row(f"Solve this for my class. {LONG} Show all of the steps on the way to the result."), "words"),
        (row("Write a word problem.", f"Here is one: {LONG}"), "words"),
        (row("Hello there, my friend", "Hello!", LONG, "315"), "whole"),
        (row(SHORT), "whole"),
        (row("Say: " + SHORT), "whole"),
        (row("who are   YOU"), "whole"),
        (Completion(Origin("made", 1), f"### Instruction:\n{SHORT}\n### Response:\n", "Hvannadalshnúkur"), "whole"),
        (Completion(Origin("made", 1), "Tell me something", LONG), "words"),
        (Document(Origin("made", 1), f"An old book asks much of those who read it by the fire. {LONG}"), "words"),
    ],
)
def test_questions_are_found(plain, found, expected):
    assert kind(plain, found) == expected


@pytest.mark.parametrize(
    "clean",
    [
        row("Tell me, who are you?"),  # a tiny question is a hit only when it is the prompt
        row("Say something", SHORT),  # a short one only in a prompt
        row("Which mountain is the tallest in Icelandic myths?"),  # and only at the bounds of words
        row("A baker sells twelve loaves each morning. How many coins does he earn in five days?"),
        row("", ""),
        Document(Origin("made", 1), "Nothing of the kind."),
        Conversation(Origin("made", 1), ()),
    ],
)
def test_other_rows_are_not(plain, clean):
    assert plain.hit(clean) is None


def test_thinking_tool_calls_and_system_turns_are_looked_at(plain):
    messages = (
        (Message("system", LONG), Message("user", "x"), Message("assistant", "y")),
        (Message("user", "x"), Message("assistant", "y", thinking=LONG)),
        (Message("user", "x"), Message("assistant", "", tool_calls=({"arguments": {"query": LONG}},))),
        (Message("user", "x"), Message("tool", LONG), Message("assistant", "y")),
    )
    for turns in messages:
        assert kind(plain, Conversation(Origin("made", 1), turns)) == "words"


@settings(max_examples=200)
@given(st.data(), st.integers(1, 15))
def test_a_run_is_found_wherever_it_stands(data, size):
    """Exactly the runs of `size` words, at any offset of row and question."""
    shared = data.draw(st.integers(max(1, size - 2), size + 2))
    question = [f"q{index}" for index in range(40)]
    begin = data.draw(st.integers(0, 40 - shared))
    ahead, behind = data.draw(st.integers(0, 20)), data.draw(st.integers(0, 20))
    text = [f"a{i}" for i in range(ahead)] + question[begin : begin + shared] + [f"b{i}" for i in range(behind)]
    decontaminator = _of([" ".join(question)], words=size, threshold=1.0)
    hit = decontaminator.hit(row("zzz", " ".join(text)))
    assert (hit is not None) == (shared >= size)
    if hit is not None:
        assert hit.excerpt == " ".join(question[begin : begin + shared])


@settings(max_examples=100)
@given(st.integers(8, 40), st.sets(st.integers(0, 39), max_size=5), st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_near_is_decided_by_jaccard(count, edits, threshold):
    question = [f"q{index}" for index in range(count)]
    prompt = [f"x{index}" if index in edits else word for index, word in enumerate(question)]
    decontaminator = _of([" ".join(question)], words=1000, threshold=threshold)
    similar = jaccard(shingles(question, 3), shingles(prompt, 3)) >= threshold
    same = "whole" if not edits & set(range(count)) else "near"
    assert kind(decontaminator, row(" ".join(prompt))) == (same if similar else None)


def _of(questions, **options):
    """A decontaminator of one file in a folder that is gone afterwards."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.jsonl"
        path.write_text("".join(json.dumps({"question": question}) + "\n" for question in questions))
        return Decontaminator(DecontaminateOptions(against=(str(path),), **options))


HEAD = "You are given a question about the world. Think about it step by step, then answer with one word only. "


def test_what_many_questions_share_is_no_hit(against):
    subjects = ["ferns", "glass", "tides", "owls", "steel", "moss"]
    decontaminator = against(*(f"{HEAD} What are {subject} made of?" for subject in subjects))
    assert decontaminator.hit(row(f"{HEAD} Where do penguins live?")) is None
    assert kind(decontaminator, row(f"{HEAD} What are owls made of?")) == "whole"
    assert kind(decontaminator, row(f"Listen. {HEAD} What are owls made of? Be brief, and give me a list.")) == "words"
    few = against(*(f"{HEAD} What are {subject} made of?" for subject in subjects[:3]))
    assert kind(few, row(f"{HEAD} Where do penguins live?")) is not None


def test_questions_of_which_every_run_is_shared_are_looked_for_whole(against):
    parts = [f"w{index}" for index in range(14)]
    decontaminator = against(*(" ".join([*parts, f"end{index}"][index:]) for index in range(2)), " ".join(parts))
    many = against(" ".join(parts), *(" ".join(["x" * (n + 2), *parts, "y" * (n + 2)]) for n in range(6)))
    text = " ".join(["please", *parts, "now", "and", "tell", "me", "what", "you", "see"])
    assert kind(decontaminator, row(text)) == "words"
    assert kind(many, row(text)) == "whole"


def test_numbers_and_signs_alone_are_no_hit(against):
    count = " ".join(map(str, range(1, 40)))
    letters = " ".join("abcdefghijklmnopqrstuvwxyz")
    decontaminator = against(f"Continue this row of numbers for me please: {count}", f"Say the {letters} backwards")
    assert decontaminator.hit(row("Count to forty", count)) is None
    assert decontaminator.hit(row("Recite the alphabet", letters)) is None
    assert kind(decontaminator, row(f"Continue this row of numbers for me please: {count}")) == "whole"


def test_the_nearest_question_is_named(against):
    decontaminator = against(LONG.replace("twelve", "ten"), LONG, LONG.replace("five", "six"))
    assert decontaminator.hit(row(LONG)).origin.line == 2


def test_identity_is_the_content_and_the_options(rows, tmp_path):
    def identity(name, values, **options):
        path = rows(values, name)
        return Decontaminator(DecontaminateOptions(against=(f"set={path}",), **options)).identity()

    first = identity("a.jsonl", [{"question": LONG}])
    assert json.loads(json.dumps(first)) == first
    assert first == identity("b.jsonl", [{"question": LONG, "answer": "x"}])
    assert first != identity("a.jsonl", [{"question": SHORT}])
    assert first != identity("a.jsonl", [{"question": LONG}], words=8)
    assert first != identity("a.jsonl", [{"question": LONG}], threshold=0.7)


# ------------------------------------------------------------------------------------------------- real data


@pytest.fixture(scope="module")
def real(shared_data):
    sets = {
        "gsm8k": "gsm8k_test.jsonl.gz",
        "svamp": "svamp.jsonl.gz",
        "humaneval": "humaneval.jsonl.gz",
        "mbpp": "mbpp_sanitized.jsonl.gz",
        "ifeval": "ifeval_input_data.jsonl.gz",
        "truthfulqa": "truthfulqa.jsonl.gz",
        "user_oriented": "self_instruct_user_oriented.jsonl",
        "vicuna": "vicuna_bench_question.jsonl",
    }
    named = tuple(f"{name}={shared_data / 'eval' / file}" for name, file in sets.items())
    return Decontaminator(DecontaminateOptions(against=named))


def hits(decontaminator, path, prompt, answer):
    with gzip.open(path, "rt") as lines:
        values = map(json.loads, lines)
        found = [decontaminator.hit(row(prompt(value), answer(value))) for value in values]
    return [hit for hit in found if hit is not None]


def test_a_contaminated_set_loses_every_question(shared_data, real):
    path = shared_data / "fixtures" / "llm_adapters_math_data_CONTAMINATED.jsonl.gz"
    found = hits(real, path, lambda value: value["instruction"], lambda value: value["output"])
    questions = {name: {hit.origin for hit in found if hit.set == name} for name in ("gsm8k", "svamp")}
    assert len(questions["gsm8k"]) >= 1055
    assert len(questions["svamp"]) >= 800
    assert 1855 <= len(found) <= 1860


@pytest.mark.parametrize(
    ("file", "prompt", "answer", "most"),
    [
        ("sft/gsm8k_train.jsonl.gz", lambda v: v["question"], lambda v: v["answer"], 6),
        ("sft/natural_instructions_v1_instances.jsonl.gz", lambda v: v["input"], lambda v: "\n".join(v["output"]), 2),
        (
            "sft/alpaca_cleaned_51924.jsonl.gz",
            lambda v: v["instruction"] + "\n" + v["input"],
            lambda v: v["output"],
            10,
        ),
    ],
)
def test_clean_sets_keep_their_rows(shared_data, real, file, prompt, answer, most):
    assert len(hits(real, shared_data / file, prompt, answer)) <= most


def test_every_question_of_every_set_is_found_as_it_is(real):
    """In a prompt of its own, and for those that are long enough within an answer too."""
    for one in real.sets:
        for question in one.questions:
            if question.solution:
                continue
            assert real.hit(row(question.text)) is not None, question
            told = words(question.text)
            if any(real._tells(told[start : start + 13]) for start in range(len(told) - 12)):
                assert real.hit(row("Hello", f"Once more: {question.text} That is all.")) is not None, question
