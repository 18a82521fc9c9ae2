"""The loss mask: what is trained is the answers and their stop tokens, on every template, and nothing else."""

from __future__ import annotations

import pytest

from conftest import REFUSED_TEMPLATES, STOPS, TEMPLATES, make_encoder, make_model, make_template_tokenizer
from conftest import supervised_spans as spans_of
from tutelage import commands
from tutelage.errors import DataError
from tutelage.types import Conversation, Message, Origin

SUPPORTED = [name for name in TEMPLATES if name not in REFUSED_TEMPLATES]
ANSWERS = ["Hello!\nHow are you?", "See you."]
DIALOGUE = Conversation(
    Origin("made", 1),
    (
        Message("user", "Hi there"),
        Message("assistant", ANSWERS[0]),
        Message("user", "Goodbye, said the assistant"),
        Message("assistant", ANSWERS[1]),
    ),
)
# What a template writes of its own between the opening of the turn and the answer.
OPENINGS = {
    "qwen3": "<think>\n\n</think>\n\n",
    "deepseek_r1": "\n</think>\n\n",
    "llama2": " ",
    "mistral": " ",
    "vicuna": " ",
}
CLOSINGS = {"llama2": " "}


def supervised(name, folder, conversation=DIALOGUE, **options):
    """The decoded trained spans of a conversation, in order, and the stop token's text."""
    tokenizer = make_template_tokenizer(folder, name, **options)
    examples = next(iter(make_encoder(tokenizer).encode([conversation], max_length=10_000)))
    spans = [tokenizer.decode(span) for example in examples for span in spans_of(example)]
    return spans, STOPS.get(name, tokenizer.eos_token)


@pytest.mark.parametrize("metaspace", [None, "first", "always"])
@pytest.mark.parametrize("name", SUPPORTED)
def test_the_trained_tokens_are_the_answers_and_their_stop_tokens(name, metaspace, tmp_path):
    spans, stop = supervised(name, tmp_path, metaspace=metaspace)
    expected = [OPENINGS.get(name, "") + answer + CLOSINGS.get(name, "") + stop for answer in ANSWERS]
    if metaspace == "always":  # This kind writes a space after every control token, at training and serving alike.
        spans, expected = [s.replace(" ", "") for s in spans], [e.replace(" ", "") for e in expected]
    assert [span.removeprefix(" ") if metaspace else span for span in spans] == [
        e.removeprefix(" ") if metaspace else e for e in expected
    ]


@pytest.mark.parametrize("name", ["chatml", "alpaca", "phi3"])
@pytest.mark.parametrize("answer", ["\n\nBegins with a line break", "Ends with one\n", "  spaces  "])
def test_no_token_straddles_the_start_of_an_answer(name, answer, tmp_path):
    conversation = Conversation(Origin("made", 1), (Message("user", "Hi\n"), Message("assistant", answer)))
    spans, stop = supervised(name, tmp_path, conversation)
    assert spans == [answer + stop]


def test_the_weights_are_those_of_the_turns_times_the_row(tmp_path):
    messages = (
        Message("user", "a"),
        Message("assistant", "b", 0.0),
        Message("user", "c"),
        Message("assistant", "d", 0.5),
    )
    encoder = make_encoder(make_template_tokenizer(tmp_path, "chatml"))
    [example] = next(iter(encoder.encode([Conversation(Origin("made", 1), messages, 3.0)], max_length=100)))
    assert set(example.weights.tolist()) == {0.0, 1.5}
    assert encoder.tokenizer.decode(example.input_ids[example.weights > 0]) == "d<|im_end|>"


def test_a_row_without_a_trained_token_refuses_the_run_and_is_named(tmp_path, rows):
    good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    bad = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}
    path = rows([good] * 6 + [bad] + [good])
    recipe = {
        "model": {"path": str(make_model(tmp_path / "model"))},
        "data": {"train": [{"path": str(path)}], "max_length": 100},
        "output": str(tmp_path / "run"),
    }
    with pytest.raises(DataError) as caught:
        commands.train(recipe)
    assert caught.value.code == "data/nothing-trained"
    assert f"{path}:7" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_preview_shows_the_trained_text_and_the_trained_share(tmp_path, rows):
    good = {"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "Yes é."}]}
    recipe = {
        "model": {"path": str(make_model(tmp_path / "model"))},
        "data": {"train": [{"path": str(rows([good] * 4))}], "max_length": 100, "heldout": 0},
        "output": str(tmp_path / "run"),
    }
    prepared, shown = commands.preview(recipe)
    for row in shown:
        tokens = row.coloured()["tokens"]
        assert "".join(text for text, weight in tokens if weight) == "Yes é.<|im_end|>"
        assert "".join(text for text, weight in tokens if not weight).endswith("a b<|im_end|>\n<|im_start|>assistant\n")
    tokens = prepared.describe()["tokens"]
    assert tokens["supervised"] == sum(e.supervised for e in prepared.train) < tokens["train"]
