"""Conversations, completions and plain text as ids and weights, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import tokenizers

from conftest import make_encoder, make_template_tokenizer, make_tokenizer
from conftest import supervised_spans as spans_of
from tutelage.data.encode import OverLong
from tutelage.data.show import PreviewRow
from tutelage.errors import ModelError, Problem
from tutelage.types import Completion, Conversation, Document, Message, Origin

MADE = Origin("made.jsonl", 4)


def conversation(*messages: Message, **more) -> Conversation:
    return Conversation(MADE, messages, **more)


def user(text: str) -> Message:
    return Message("user", text)


def answer(text: str, weight: float | None = None) -> Message:
    return Message("assistant", text, weight)


@pytest.fixture(scope="module")
def chatml(tmp_path_factory):
    tokenizer = make_template_tokenizer(tmp_path_factory.mktemp("chatml"), "chatml")
    return lambda: make_encoder(tokenizer)


def one(encoder, row, **more):
    return next(iter(encoder.encode([row], **{"max_length": 10_000, **more})))


def test_turns_share_one_sequence_and_the_prompt_length_is_that_of_the_first(chatml):
    encoder = chatml()
    [example] = one(encoder, conversation(user("a"), answer("b"), user("c"), answer("d")))
    assert example.prompt_length == len(encoder.prompt_ids([user("a")]))
    assert [encoder.tokenizer.decode(span) for span in spans_of(example)] == ["b<|im_end|>", "d<|im_end|>"]
    assert example.origin == MADE
    assert example.input_ids.dtype == np.int32
    assert encoder.stop_ids == {encoder.template_stop_id: 2}


def test_the_last_answer_ends_the_sequence(chatml):
    [example] = one(chatml(), conversation(user("a"), answer("b"), user("never seen"), answer("c", 0.0)))
    assert chatml().tokenizer.decode(example.input_ids).endswith("assistant\nb<|im_end|>")


def test_weights_below_one_are_kept_and_their_ends_are_stops(chatml):
    encoder = chatml()
    [example] = one(encoder, conversation(user("a"), answer("b", 0.25), user("c"), answer("d", 2.0), weight=2.0))
    assert sorted(set(example.weights.tolist())) == [0.0, 0.5, 4.0]
    assert encoder.stop_ids == {encoder.template_stop_id: 2}


PATIENT, HOPELESS = "a" * 10 + "b", "a" * 40 + "b"


@pytest.mark.parametrize(
    "row",
    [
        lambda text: conversation(user("Go on."), answer(text)),
        lambda text: conversation(user(text), answer("No."), user("Why?"), answer("So.")),
        lambda text: Completion(MADE, text, " and so on"),
        lambda text: Document(MADE, text),
    ],
)
@pytest.mark.parametrize("batch", [1, 2, 512])
def test_a_text_that_the_tokenizer_gives_up_on_is_a_problem_of_its_row_alone(chatml, tmp_path, row, batch):
    """Its pattern needs exponentially many tries, and the library stops it."""
    backend = tokenizers.Tokenizer.from_str(chatml().tokenizer.backend.to_str())
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex("(a+)+$"), "isolated")
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, backend.pre_tokenizer])
    encoder = chatml()
    encoder.tokenizer.backend = backend
    first, problem, last = encoder.encode([row(PATIENT), row(HOPELESS), row(PATIENT)], max_length=1000, batch=batch)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.where) == ("data/not-encoded", "made.jsonl:4")
    assert len(first) == len(last) >= 1
    for one, other in zip(first, last, strict=True):
        assert one.input_ids.tolist() == other.input_ids.tolist()
        assert "aaaaaaaaaab" in encoder.tokenizer.decode(one.input_ids)


@pytest.mark.parametrize(
    "row", [conversation(user("a"), answer("b", 0.0)), conversation(user("a"), answer("b"), weight=0.0)]
)
def test_a_row_with_nothing_to_train_is_a_problem(chatml, row):
    problem = one(chatml(), row)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.where) == ("data/nothing-trained", "made.jsonl:4")


def test_a_row_longer_than_the_limit_says_how_long_and_one_at_the_limit_stays(chatml):
    row = conversation(user("a"), answer("b " * 50))
    [example] = one(chatml(), row)
    encoder = chatml()
    assert one(encoder, row, max_length=len(example) - 1) == OverLong(MADE, len(example))
    assert not encoder.stop_ids
    [same] = one(encoder, row, max_length=len(example))
    assert same.input_ids.tolist() == example.input_ids.tolist()


def test_a_conversation_that_begins_with_an_answer_trains_it_after_the_generation_prompt(chatml):
    encoder = chatml()
    [example] = one(encoder, conversation(answer("Welcome!"), user("a"), answer("b")))
    assert encoder.tokenizer.decode(example.input_ids[: example.prompt_length]) == "<|im_start|>assistant\n"
    assert len(spans_of(example)) == 2


def test_a_template_that_needs_a_first_message_refuses_an_opening_answer_by_row(tmp_path):
    problem = one(make_encoder(make_template_tokenizer(tmp_path, "qwen3")), conversation(answer("Welcome!")))
    assert (problem.code, problem.where) == ("template/broken", "made.jsonl:4")
    assert "begins with an answer" in problem.found


def test_a_bad_row_does_not_disturb_its_neighbours(tmp_path):
    encoder = make_encoder(make_template_tokenizer(tmp_path, "gemma"))
    good = conversation(user("a"), answer("b"))
    bad = conversation(user("a"), user("c"), answer("b"))
    results = list(encoder.encode([good, bad, good] * 3, max_length=1000, batch=2))
    assert [isinstance(result, Problem) for result in results] == [False, True, False] * 3
    assert encoder.stop_ids.total() == 6


def test_a_conversation_for_a_model_without_a_template_is_refused(tmp_path):
    encoder = make_encoder(make_tokenizer(tmp_path, template=None))
    with pytest.raises(ModelError) as caught:
        one(encoder, conversation(user("a"), answer("b")))
    assert caught.value.code == "template/missing"
    assert "made.jsonl:4" in str(caught.value)
    assert "model.template=alpaca" in str(caught.value)


@pytest.mark.parametrize("metaspace", [None, "first", "always"])
@pytest.mark.parametrize(
    ("prompt", "completion"),
    [("Q: a\nA:", " b"), ("Q: a\nA: ", "b"), ("Q\n", "\nb"), ("### Response:\n", "Hello 😀\n")],
)
def test_a_completion_keeps_its_characters_and_its_prompt_keeps_its_ids(prompt, completion, metaspace, tmp_path):
    tokenizer = make_tokenizer(tmp_path, template=None, eos="</s>", bos="<s>", metaspace=metaspace)
    encoder = make_encoder(tokenizer)
    [example] = one(encoder, Completion(MADE, prompt, completion, 0.5))
    assert example.input_ids[: example.prompt_length].tolist() == tokenizer(prompt)["input_ids"]
    decoded = tokenizer.decode(example.input_ids)
    assert decoded.removeprefix("<s>").removeprefix(" ") == prompt + completion + "</s>"
    assert set(example.weights[example.prompt_length :].tolist()) == {0.5}


def test_plain_text_is_trained_from_its_first_token_that_has_one_before(tmp_path):
    tokenizer = make_tokenizer(tmp_path, template=None, eos="</s>", bos="<s>")
    [example] = one(make_encoder(tokenizer), Document(MADE, "A text.", 2.0))
    assert example.input_ids.tolist() == [*tokenizer("A text.")["input_ids"], tokenizer.eos_token_id]
    assert example.weights.tolist() == [0.0] + [2.0] * (len(example) - 1)


def test_plain_text_needs_an_end_of_sequence_token(tmp_path):
    tokenizer = make_tokenizer(tmp_path, template=None)
    tokenizer.eos_token = None
    problem = one(make_encoder(tokenizer), Document(MADE, "A text."))
    assert problem.code == "template/no-stop-token"


def test_batches_do_not_change_what_is_encoded(chatml):
    rows = [conversation(user(f"a{n}"), answer("b " * n)) for n in range(1, 8)]
    whole = [e.input_ids.tolist() for [e] in chatml().encode(rows, max_length=1000)]
    for batch in (1, 3, 7):
        assert [e.input_ids.tolist() for [e] in chatml().encode(rows, max_length=1000, batch=batch)] == whole
    assert list(chatml().encode([], max_length=10)) == []


def test_a_preview_row_pairs_each_piece_with_its_weight(chatml):
    encoder = chatml()
    [example] = one(encoder, conversation(user("é"), answer("😀")))
    row = PreviewRow(example, "train", encoder.tokenizer.pieces(example.input_ids.tolist()))
    tokens = row.coloured()["tokens"]
    assert "".join(text for text, _ in tokens) == encoder.tokenizer.decode(example.input_ids)
    assert "".join(text for text, weight in tokens if weight) == "😀<|im_end|>"
    assert row.as_json()["origin"] == {"file": "made.jsonl", "line": 4}
