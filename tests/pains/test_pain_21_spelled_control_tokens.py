"""Content that spells a control token stays text: the control ids of a row are those that its template writes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import REFUSED_TEMPLATES, TEMPLATES, make_encoder, make_template_tokenizer
from templates.published import published_tokenizer
from tutelage.types import Completion, Conversation, Message, Origin

SUPPORTED = [name for name in TEMPLATES if name not in REFUSED_TEMPLATES]
CALLS = {"qwen3", "mistral", "deepseek_r1"}


def everything(tokenizer) -> str:
    """A text that spells every added token, with and without spaces around."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    return "Say " + " ".join(added) + "".join(added) + "."


def controls(encoder, ids) -> list[int]:
    return [int(id) for id in ids if int(id) in encoder.tokenizer.control_ids]


@pytest.mark.parametrize("metaspace", [None, "first", "always"])
@pytest.mark.parametrize("name", SUPPORTED)
def test_the_control_ids_of_a_prompt_are_the_templates_own(name, metaspace, tmp_path):
    tokenizer = make_template_tokenizer(tmp_path, name, metaspace=metaspace)
    encoder = make_encoder(tokenizer)
    text = everything(tokenizer)
    spelled = encoder.prompt_ids([Message("user", text), Message("assistant", "Yes."), Message("user", text)])
    harmless = encoder.prompt_ids([Message("user", "x"), Message("assistant", "Yes."), Message("user", "y")])
    assert controls(encoder, spelled) == controls(encoder, harmless)
    decoded = tokenizer.decode(spelled)
    if metaspace == "always":  # This kind writes a space after every added token, `<think>` in a text among them.
        decoded, text = decoded.replace(" ", ""), text.replace(" ", "")
    assert decoded.count(text) == 2


@pytest.mark.parametrize("name", SUPPORTED)
def test_an_answer_that_spells_special_tokens_does_not_end_early(name, tmp_path):
    tokenizer = make_template_tokenizer(tmp_path, name)
    encoder = make_encoder(tokenizer)
    text = "It is " + " ".join(t for t in encoder.tokenizer.control if "think" not in t and "tool" not in t) + " it."
    rows = [
        Conversation(Origin("made", 1), (Message("user", "x"), Message("assistant", t))) for t in (text, "It is it.")
    ]
    [spelled], [harmless] = encoder.encode(rows, max_length=10_000)
    assert controls(encoder, spelled.input_ids) == controls(encoder, harmless.input_ids)
    assert text in tokenizer.decode(spelled.input_ids[spelled.weights > 0])


def test_an_assistants_own_thinking_marks_stay_marks(tmp_path):
    encoder = make_encoder(make_template_tokenizer(tmp_path, "qwen3"))
    messages = (
        Message("user", "Write </think> <|im_end|>"),
        Message("assistant", "<think>\nno <|im_end|>\n</think>\n\nYes."),
    )
    [example] = next(iter(encoder.encode([Conversation(Origin("made", 1), messages)], max_length=1000)))
    marks = [encoder.tokenizer.control[mark] for mark in ("<think>", "</think>", "<|im_end|>")]
    trained = example.input_ids[example.weights > 0].tolist()
    assert [trained.count(mark) for mark in marks] == [1, 1, 1]
    assert example.input_ids[: example.prompt_length].tolist().count(marks[1]) == 0


@pytest.mark.parametrize("name", sorted(CALLS))
def test_tools_their_calls_and_their_results_spell_nothing(name, tmp_path):
    tokenizer = make_template_tokenizer(tmp_path, name)
    encoder = make_encoder(tokenizer)

    def ids(text):
        call = {"type": "function", "id": text, "function": {"name": "add", "arguments": {"a": text}}}
        tools = ({"type": "function", "function": {"name": "add", "description": text}},)
        messages = [
            Message("user", "x"),
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", text, name=text),
            Message("user", "y"),
        ]
        return encoder.prompt_ids(messages, tools)

    special = " ".join(
        t for t in encoder.tokenizer.control if t not in ("<think>", "</think>", *TEMPLATES[name].get("marks", ()))
    )
    assert controls(encoder, ids(special)) == controls(encoder, ids("x"))


def test_the_name_of_a_message_spells_nothing(tmp_path):
    source = "{% for m in messages %}{{ m.name + ': ' + m.content + '<|im_end|>' }}{% endfor %}"
    encoder = make_encoder(make_template_tokenizer(tmp_path, "chatml", template=source))
    ids = encoder.prompt_ids([Message("user", "x", name="<|im_end|>")])
    assert len(controls(encoder, ids)) == 1
    assert encoder.tokenizer.decode(ids) == "<|im_end|>: x<|im_end|>"


def test_plain_text_that_spells_special_tokens_stays_text(tmp_path):
    tokenizer = make_template_tokenizer(tmp_path, "llama2", template=None)
    encoder = make_encoder(tokenizer)
    text = everything(tokenizer)
    [example] = next(iter(encoder.encode([Completion(Origin("made", 1), text, text)], max_length=10_000)))
    assert controls(encoder, example.input_ids) == [tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert tokenizer.decode(example.input_ids) == f"<s>{text}{text}</s>"


@pytest.mark.parametrize("name", ["qwen3", "mistral", "deepseek_r1", "qwen25_tools", "llama31_tools"])
def test_keys_of_tools_and_of_arguments_spell_nothing(name, tmp_path):
    tokenizer = published_tokenizer(tmp_path, name)
    encoder = make_encoder(tokenizer)
    stop = tokenizer.eos_token

    def row(key, line):
        call = {"type": "function", "id": "1", "function": {"name": "add", "arguments": {key: {key: [key]}}}}
        function = {"name": "add", "parameters": {"properties": {key: {key: key}}}}
        messages = (
            Message("user", "x"),
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", "y", tool_call_id=key),
            Message("assistant", "z"),
        )
        return Conversation(Origin("made", line), messages, tools=({"type": "function", "function": function},))

    spelled, harmless = encoder.encode([row(stop, 1), row("x", 2)], max_length=10_000)
    assert [controls(encoder, e.input_ids) for e in spelled] == [controls(encoder, e.input_ids) for e in harmless]
    text = tokenizer.decode(spelled[0].input_ids)
    assert json.dumps({stop: {stop: [stop]}}) in text


@pytest.mark.parametrize(
    ("name", "markers"),
    [
        ("alpaca", ("### Instruction:", "### Response:")),
        ("vicuna", ("ASSISTANT:", "USER:")),
        ("deepseek_v2", ("Assistant:", "User:")),
        ("falcon", ("Falcon:", "User:")),
        ("llama2", ("[/INST]", "[INST]")),
        ("zephyr", ("<|assistant|>", "<|user|>")),
        *((name, ()) for name in ("chatml", "llama3", "gemma", "qwen25_tools", "llama31_tools", "phi4", "mistral")),
    ],
)
def test_role_markers_that_are_plain_text_are_found_and_counted(name, markers, tmp_path):
    encoder = make_encoder(published_tokenizer(tmp_path, name))
    assert encoder._renderer._markers == markers
    holds = Message("user", "Quote: " + " ".join(markers) + " end user assistant")
    rows = [
        Conversation(Origin("made", line), (asked, Message("assistant", "Yes.")))
        for line, asked in enumerate([holds, Message("user", "plain"), holds], 1)
    ]
    list(encoder.encode(rows, max_length=10_000))
    assert encoder.notices == {
        f"a message holds {marker!r}, with which the template marks a turn as plain text": 2 for marker in markers
    }


def test_an_answer_that_writes_a_role_marker_is_the_models_own_affair(tmp_path):
    encoder = make_encoder(make_template_tokenizer(tmp_path, "alpaca"))
    row = Conversation(Origin("made", 1), (Message("user", "a"), Message("assistant", "### Response:")))
    list(encoder.encode([row], max_length=100))
    assert not encoder.notices


PIECES = [
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</s>",
    "<|im_",
    "end|>",
    "<",
    "\U000f0000",
    "\U00100001",
    "é",
    "😀",
    " ",
    "\n",
    "a",
]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join))
def test_any_content_keeps_its_characters_and_its_place(chatml_encoder, text):
    ids = chatml_encoder.prompt_ids([Message("user", text)])
    assert len(controls(chatml_encoder, ids)) == 3
    assert chatml_encoder.tokenizer.decode(ids) == f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def chatml_encoder(tmp_path_factory):
    return make_encoder(make_template_tokenizer(tmp_path_factory.mktemp("chatml"), "chatml"))
