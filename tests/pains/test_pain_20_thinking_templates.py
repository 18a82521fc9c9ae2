"""Templates that take thinking out of earlier turns: each answer is trained after the prompt that a server builds."""

from __future__ import annotations

import pytest

from conftest import make_encoder, make_template_tokenizer
from conftest import supervised_spans as spans_of
from tutelage.types import Conversation, Message, Origin

ASKED = ["One?", "Two?", "Three?"]
THOUGHTS = ["First thought.", "Second\nthought.", "Third thought."]
SAID = ["Uno.", "Dos.", "Tres."]


def conversation(style: str) -> Conversation:
    messages = []
    for question, thought, answer in zip(ASKED, THOUGHTS, SAID, strict=True):
        messages.append(Message("user", question))
        if style == "inline":
            messages.append(Message("assistant", f"<think>\n{thought}\n</think>\n\n{answer}"))
        elif style == "apart":
            messages.append(Message("assistant", answer, thinking=thought))
        else:
            messages.append(Message("assistant", answer))
    return Conversation(Origin("made", 1), tuple(messages))


def encoded(name, style, folder, **options):
    tokenizer = make_template_tokenizer(folder, name, **options)
    encoder = make_encoder(tokenizer)
    row = conversation(style)
    return tokenizer, encoder, row, next(iter(encoder.encode([row], max_length=10_000)))


@pytest.mark.parametrize("style", ["inline", "apart"])
@pytest.mark.parametrize(("name", "start"), [("qwen3", "<think>\n"), ("deepseek_r1", "")])
def test_each_answer_follows_the_prompt_that_a_server_builds_for_it(name, start, style, tmp_path):
    tokenizer, encoder, row, examples = encoded(name, style, tmp_path)
    assert len(examples) == 3
    for k, example in enumerate(examples):
        history = [
            {"role": m.role, "content": m.content, **({} if m.thinking is None else {"reasoning_content": m.thinking})}
            for m in row.messages[: 2 * k + 1]
        ]
        prompt = tokenizer.apply_chat_template(history, add_generation_prompt=True, return_dict=False)
        assert example.input_ids[: example.prompt_length].tolist() == prompt
        [span] = spans_of(example)
        assert tokenizer.decode(span) == f"{start}{THOUGHTS[k]}\n</think>\n\n{SAID[k]}{tokenizer.eos_token}"
        assert len(prompt) + len(span) == len(example)
    split = "turns split: the template does not keep earlier turns as they were"
    assert encoder.notices[split] == 2


@pytest.mark.parametrize("style", ["inline", "none"])
@pytest.mark.parametrize("name", ["chatml", "llama3", "mistral", "alpaca"])
def test_a_template_that_keeps_earlier_turns_gives_one_sequence(name, style, tmp_path):
    _, encoder, _, examples = encoded(name, style, tmp_path)
    assert len(examples) == 1
    assert len(spans_of(examples[0])) == 3
    assert not encoder.notices


def test_an_answer_without_thinking_gets_the_empty_block_that_the_template_writes(tmp_path):
    tokenizer, _, _, examples = encoded("qwen3", "none", tmp_path)
    texts = [tokenizer.decode(span) for example in examples for span in spans_of(example)]
    assert texts == [f"<think>\n\n</think>\n\n{answer}<|im_end|>" for answer in SAID]


def test_thinking_that_the_prompt_opens_is_closed_where_an_answer_has_none(tmp_path):
    tokenizer, _, _, examples = encoded("deepseek_r1", "none", tmp_path)
    for example, answer in zip(examples, SAID, strict=True):
        prompt = tokenizer.decode(example.input_ids[: example.prompt_length])
        assert prompt.endswith("<|Assistant|><think>\n")
        assert tokenizer.decode(spans_of(example)[0]) == f"\n</think>\n\n{answer}<|end_of_sentence|>"


def test_a_template_that_drops_thinking_everywhere_does_not_drop_it_from_what_is_trained(tmp_path):
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content.split('</think>')[-1] + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    for style in ("inline", "apart"):
        tokenizer, _, _, examples = encoded("chatml", style, tmp_path, template=source)
        texts = [tokenizer.decode(span) for example in examples for span in spans_of(example)]
        pairs = zip(THOUGHTS, SAID, strict=True)
        assert texts == [f"<think>\n{thought}\n</think>\n\n{answer}<|im_end|>" for thought, answer in pairs]


def test_thinking_that_a_template_has_no_place_for_is_reported(tmp_path):
    tokenizer, encoder, _, examples = encoded("chatml", "apart", tmp_path)
    assert [tokenizer.decode(span) for span in spans_of(examples[0])] == [f"{answer}<|im_end|>" for answer in SAID]
    assert encoder.notices == {"the thinking of an answer is left out: the template has no place for it": 3}


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1"])
def test_tool_calls_are_trained_where_the_turn_is_written_anew(name, tmp_path):
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": "<b>"}}}
    messages = (Message("user", "One?"), Message("assistant", "So.", thinking="Hm.", tool_calls=(call,)))
    tokenizer = make_template_tokenizer(tmp_path, name)
    row = Conversation(Origin("made", 1), messages)
    [example] = next(iter(make_encoder(tokenizer).encode([row], max_length=1000)))
    text = tokenizer.decode(spans_of(example)[0])
    assert "Hm.\n</think>\n\nSo." in text
    assert '{"name": "add", "arguments": {"a": "<b>"}}' in text
    assert text.endswith(tokenizer.eos_token)


def test_tool_calls_that_a_template_leaves_out_are_refused(tmp_path):
    call = {"type": "function", "function": {"name": "add", "arguments": {}}}
    row = Conversation(Origin("made", 3), (Message("user", "One?"), Message("assistant", "", tool_calls=(call,))))
    problem = next(iter(make_encoder(make_template_tokenizer(tmp_path, "chatml")).encode([row], max_length=1000)))
    assert (problem.code, problem.where) == ("template/broken", "made:3")
    assert "tool call" in problem.what
