"""Published chat templates: what is trained, after which prompt, and in how many sequences."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import TEMPLATES, make_encoder
from conftest import supervised_spans as spans_of
from templates.published import FACTS, MORE, published_tokenizer
from tutelage.data.encode import SPLIT_NOTICE
from tutelage.data.encode.template import as_mapping
from tutelage.errors import ModelError
from tutelage.types import Conversation, Message, Origin

TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Adds <two> & more.", "parameters": {"type": "object"}},
}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "é"}}}
SYSTEM, USER = Message("system", "Be brief."), Message("user", "Hi there")
FIRST, SECOND = Message("assistant", "Hello!\nHow are you?"), Message("assistant", "See you. 😀")
KINDS = {
    "single": (USER, FIRST),
    "turns": (USER, FIRST, Message("user", "And\nnow?"), SECOND, USER, FIRST),
    "system": (SYSTEM, USER, FIRST, Message("user", "Bye"), SECOND),
    "thinking": (
        USER,
        Message("assistant", "<think>\nHm.\n</think>\n\nYes."),
        USER,
        Message("assistant", "<think>\nOh.\n</think>\n\nNo."),
    ),
    "tools": (USER, Message("assistant", "", tool_calls=(CALL,)), Message("tool", "3"), SECOND),
}
CASES = [
    (name, kind)
    for name, facts in FACTS.items()
    for kind in KINDS
    if not facts.refused and (kind != "system" or facts.system) and (kind != "tools" or facts.call)
]


def test_there_are_facts_for_at_least_twenty_templates_and_for_each_file():
    files = {path.stem for path in Path(__file__).parent.glob("*.jinja")}
    assert files == FACTS.keys() == TEMPLATES.keys() | MORE.keys()
    assert len(files) >= 20


def expected(name: str, message: Message, eos: str) -> str:
    """The supervised text of a message."""
    facts = FACTS[name]
    stop = facts.stop or eos
    if message.tool_calls:
        return facts.call + (facts.call_stop or stop)
    text = message.content
    if "<think>" in text and "think" in facts.before:
        before = "" if facts.before.startswith("<think>") else "<think>\n"
        return text.removeprefix(before) + facts.after + stop
    return facts.before + text + facts.after + stop


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_answers_and_stops_are_trained_and_nothing_else_after_the_prompt_that_is_served(name, kind, tmp_path):
    tokenizer = published_tokenizer(tmp_path, name)
    encoder = make_encoder(tokenizer)
    messages, tools = KINDS[kind], ((TOOL,) if kind == "tools" else ())
    examples = next(iter(encoder.encode([Conversation(Origin("made", 1), messages, tools=tools)], max_length=10_000)))
    assert isinstance(examples, list), examples
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    trained = [tokenizer.decode(span) for example in examples for span in spans_of(example)]
    assert trained == [expected(name, messages[i], tokenizer.eos_token) for i in answers]

    prompts = []
    for example in examples:
        ids, weights = example.input_ids.tolist(), example.weights.tolist()
        starts = [i for i in range(1, len(ids)) if weights[i] > 0 and weights[i - 1] == 0]
        assert example.prompt_length == starts[0]
        prompts += [ids[:start] for start in starts]
    assert prompts == [
        tokenizer.apply_chat_template(
            [as_mapping(message) for message in messages[:index]],
            tools=[dict(tool) for tool in tools] or None,
            add_generation_prompt=True,
            return_dict=False,
        )
        for index in answers
    ]

    split = len(answers) > 1 and kind in FACTS[name].splits
    assert len(examples) == (len(answers) if split else 1)
    assert encoder.notices[SPLIT_NOTICE] == len(examples) - 1


@pytest.mark.parametrize("name", [name for name, facts in FACTS.items() if not facts.refused])
def test_a_prompt_never_opens_with_two_bos_tokens(name, tmp_path):
    tokenizer = published_tokenizer(tmp_path, name)
    ids = make_encoder(tokenizer).prompt_ids([USER])
    if tokenizer.bos_token is not None:
        assert ids[:2].count(tokenizer.bos_token_id) == FACTS[name].bos


@pytest.mark.parametrize("name", [name for name, facts in FACTS.items() if facts.refused])
def test_a_template_without_a_stop_token_is_refused(name, tmp_path):
    row = Conversation(Origin("made", 1), KINDS["single"])
    with pytest.raises(ModelError) as caught:
        next(iter(make_encoder(published_tokenizer(tmp_path, name)).encode([row], max_length=100)))
    assert caught.value.code == "template/no-stop-token"
