"""The split: a pure function of the prompt, with the share that was asked for."""

from __future__ import annotations

import math
import re

from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.split import keys, normal, position, prompt_key
from tutelage.types import Completion, Conversation, Document, Message, Origin


def row(*turns: str, line: int = 1, answer: str = "x") -> Conversation:
    messages = [m for text in turns for m in (Message("user", text), Message("assistant", answer))]
    return Conversation(Origin("made", line), tuple(messages))


@given(st.text(), st.floats(0, 1, exclude_max=True))
def test_a_side_depends_on_the_prompt_alone(text, share):
    key = prompt_key(row(text))
    again = prompt_key(row(text, line=99, answer="another answer"))
    assert key == again
    assert (position(key) < share) == (position(again) < share)
    assert 0 <= position(key) < 1


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_the_short_way_for_ascii_is_the_long_way(text):
    words = re.sub(r"\W+", " ", text.casefold()).strip()
    assert normal(text) == (words or text)


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_keeps_what_a_smaller_one_held_out(text, one, other):
    key = prompt_key(row(text))
    assert position(key) < max(one, other) or position(key) >= min(one, other)


def test_the_share_is_within_binomial_bounds():
    count = 20_000
    keys = [prompt_key(row(f"Question {n}?")) for n in range(count)]
    for share in (0.01, 0.05, 0.3, 0.9):
        held = sum(position(key) < share for key in keys)
        assert abs(held - share * count) < 5 * math.sqrt(count * share * (1 - share))


def test_spelling_that_means_the_same_is_the_same_prompt():
    one = prompt_key(row("What is 2 plus 2?"))
    assert one == prompt_key(row("  what IS 2\n plus 2 ")) == prompt_key(row("What is ２ plus 2!"))
    assert one != prompt_key(row("What is 2 plus 3?"))


def test_vowel_signs_are_part_of_a_word():
    assert prompt_key(row("\u0915\u093f")) != prompt_key(row("\u0915\u0940"))
    assert normal("\u0915\u093f, \u0915\u0940!") == "\u0915\u093f \u0915\u0940"


def test_prompts_of_signs_alone_differ_by_their_signs():
    assert prompt_key(row("+")) != prompt_key(row("-"))


def test_every_user_turn_counts_and_their_borders_too():
    assert prompt_key(row("a", "b")) != prompt_key(row("a", "c"))
    assert prompt_key(row("a", "b")) != prompt_key(row("a b"))


def test_all_kinds_of_rows_have_a_key():
    origin = Origin("made", 1)
    assert prompt_key(Completion(origin, "Ask", "x")) == prompt_key(row("ask"))
    assert prompt_key(Document(origin, "Ask")) == prompt_key(row("ask"))
    opening = Conversation(origin, (Message("assistant", "Hello!"),))
    assert prompt_key(opening) == prompt_key(row("hello"))
    assert 0 <= prompt_key(row("\ud800")) < 2**64


def pair_key(row):
    return keys(row)[1]


def test_the_keys_of_a_row_begin_with_that_of_its_prompt():
    assert keys(row("Ask.", "And?"))[0] == prompt_key(row("Ask.", "And?"))


def test_a_pair_is_the_prompt_and_its_answer():
    assert pair_key(row("Ask.", answer="Yes,  it is.")) == pair_key(row("ask", answer="Yes, it\nis."))
    assert pair_key(row("Ask.", answer="Yes")) != pair_key(row("Ask.", answer="yes"))
    assert pair_key(row("a", answer="b c")) != pair_key(row("a b", answer="c"))
