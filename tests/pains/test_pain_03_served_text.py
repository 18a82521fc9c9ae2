"""The prompt in training is the prompt in serving: id for id what a fresh load of the exported folder builds."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from conftest import REFUSED_TEMPLATES, TEMPLATES, make_encoder, make_template_tokenizer
from tutelage.data.encode.template import as_mapping
from tutelage.export.folder import save_tokenizer
from tutelage.types import Conversation, Message, Origin

SUPPORTED = [name for name in TEMPLATES if name not in REFUSED_TEMPLATES]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds <two> & more.",
        "parameters": {"type": "object", "properties": {}},
    },
}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "é"}}}
USER, ANSWER = Message("user", "Hi there"), Message("assistant", "Hello!")
DIALOGUES = {
    "one turn": (USER, ANSWER),
    "system": (Message("system", "Be brief."), USER, ANSWER),
    "turns": (USER, ANSWER, Message("user", " And\nnow?\n"), Message("assistant", "\nBye. 😀"), USER, ANSWER),
    "thinking": (USER, Message("assistant", "<think>\nHm.\n</think>\n\nHello!"), USER, ANSWER),
    "thinking apart": (
        USER,
        Message("assistant", "Hello!", thinking="Hm."),
        USER,
        Message("assistant", "a", thinking="b"),
    ),
    "tools": (USER, Message("assistant", "", tool_calls=(CALL,)), Message("tool", "3"), ANSWER),
}
TAKES = {
    "system": set(SUPPORTED) - {"gemma"},
    "tools": {"qwen3", "mistral", "deepseek_r1"},
}
CASES = [(name, d) for name in SUPPORTED for d in DIALOGUES if name in TAKES.get(d, SUPPORTED)]


def exported(tokenizer, encoder, folder):
    """The tokenizer that a server loads after training."""
    save_tokenizer(folder, tokenizer, encoder.template, [encoder.template_stop_id])
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("metaspace", [None, "first", "always"])
@pytest.mark.parametrize(("name", "dialogue"), CASES)
def test_prompt_ids_in_training_are_those_of_the_exported_folder(name, dialogue, metaspace, tmp_path):
    tokenizer = make_template_tokenizer(tmp_path / "base", name, metaspace=metaspace)
    encoder = make_encoder(tokenizer)
    tools = (TOOL,) if dialogue == "tools" else ()
    messages = DIALOGUES[dialogue]
    served = exported(tokenizer, encoder, tmp_path / "model")
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    for k in answers:
        prompt = served.apply_chat_template(
            [as_mapping(m) for m in messages[:k]], tools=tools or None, add_generation_prompt=True, return_dict=False
        )
        assert encoder.prompt_ids(messages[:k], tools) == prompt
        silenced = [Message(m.role, m.content, float(i == k), m.thinking, m.tool_calls) for i, m in enumerate(messages)]
        conversation = Conversation(Origin("made", 1), tuple(silenced), tools=tools)
        [example] = next(iter(encoder.encode([conversation], max_length=10_000)))
        assert example.input_ids[: example.prompt_length].tolist() == prompt


def test_one_sequence_of_turns_holds_every_prompt_that_a_server_builds(tmp_path):
    tokenizer = make_template_tokenizer(tmp_path / "base", "chatml")
    encoder = make_encoder(tokenizer)
    messages = DIALOGUES["turns"]
    served = exported(tokenizer, encoder, tmp_path / "model")
    [example] = next(iter(encoder.encode([Conversation(Origin("made", 1), messages)], max_length=10_000)))
    ids, weights = example.input_ids.tolist(), example.weights.tolist()
    starts = [i for i in range(1, len(ids)) if weights[i] > 0 and weights[i - 1] == 0]
    prompts = [
        served.apply_chat_template([as_mapping(m) for m in messages[:k]], add_generation_prompt=True, return_dict=False)
        for k in (1, 3, 5)
    ]
    assert [ids[:start] for start in starts] == prompts


def test_consecutive_answers_are_each_asked_for_by_a_generation_prompt(tmp_path):
    tokenizer = make_template_tokenizer(tmp_path / "base", "chatml")
    encoder = make_encoder(tokenizer)
    messages = (USER, ANSWER, Message("assistant", "Bye."))
    [example] = next(iter(encoder.encode([Conversation(Origin("made", 1), messages)], max_length=1000)))
    assert encoder.tokenizer.decode(example.input_ids[example.weights > 0]) == "Hello!<|im_end|>Bye.<|im_end|>"


def test_the_template_is_stored_in_both_places(tmp_path):
    tokenizer = make_template_tokenizer(tmp_path / "base", "llama3")
    encoder = make_encoder(tokenizer)
    exported(tokenizer, encoder, tmp_path / "model")
    assert (tmp_path / "model" / "chat_template.jinja").read_text("utf-8") == encoder.template.source
    assert '"chat_template": ' in (tmp_path / "model" / "tokenizer_config.json").read_text("utf-8")
