"""Foreign text is visible, short and escaped; numbers are quick to read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup, escape

from tutelage.report import text

any_text = st.text(st.characters(), max_size=200)


@pytest.mark.parametrize("code", [0x202E, 0x2066, 0x200B, 0xFEFF, 0x00, 0x1B, 0x7F, 0x85, 0xD800, 0xE0041, 0xE000])
def test_unseen_characters_are_spelled_out(code: int) -> None:
    assert text.visible(f"a{chr(code)}b") == f"a⟨U+{code:04X}⟩b"


def test_ordinary_text_is_left_alone() -> None:
    ordinary = "Line one\n\tline two — «naïve» 你好 שלום 👩\u200d💻"
    assert text.visible(ordinary) == ordinary


def test_blanks_of_a_token_are_shown() -> None:
    assert text.visible_token(" a\n\tb\xa0") == "·a↵\n⇥b⟨U+00A0⟩"
    assert text.visible_token("") == "∅"


@given(any_text, st.integers(0, 60))
def test_cut_loses_nothing_without_saying_so(original: str, limit: int) -> None:
    shown, more = text.cut(original, limit)
    assert len(shown) <= limit
    assert 0 <= more <= len(original)
    assert shown == text.visible(original[: len(original) - more])
    shown.encode("utf-8")


def test_cut_keeps_a_text_of_just_the_limit() -> None:
    assert text.cut("x" * 4000) == ("x" * 4000, 0)
    assert text.cut("x" * 4001) == ("x" * 4000, 1)


def test_differing_words_are_marked() -> None:
    marked, same, words = text.mark_differences("Half past ten & later", "Half past nine & later")
    assert marked == Markup("Half past <mark>ten</mark> &amp; later")
    assert (same, words) == (4, 5)


def test_neighbouring_words_share_one_mark_and_spacing_survives() -> None:
    marked, same, _ = text.mark_differences("Sure!  Here\nit is: 42 ", "42")
    assert marked == Markup("<mark>Sure!  Here\nit is:</mark> 42 ")
    assert same == 1


def test_equal_texts_of_one_repeated_word_have_no_mark() -> None:
    marked, same, words = text.mark_differences("a " * 900, "a " * 900)
    assert "<mark>" not in marked
    assert same == words == 900


@given(any_text, any_text)
def test_marks_change_nothing_but_the_marks(answer: str, reference: str) -> None:
    marked, same, words = text.mark_differences(answer, reference)
    plain = str(marked).replace("<mark>", "").replace("</mark>", "")
    assert plain == str(escape(text.visible(answer)))
    assert same <= words == len(reference.split())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2e-5, "2e-5"),
        (0.0, "0"),
        (1240, "1,240"),
        (0.125, "0.125"),
        (-1.5, "−1.5"),
        (1e7, "1e7"),
        (None, "–"),
        (2, "2"),
    ],
)
def test_brief(value: float | None, said: str) -> None:
    assert text.brief(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(4.06, "4.1 s"), (59.99, "1 min 00 s"), (187.3, "3 min 07 s"), (7500, "2 h 05 min"), (None, "–"), (0, "0.0 s")],
)
def test_duration(seconds: float | None, said: str) -> None:
    assert text.duration(seconds) == said


@pytest.mark.parametrize(
    ("amount", "said"), [(0, "0 B"), (1023, "1023 B"), (9100, "8.89 KiB"), (2.73e9, "2.54 GiB"), (None, "–")]
)
def test_size(amount: float | None, said: str) -> None:
    assert text.size(amount) == said


def test_signed() -> None:
    assert [text.signed(value) for value in (0.41, -0.41, 0.0, None)] == ["+0.410", "−0.410", "0.000", "–"]


@pytest.mark.parametrize(
    ("value", "key", "said"),
    [
        (True, "", "true"),
        (None, "", "not given"),
        (2048, "memory_bytes", "2.00 KiB"),
        (90, "seconds", "1 min 30 s"),
        (float("nan"), "x", "nan"),
        (2e-4, "", "2e-4"),
        ([{"path": "ü"}], "", '[{"path": "ü"}]'),
    ],
)
def test_setting(value: object, key: str, said: str) -> None:
    assert text.setting(value, key) == said
