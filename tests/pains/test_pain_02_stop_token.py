"""The stop token: every answer has exactly one that is trained, and a model trained on short answers stops."""

from __future__ import annotations

import pytest

from conftest import (
    REFUSED_TEMPLATES,
    STOPS,
    TEMPLATES,
    make_encoder,
    make_model,
    make_template_tokenizer,
    template_source,
)
from conftest import supervised_spans as spans_of
from tutelage import commands
from tutelage.data.batch import pack
from tutelage.errors import ModelError
from tutelage.generate.chat import Chat
from tutelage.types import Completion, Conversation, Document, Message, Origin

SUPPORTED = [name for name in TEMPLATES if name not in REFUSED_TEMPLATES]


def dialogue(*texts: str, line: int = 1) -> Conversation:
    roles = ("user", "assistant") * len(texts)
    return Conversation(Origin("made", line), tuple(map(Message, roles, texts)))


@pytest.mark.parametrize("name", SUPPORTED)
def test_every_answer_has_exactly_one_trained_stop_token(name, tmp_path):
    tokenizer = make_template_tokenizer(tmp_path, name)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    stop = tokenizer.convert_tokens_to_ids(STOPS.get(name, tokenizer.eos_token))
    encoder = make_encoder(tokenizer)
    rows = [dialogue("a", "b"), dialogue("What is it?", "Long " * 30, "And?", "Short.", line=2)]
    examples = [example for row in encoder.encode(rows, max_length=10_000) for example in row]
    spans = [span for example in examples for span in spans_of(example)]
    assert len(spans) == 3
    assert all(span.count(stop) == 1 and span[-1] == stop for span in spans)
    assert encoder.stop_ids == {stop: 3}


def test_padding_is_never_trained_because_there_is_none(tmp_path):
    encoder = make_encoder(make_template_tokenizer(tmp_path, "chatml"))
    rows = [dialogue("a", "b"), dialogue("What is it?", "Long " * 30, line=2)]
    examples = [example for row in encoder.encode(rows, max_length=10_000) for example in row]
    batch = pack(examples)
    assert batch.tokens == sum(map(len, examples))
    assert len(batch.targets) == sum(example.supervised for example in examples)


@pytest.mark.parametrize("eos", ["<|endoftext|>", "<|user|>"])
def test_a_template_that_leaves_the_stop_token_to_the_next_turn_is_refused(eos, tmp_path, rows):
    options = {**TEMPLATES["glm"], "template": template_source("glm"), "eos": eos}
    path = rows([{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 3)
    recipe = {
        "model": {"path": str(make_model(tmp_path / "model", **options))},
        "data": {"train": [{"path": str(path)}], "max_length": 100},
        "output": str(tmp_path / "run"),
    }
    with pytest.raises(ModelError) as caught:
        commands.train(recipe)
    assert caught.value.code == "template/no-stop-token"
    assert f"expected {eos!r}" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_template_that_forgets_the_stop_token_after_some_answers_is_refused_by_row(tmp_path):
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
        "{% if m.content != 'b' %}{{ '<|im_end|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    encoder = make_encoder(make_template_tokenizer(tmp_path, "chatml", template=source))
    good, bad, thinking = encoder.encode(
        [dialogue("a", "c"), dialogue("a", "b", line=2), dialogue("a", "<think>x</think>b", line=3)], max_length=100
    )
    assert good[0].supervised == 2
    assert (bad.code, bad.where) == ("template/no-stop-token", "made:2")
    assert thinking[0].input_ids[-1] == encoder.template_stop_id


def test_plain_text_ends_with_the_end_of_sequence_token(tmp_path):
    tokenizer = make_template_tokenizer(tmp_path, "alpaca", template=None)
    encoder = make_encoder(tokenizer)
    texts = [Completion(Origin("made", 1), "Q: a\nA:", " b"), Document(Origin("made", 2), "A text.")]
    for [example] in encoder.encode(texts, max_length=100):
        assert spans_of(example)[0][-1] == tokenizer.eos_token_id
        assert example.input_ids.tolist().count(tokenizer.eos_token_id) == 1


def test_after_training_on_short_answers_generation_stops_by_itself(tmp_path, rows, one_thread):
    asked = [f"Word {number}?" for number in range(20)]
    path = rows(
        [
            {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": f"It is {n % 7}."}]}
            for n, q in enumerate(asked)
        ]
    )
    recipe = {
        "model": {"path": str(make_model(tmp_path / "model")), "adapter": {"kind": "full"}, "device": "cpu"},
        "data": {"train": [{"path": str(path)}], "heldout": 0, "max_length": 64},
        "train": {"epochs": 12, "global_batch_size": 4, "learning_rate": 0.01},
        "evaluate": {"points": 0, "samples": 0},
        "output": str(tmp_path / "run"),
    }
    commands.train(recipe)
    chat = Chat(tmp_path / "run", device="cpu")
    stopped = 0
    for question in asked:
        answer = "".join(chat.answer([Message("user", question)], max_new_tokens=32))
        stopped += chat.stopped and answer.startswith("It is")
    assert stopped >= 19
