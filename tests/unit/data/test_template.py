"""Our rendering is the one of `transformers`, in a sandbox, and an error names the row."""

from __future__ import annotations

import jinja2
import pytest

from conftest import TEMPLATES, make_template_tokenizer, template_source
from tutelage.data.encode.template import ChatTemplate, as_mapping
from tutelage.errors import ModelError
from tutelage.types import Message

CALL = {"type": "function", "id": "c1", "function": {"name": "add", "arguments": {"a": "<é>", "b": [1, None]}}}
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds <b> & 'c'.", "parameters": {}}}
U, A = Message("user", "  Hi <b>&'\"\n"), Message("assistant", "\nHello 😀\n")
CONVERSATIONS = {
    "asked": (U,),
    "answered": (U, A),
    "system": (Message("system", "Be brief.\n"), U, A, U),
    "turns": (U, A, U, A, U),
    "thinking": (U, Message("assistant", "Yes.", thinking="Hm.\n"), U, Message("assistant", "<think>x</think>y")),
    "tools": (U, Message("assistant", "So:", tool_calls=(CALL, CALL)), Message("tool", "3", name="add"), A, U),
}


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, {"eos_token": "</s>"}, name="made")


@pytest.mark.parametrize("conversation", list(CONVERSATIONS))
@pytest.mark.parametrize("name", list(TEMPLATES))
def test_rendering_equals_that_of_transformers(name, conversation, tmp_path):
    tokenizer = make_template_tokenizer(tmp_path, name)
    special = {role: text for role, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
    ours = ChatTemplate(template_source(name), special, name=name)
    messages = [as_mapping(message) for message in CONVERSATIONS[conversation]]
    tools = [TOOL] if conversation == "tools" else []
    for flag in (True, False):
        text = outcome(lambda flag=flag: ours.render(messages, tools=tools, generation_prompt=flag), ModelError)
        asked = {"tools": tools or None, "tokenize": False, "add_generation_prompt": flag}
        theirs = outcome(lambda asked=asked: tokenizer.apply_chat_template(messages, **asked), jinja2.TemplateError)
        assert text == theirs


def outcome(call, refusal) -> str | None:
    """What the call gives; None where it refuses."""
    try:
        return call()
    except refusal:
        return None


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages[0].__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ 1 / 0 }}",
        "{{ messages[0].content.nothing() }}",
        "{{ messages + 1 }}",
    ],
)
def test_what_a_template_must_not_do_is_refused_with_the_row_named(source):
    with pytest.raises(ModelError) as caught:
        template(source).render([{"role": "user", "content": "x"}], generation_prompt=True, where="data.jsonl:7")
    assert caught.value.code == "template/broken"
    assert caught.value.problems[0].where == "data.jsonl:7"
    assert "roles: user" in caught.value.problems[0].found


def test_private_attributes_do_not_exist_in_a_template():
    source = "[{{ ''.__class__ }}{{ raise_exception.__globals__ }}{{ messages.__class__ }}]"
    assert template(source).render([], generation_prompt=True) == "[]"


def test_a_template_that_is_not_valid_is_refused():
    with pytest.raises(ModelError) as caught:
        template("{% for %}")
    assert caught.value.code == "template/broken"


def test_loop_controls_work():
    source = "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}"
    source += "{% if loop.index0 == 3 %}{% break %}{% endif %}{{ m.content }}{% endfor %}"
    messages = [{"role": "user", "content": str(n)} for n in range(5)]
    assert template(source).render(messages, generation_prompt=False) == "02"


def test_json_is_not_escaped_for_html():
    source = "{{ messages[0] | tojson }}"
    rendered = template(source).render([{"role": "user", "content": "<é> & '\""}], generation_prompt=False)
    assert rendered == '{"role": "user", "content": "<é> & \'\\""}'


def test_generation_blocks_print_what_they_hold():
    source = "a{% generation %}b{{ messages[0].content }}{%- endgeneration -%}  c"
    assert template(source).render([{"role": "user", "content": "x"}], generation_prompt=False) == "abxc"


def test_a_message_is_given_with_all_that_it_says():
    message = Message("tool", "3", name="add", tool_call_id="c1")
    assert as_mapping(message) == {"role": "tool", "content": "3", "name": "add", "tool_call_id": "c1"}
    assert as_mapping(Message("user", "x")) == {"role": "user", "content": "x"}
    upper = as_mapping(Message("assistant", "a", thinking="b", tool_calls=({"k": {"l": [1, "m"]}},)), str.upper)
    assert upper["tool_calls"] == [{"K": {"L": [1, "M"]}}]
    assert upper["thinking"] == upper["reasoning_content"] == "B"


def test_no_tools_are_none_and_special_tokens_are_given():
    source = "{{ tools is none }} {{ documents is none }} {{ eos_token }} {{ bos_token is defined }}"
    assert template(source).render([], generation_prompt=True) == "True True </s> False"


def test_named_templates_and_files(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("{{ messages[0].content }}é", "utf-8")
    made = ChatTemplate.named(str(path), {})
    assert (made.name, made.render([{"role": "user", "content": "x"}], generation_prompt=True)) == ("mine.jinja", "xé")
    assert made.sha256 != ChatTemplate.named("chatml", {}).sha256
    with pytest.raises(ModelError) as caught:
        ChatTemplate.named("chatlm", {})
    assert caught.value.code == "template/missing"
    assert "chatml" in str(caught.value)


@pytest.mark.parametrize("name", ["chatml", "alpaca"])
def test_the_shipped_templates_equal_their_published_form(name):
    messages = [as_mapping(m) for m in CONVERSATIONS["system"]]
    special = {"eos_token": "</s>"}
    shipped, published = ChatTemplate.named(name, special), ChatTemplate(template_source(name), special, name=name)
    for generation_prompt in (True, False):
        texts = {made.render(messages, generation_prompt=generation_prompt) for made in (shipped, published)}
        assert len(texts) == 1
