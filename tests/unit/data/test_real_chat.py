"""Real conversations on the real model: each prompt is what a fresh load of the exported tokenizer builds."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from conftest import make_encoder
from tutelage.data import formats
from tutelage.data.encode.template import as_mapping
from tutelage.export.folder import save_tokenizer
from tutelage.models.location import locate
from tutelage.models.tokenizer import load_tokenizer
from tutelage.types import Conversation, Message, Origin, Record

pytestmark = pytest.mark.model
FILES = ["fastchat_dummy_conversation", "llamafactory_v1_sft_demo", "oasst_en_100_tree"]


def conversations(path: Path) -> Iterator[Conversation]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            record = Record(Origin(path.name, number), json.loads(line))
            yield formats.parse(record, formats.detect([record], source=path.name))


@pytest.fixture(scope="module")
def encoder(real_model):
    return make_encoder(load_tokenizer(locate(real_model)))


@pytest.fixture(scope="module")
def served(real_model, encoder, tmp_path_factory):
    """What a server loads from the exported folder."""
    folder = tmp_path_factory.mktemp("exported")
    save_tokenizer(folder, load_tokenizer(locate(real_model)), encoder.template, [encoder.template_stop_id])
    return AutoTokenizer.from_pretrained(folder)


def prompts(conversation: Conversation) -> Iterator[tuple[Message, ...]]:
    for index, message in enumerate(conversation.messages):
        if message.role == "assistant" and index > 0:
            yield conversation.messages[:index]


def controls(encoder, ids) -> list[int]:
    return [int(id) for id in ids if int(id) in encoder.tokenizer.control_ids]


@pytest.mark.parametrize("name", FILES)
def test_every_prompt_is_the_one_that_a_server_builds(name, shared_data, encoder, served):
    compared = 0
    for conversation in conversations(shared_data / "chat" / f"{name}.jsonl.gz"):
        if not conversation.messages:
            continue
        result = next(iter(encoder.encode([conversation], max_length=10**6)))
        for example in result:
            ids = example.input_ids.tolist()
            for prompt in prompts(conversation):
                built = served.apply_chat_template(
                    [as_mapping(m) for m in prompt], add_generation_prompt=True, return_dict=False
                )
                compared += 1
                assert encoder.prompt_ids(prompt) == built, str(conversation.origin)
                # Turns that share a sequence: the prompt is in it as a server builds it, then its answer begins.
                if len(result) == 1:
                    assert ids[: len(built)] == built
                    assert example.weights[len(built)] > 0
                    assert example.weights[len(built) - 1] == 0
    assert compared > 50


@pytest.mark.parametrize("name", FILES)
def test_trained_text_is_the_answers_and_their_stops(name, shared_data, encoder):
    for conversation in conversations(shared_data / "chat" / f"{name}.jsonl.gz"):
        if not conversation.messages:
            continue
        examples = next(iter(encoder.encode([conversation], max_length=10**6)))
        trained = "".join(encoder.tokenizer.decode(e.input_ids[e.weights > 0]) for e in examples)
        assert trained == "".join(m.content + "<|im_end|>" for m in conversation.messages if m.role == "assistant")


def test_pieces_of_real_text_join_to_the_whole(shared_data, encoder):
    for conversation in list(conversations(shared_data / "chat" / "oasst_en_100_tree.jsonl.gz"))[:30]:
        ids = encoder.prompt_ids(conversation.messages)
        assert "".join(encoder.tokenizer.pieces(ids)) == encoder.tokenizer.decode(ids)


def test_content_that_spells_special_tokens_adds_no_control_ids(encoder):
    spelled = "".join(encoder.tokenizer.control)
    text = encoder.prompt_ids([Message("user", f"Say {spelled} and {spelled}.")])
    plain = encoder.prompt_ids([Message("user", "Say it.")])
    assert controls(encoder, text) == controls(encoder, plain)
    assert f"Say {spelled} and {spelled}." in encoder.tokenizer.decode(text)
