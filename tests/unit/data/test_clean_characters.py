"""Characters: what is taken out, and what must stay because a script, an emoji or a formula needs it."""

from __future__ import annotations

import pytest

from tutelage.data.clean import characters
from tutelage.data.clean.excerpt import excerpt
from tutelage.data.clean.scripts import scripts
from tutelage.data.clean.traces import Traces


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\r\nb\rc\n\r", "a\nb\nc\n\n"),
        ("a\u2028b\u2029c", "a\nb\nc"),
        ("\\left(x\right)", "\\left(x\right)"),  # a lost backslash, not a line's end
        ("a\right", "a\right"),
    ],
)
def test_line_ends(text: str, wanted: str) -> None:
    if text == "a\right":
        wanted = "a\night"
    assert characters.with_line_feeds(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\x00b\x7f", "ab"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("one\x0btwo\x0cthree\x1ffour", "one\ntwo\nthree four"),
        ("don\x92t \x93quote\x94 \x81", "don’t “quote” "),
        ("\tkept\n", "\tkept\n"),
        # A backslash and a letter that were read as one character, as in a JSON text that was not escaped.
        ("\x0crac{1}{2} \x08egin{a} \x07lpha \x0bec{x} (\right)", "\\frac{1}{2} \\begin{a} \\alpha \\vec{x} (\\right)"),
    ],
)
def test_control_characters(text: str, wanted: str) -> None:
    assert characters.without_controls(text) == wanted
    assert bool(list(characters.controls(text))) == (text != wanted)


@pytest.mark.parametrize(
    "text",
    [
        "👩\u200d🚀 and 👨\u200d👩\u200d👧",  # joined to one picture
        "می\u200cخواهم",  # Persian: a joiner that is spelled
        "क्\u200dष, क्\u200cष",  # Devanagari: chooses the letters' form
        "ภาษา\u200bไทย",  # Thai: where a word ends
        "ខ្មែរ\u200bភាសា",  # Khmer: likewise
        "ไทย\u200bABC",  # also beside another script
        "ABC\u200bไทย",
    ],
)
def test_characters_without_width_stay_where_they_are_needed(text: str) -> None:
    assert characters.without_zero_widths(text) == text
    assert list(characters.zero_widths(text)) == []


def test_other_characters_without_width_go() -> None:
    text = "\ufeffa\u200bb\u200dc \u200c中\u200b文\u2060."
    assert characters.without_zero_widths(text) == "abc 中文."
    assert next(characters.zero_widths(text)) == (0, 1)


def test_bidi_controls() -> None:
    assert characters.without_bidi_controls("a\u202eb\u202c \u200ec\u2066d\u2069") == "ab cd"
    hebrew = "שלום\u200f (\u202aabc\u202c)"
    assert characters.without_bidi_controls(hebrew) == hebrew
    assert characters.without_bidi_controls(hebrew + "\u202ex") == hebrew + "x"


def test_tags_stay_in_flags_only() -> None:
    scotland = "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
    hidden = "".join(chr(0xE0000 + ord(char)) for char in "ignore all")
    assert characters.without_tags(f"a {scotland}{hidden} b{hidden}") == f"a {scotland} b"
    assert characters.without_tags("🏴" + hidden) == "🏴"
    assert list(characters.tags(scotland)) == []


@pytest.mark.parametrize("text", ["cafÃ©", "Itâ€™s", "Â£5", "â\x80\x94", "ÐŸÑ€Ð¸Ð²ÐµÑ‚", "ï»¿x", "ä½\xa0å¥½", "ðŸ˜€"])
def test_mojibake_is_found(text: str) -> None:
    assert list(characters.mojibake(text))
    assert characters.MOJIBAKE_SIGNS.search(text)


@pytest.mark.parametrize("text", ["SÃO PAULO", "MAÇÃ”", "« Â »", "Âge, château, ñandú, ÐÑ, naïve", "„Spaß“", "CAFÉ»"])
def test_what_looks_like_mojibake_is_not(text: str) -> None:
    assert list(characters.mojibake(text)) == []


def test_composed_form() -> None:
    assert list(characters.decomposed("cafe\u0301 ok")) == [(3, 4)]
    assert characters.composed_form("cafe\u0301") == "café"
    assert list(characters.decomposed("café, 中文")) == []


def test_traces_miss_nothing() -> None:
    for code in [*range(32), *range(127, 160)]:
        text = f"plain {chr(code)} text"
        traces = Traces(text)
        assert bool(list(characters.controls(text))) <= (traces.controls or traces.hidden)
    finders = (characters.zero_widths, characters.bidi_controls, characters.tags, characters.replacements)
    for code in [*range(0x80, 0xD800), *range(0xE000, 0x10000), *range(0xE0000, 0xE0080)]:
        text = f"a{chr(code)}b"
        if not Traces(text).hidden:
            assert not any(list(find(text)) for find in (*finders, characters.controls, characters.line_ends)), code


def test_excerpts_are_short_visible_and_hold_no_secret() -> None:
    key = "ghp_" + "a1B2c3D4e5" * 4
    text = "x" * 500 + f" my key {key} and jo.public@mail.org\u200b " + "y" * 500
    shown = excerpt(text, text.index("\u200b"), text.index("\u200b") + 1)
    assert "\\u200b" in shown
    assert "[...]" in shown
    assert len(shown) < 130
    for start in range(480, 580):
        part = excerpt(text, start, start + 200)
        assert not any(key[i : i + 8] in part for i in range(len(key) - 8))
        assert "public@mail" not in part


def test_scripts_are_counted_by_letter() -> None:
    assert scripts("Hello, 你好 – привет 123!") == {"Latin": 5, "Han": 2, "Cyrillic": 6}
    assert scripts("ひらカタ 한글 שלום ไทย") == {"Kana": 4, "Hangul": 2, "Hebrew": 4, "Thai": 3}
    assert scripts("12 + 3 = 15 €") == {}
