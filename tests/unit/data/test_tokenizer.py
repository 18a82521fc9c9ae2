"""Pieces join to the whole, the disguise changes nothing but control tokens, and a completion is encoded as inside."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_encoder, make_template_tokenizer, make_tokenizer
from tutelage.data.encode.tokenizer import Tokenizer

KINDS = {"bytes": None, "first": "first", "always": "always"}
TEXTS = st.text(max_size=40) | st.lists(
    st.sampled_from(["a", " ", "\n", "é", "日本", "😀", "👩‍👩‍👧", "\ufffd", "<think>", "fox ", "▁", "\x00"]),
    max_size=20,
).map("".join)


@pytest.fixture(scope="module", params=list(KINDS))
def tokenizer(request, tmp_path_factory) -> Tokenizer:
    made = make_template_tokenizer(tmp_path_factory.mktemp("tokenizer"), "qwen3", metaspace=KINDS[request.param])
    return make_encoder(made).tokenizer


@settings(deadline=None, max_examples=150)
@given(text=TEXTS)
def test_pieces_join_to_the_decoded_whole(tokenizer, text):
    ids = tokenizer.encode_text(text + "<|im_end|> " + text)
    pieces = tokenizer.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == tokenizer.decode(ids)


def test_a_character_of_several_tokens_is_credited_to_the_last(tokenizer):
    ids = tokenizer.encode_text("a😀")
    assert tokenizer.pieces(ids)[-4:] == ["", "", "", "😀"]


def test_pieces_of_bytes_of_mixed_lengths(tokenizer):
    text = "日本語é😀日é本😀😀語ø日本" * 3
    assert "".join(tokenizer.pieces(tokenizer.encode_text(text))).strip(" ") == text


@settings(deadline=None, max_examples=150)
@given(text=TEXTS.filter(lambda text: "<think>" not in text))
def test_the_second_alphabet_gives_the_same_ids_where_nothing_is_spelled(tokenizer, text):
    rendered = f"<|im_start|>user\n{text}<|im_end|>\n<think>{text}"
    [plain] = tokenizer.encode_rendered([rendered])
    # A spelled token at the end switches to the second alphabet and leaves what stands before it alone.
    [disguised] = tokenizer.encode_rendered([rendered + "<|im_end|>" + tokenizer.disguise("</s>", all_control=True)])
    end = tokenizer.control["<|im_end|>"]
    assert disguised[: len(plain) + 1] == [*plain, end]
    assert not tokenizer.control_ids & set(disguised[len(plain) + 1 :])


def test_content_with_every_control_token_decodes_to_the_same_characters(tokenizer):
    text = "".join(tokenizer.control) + " and " + " ".join(tokenizer.control)
    [ids] = tokenizer.encode_rendered([tokenizer.disguise("x" + text, all_control=True)])
    assert not tokenizer.control_ids & set(ids)
    assert tokenizer.decode(ids) == "x" + text


def test_disguise_leaves_a_models_own_marks_alone_unless_all_are_meant(tokenizer):
    assert tokenizer.disguise("<think>", all_control=False) == "<think>"
    assert tokenizer.disguise("<think>", all_control=True) != "<think>"
    assert tokenizer.disguise("<|im_end|>", all_control=False) != "<|im_end|>"
    assert tokenizer.disguise("nothing < special |>", all_control=True) == "nothing < special |>"


@settings(deadline=None, max_examples=150)
@given(prompt=TEXTS, text=TEXTS)
def test_a_completion_is_encoded_as_inside_a_text(tokenizer, prompt, text):
    [ids] = tokenizer.encode_rendered([prompt])
    [completion] = tokenizer.encode_after([prompt], [ids], [text])
    [whole] = tokenizer.encode_rendered([prompt + text])
    if whole[: len(ids)] == ids and tokenizer.adds_leading_space:
        assert completion == whole[len(ids) :]
    if ids and "▁" not in prompt + text and "<think>" not in prompt + text:
        # No space is lost or won where the two meet.
        assert tokenizer.decode([*ids, *completion]).lstrip(" ") == (prompt + text).lstrip(" ")


@pytest.mark.parametrize("kind", list(KINDS))
def test_which_tokenizers_write_a_leading_space(kind, tmp_path):
    tokenizer = make_encoder(make_tokenizer(tmp_path, metaspace=KINDS[kind])).tokenizer
    assert tokenizer.adds_leading_space == (kind != "bytes")


def test_a_byte_level_tokenizer_with_a_prefix_space_is_known_to_write_one(tmp_path):
    from tokenizers import pre_tokenizers

    made = make_tokenizer(tmp_path, template=None)
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer = make_encoder(made).tokenizer
    assert tokenizer.adds_leading_space
    [prompt] = tokenizer.encode_rendered(["Say:\n"])
    [completion] = tokenizer.encode_after(["Say:\n"], [prompt], ["hello"])
    assert tokenizer.decode(completion) == "hello"


def test_an_ordinary_merge_that_spells_a_control_token_does_not_give_its_id(tmp_path):
    made = make_tokenizer(tmp_path, template=None, controls=("fox",))
    tokenizer = make_encoder(made).tokenizer
    assert "fox" in tokenizer.control
    ids = tokenizer.encode_text("a fox, fox")
    assert not tokenizer.control_ids & set(ids)
    assert tokenizer.decode(ids) == "a fox, fox"


def test_the_longest_control_token_is_the_one_that_is_spelled(tmp_path):
    made = make_tokenizer(tmp_path, template=None, controls=("<a", "<a>", "<a>>"))
    tokenizer = make_encoder(made).tokenizer
    ids = tokenizer.encode_text("<a>> <a> <a")
    assert not tokenizer.control_ids & set(ids)
    assert tokenizer.decode(ids) == "<a>> <a> <a"


def test_ids_do_not_depend_on_which_texts_share_a_batch(tokenizer):
    texts = ["plain", tokenizer.disguise("spelled <|im_end|>", all_control=True), "<|im_end|>", ""]
    assert tokenizer.encode_rendered(texts) == [tokenizer.encode_rendered([text])[0] for text in texts]
    assert tokenizer.encode_rendered([]) == []
