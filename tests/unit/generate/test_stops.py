"""An answer ends where its text spells a stop string, whatever the borders of its tokens."""

from __future__ import annotations

import pytest

from tutelage.data.encode import Encoder
from tutelage.errors import RecipeError
from tutelage.generate.engine import generate
from tutelage.generate.stops import Stops
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.models.tokenizer import chat_tokenizer, load_tokenizer
from tutelage.recipe import ModelOptions


class Pieces:
    """A tokenizer whose ids are pieces of text; bytes of a character may lie in several."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    def decode(self, ids):
        return b"".join(self.pieces[id] for id in ids).decode("utf-8", "replace")


def when(stops: Stops, ids: list[int]) -> tuple[int, str] | None:
    """After how many tokens an answer ends, and its text."""
    for end in range(1, len(ids) + 1):
        text = stops.text_before(ids[:end])
        if text is not None:
            return end, text
    return None


def test_a_string_is_found_across_tokens_and_inside_one():
    pieces = Pieces(b"one", b" tw", b"o\n", b"\nQ: thr", b"ee")
    assert when(Stops.of([], ["\n\n"], pieces), [0, 1, 2, 3, 4]) == (4, "one two")
    assert when(Stops.of([], ["two"], pieces), [0, 1, 2, 3, 4]) == (3, "one ")
    assert when(Stops.of([], ["\nQ:", "thr", "zzz"], pieces), [0, 1, 2, 3, 4]) == (4, "one two\n")
    assert when(Stops.of([], ["four"], pieces), [0, 1, 2, 3, 4]) is None
    assert when(Stops.of([], ["one"], pieces), [0, 1]) == (1, "")


def test_a_character_of_several_tokens_is_a_stop_when_it_is_whole():
    pieces = Pieces(b"a", "é".encode()[:1], "é".encode()[1:], "。".encode()[:2], "。".encode()[2:])
    assert when(Stops.of([], ["é"], pieces), [0, 1, 2]) == (3, "a")
    assert when(Stops.of([], ["。"], pieces), [0, 1, 2, 3, 4]) == (5, "aé")


def test_a_string_is_found_far_into_an_answer_and_before_it_only_there():
    pieces = Pieces(b"x", b"E", b"ND")
    assert when(Stops.of([], ["END"], pieces), [0] * 200 + [1, 2, 0]) == (202, "x" * 200)


def test_an_empty_stop_string_is_refused():
    with pytest.raises(RecipeError) as refused:
        Stops.of([], ["ok", ""], Pieces(b"a"))
    assert refused.value.code == "recipe/bad-value"


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_answers_end_before_a_stop_string(tiny_model, family):
    """Also by a model that runs one prompt at a time."""
    folder = str(tiny_model(family))
    forward = prove(load_model(locate(folder)), max_length=64)
    tokenizer = load_tokenizer(locate(folder))
    ours = Encoder(*chat_tokenizer(tokenizer, ModelOptions(path=folder))).tokenizer
    prompts = [[7 + i, 8, 9] for i in range(6)]
    free = generate(forward, prompts, stop_ids=[], max_new_tokens=16, tokenizer=ours)
    assert all(answer.text == ours.decode(answer.input_ids) and not answer.stopped for answer in free)
    # Three characters in the middle of an answer; random models write broken ones too.
    texts = [answer.text for answer in free]
    stop = next(text[i : i + 3] for text in texts for i in range(4, len(text) - 5) if "�" not in text[i : i + 3])
    cut = generate(forward, prompts, stop_ids=[], max_new_tokens=16, tokenizer=ours, stop=[stop])
    for before, after in zip(free, cut, strict=True):
        assert after.stopped == (stop in before.text)
        assert after.text == before.text.partition(stop)[0]
        assert after.input_ids == before.input_ids[: len(after.input_ids)]
        assert len(after.logprobs) == len(after.input_ids)
        if after.stopped:  # Not one token more than spells it.
            assert stop in ours.decode(after.input_ids)
            assert stop not in ours.decode(after.input_ids[:-1])
    assert any(answer.stopped for answer in cut)
