"""Content that spells a control token stays text: the control ids of a row are those that its template writes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import REFUSED_TEMPLATES, TEMPLATES, make_encoder, make_template_tokenizer
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
