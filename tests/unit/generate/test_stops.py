"""An answer ends where its text spells a stop string, whatever the borders of its tokens."""

from __future__ import annotations

import pytest

from conftest import CHATML, make_encoder, make_model, make_tokenizer
from tutelage.data.encode import Encoder
from tutelage.errors import RecipeError
from tutelage.generate.chat import Chat
from tutelage.generate.continuation import Continuation
from tutelage.generate.engine import generate
from tutelage.generate.sampling import Sampling
from tutelage.generate.stops import Stops
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.models.tokenizer import chat_tokenizer, load_tokenizer
from tutelage.recipe import ModelOptions
from tutelage.types import Message


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


@pytest.mark.parametrize("metaspace", [None, "always", "first"])
def test_an_answer_keeps_the_space_that_it_begins_with(metaspace, tmp_path):
    """Whatever the tokenizer does with the first space of a text, which the first one of an answer is not."""
    tokenizer = make_encoder(make_tokenizer(tmp_path, metaspace=metaspace)).tokenizer
    answers = [" red", "    return x\n", "red", "\n  a", "é", "", "🙂 ok"]
    ids = [tokenizer._encode_inside(answer) for answer in answers]
    reads = Continuation(tokenizer)
    assert [reads.decode(own) for own in ids] == answers
    if metaspace:
        assert tokenizer.decode(ids[1]) == "   return x\n"
    # One of several bytes that make up a character is no character yet.
    half = tokenizer._encode_inside("é")[:1]
    assert reads.decode(half) == tokenizer.decode(half) == "�"
    assert when(Stops.of([], [" red"], reads), ids[0]) == (len(ids[0]), "")


def test_what_the_engine_hands_out_keeps_its_first_space(tmp_path):
    folder = str(make_model(tmp_path, metaspace="always"))
    forward = prove(load_model(locate(folder)), max_length=64)
    ours = Encoder(*chat_tokenizer(load_tokenizer(locate(folder)), ModelOptions(path=folder))).tokenizer
    space = {id for text, id in ours.backend.get_vocab().items() if text.startswith("▁")}
    prompts, drawn = [[7 + i, 8] for i in range(60)], Sampling(temperature=5.0)
    found = generate(forward, prompts, stop_ids=[], max_new_tokens=2, tokenizer=ours, sampling=drawn)
    begun = [answer for answer in found if answer.input_ids[0] in space]
    assert begun
    assert all(answer.text.startswith(" ") for answer in begun)


def test_talk_without_a_template_keeps_its_first_space(tmp_path):
    """With one, the space after the prompt is the template's, which writes it again before the next turn."""
    for template in (None, CHATML):
        folder = make_model(tmp_path / str(bool(template)), metaspace="always", template=template, seed=1)
        chat, begun = Chat(folder, device="cpu"), []
        for word in ("The", "red", "and", "two", "small", "What", "lazy", "fox"):
            pieces = list(chat.answer([Message("user", word)], max_new_tokens=3))
            begun.append("".join(pieces))
        assert any(text.startswith(" ") for text in begun) == (template is None), begun


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
