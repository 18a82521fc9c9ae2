"""BOS: as many as the model's own reference call gives, for chats and for plain text.

The exported GGUF file is not covered: GGUF export is not built yet.
"""

from __future__ import annotations

import pytest

from conftest import (
    REFUSED_TEMPLATES,
    TEMPLATES,
    make_encoder,
    make_model,
    make_template_tokenizer,
    make_tokenizer,
    template_source,
)
from tutelage.data.dataset import prepare
from tutelage.evaluate.samples import questions
from tutelage.generate.chat import Chat
from tutelage.recipe import DataOptions
from tutelage.types import Completion, Conversation, Document, Message, Origin

SUPPORTED = [name for name in TEMPLATES if name not in REFUSED_TEMPLATES]
MADE = Origin("made", 1)


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_chat_has_the_bos_tokens_of_its_template(name, tmp_path):
    tokenizer = make_template_tokenizer(tmp_path, name)
    encoder = make_encoder(tokenizer)
    messages = [Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", "Bye")]
    mappings = [{"role": m.role, "content": m.content} for m in messages]
    reference = tokenizer.apply_chat_template(mappings, add_generation_prompt=True, return_dict=False)
    ids = encoder.prompt_ids(messages)
    assert ids == reference
    if tokenizer.bos_token is not None:
        bos = tokenizer.bos_token_id
        # llama2 opens every turn with one; the vicuna and zephyr forms write none at all.
        assert ids.count(bos) == {"llama2": 2, "vicuna": 0}.get(name, 1)
        [example, *_] = next(iter(encoder.encode([Conversation(MADE, (messages[0], messages[1]))], max_length=100)))
        assert example.input_ids.tolist().count(bos) == {"vicuna": 0}.get(name, 1)


@pytest.mark.parametrize("metaspace", [None, "first", "always"])
@pytest.mark.parametrize("bos", [None, "<s>"])
def test_plain_text_has_the_bos_tokens_of_the_tokenizer(bos, metaspace, tmp_path):
    tokenizer = make_tokenizer(tmp_path, template=None, bos=bos, eos="</s>", metaspace=metaspace)
    encoder = make_encoder(tokenizer)
    text = "Q: two plus two?\nA:"
    reference = tokenizer(text)["input_ids"]
    assert encoder.tokenizer.encode_text(text) == reference
    assert bos is None or reference.count(tokenizer.bos_token_id) == 1
    [row] = next(iter(encoder.encode([Completion(MADE, text, " Four.")], max_length=100)))
    assert row.input_ids[: row.prompt_length].tolist() == reference
    assert row.input_ids.tolist() == [*tokenizer(text + " Four.")["input_ids"], tokenizer.eos_token_id]
    [document] = next(iter(encoder.encode([Document(MADE, text)], max_length=100)))
    assert document.input_ids.tolist() == [*reference, tokenizer.eos_token_id]


def test_a_tokenizer_that_adds_both_ends_opens_with_bos_alone(tmp_path):
    from tokenizers import processors

    tokenizer = make_tokenizer(tmp_path, template=None, eos="</s>")
    ends = [("<s>", tokenizer.convert_tokens_to_ids("<s>")), ("</s>", tokenizer.convert_tokens_to_ids("</s>"))]
    for single, opening in [("<s> $A </s>", ["<s>"]), ("</s> $A </s>", ["</s>"]), ("$A </s>", [])]:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)
        assert make_encoder(tokenizer).tokenizer.opening == tokenizer.convert_tokens_to_ids(opening)


def test_sampling_and_evaluation_send_the_same_prompt_as_training(tmp_path, rows, monkeypatch):
    folder = make_model(tmp_path / "model", template=template_source("llama3"), **TEMPLATES["llama3"])
    chat = Chat(folder, device="cpu")
    path = rows([{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}])
    other = rows(
        [{"messages": [{"role": "user", "content": "Yo"}, {"role": "assistant", "content": "Hello!"}]}], "b.jsonl"
    )
    options = DataOptions.model_validate(
        {"train": [{"path": str(other)}], "heldout": {"path": str(path)}, "store": f"{tmp_path}/tokens"}
    )
    data = prepare(options, chat.encoder)
    [asked] = questions(data, chat.encoder.tokenizer, list(data.stop_ids), 5)
    sent = []
    monkeypatch.setattr("tutelage.generate.chat.stream", lambda forward, prompt, **_: sent.append(prompt) or iter(()))
    list(chat.answer([Message("user", "Hi")]))
    [heldout] = data.examples("heldout")
    trained = heldout.input_ids[: heldout.prompt_length].tolist()
    assert list(asked.prompt_ids) == sent[0] == trained
    assert trained.count(chat.encoder.tokenizer.control["<|begin_of_text|>"]) == 1
