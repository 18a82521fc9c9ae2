"""The loss mask: what is trained is the answers and their stop tokens, on every template, and nothing else."""

from __future__ import annotations

import gzip
import json

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

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
from templates.published import published_tokenizer
from tutelage import commands
from tutelage.data import formats
from tutelage.data.encode import Encoder
from tutelage.errors import DataError
from tutelage.types import Conversation, Message, Origin, Record

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


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", ["qwen25_tools", "llama31_tools"])
def test_turns_and_calls_of_real_tool_data_are_trained_and_observations_never(name, language, shared_data, tmp_path):
    tokenizer = published_tokenizer(tmp_path, name)
    encoder = make_encoder(tokenizer)
    rows = tool_rows(shared_data / "tools" / f"llamafactory_glaive_toolcall_{language}_demo.jsonl.gz")
    calls = 0
    for row, result in zip(rows, encoder.encode(rows, max_length=10**6), strict=True):
        assert isinstance(result, list), result
        answers = [message for message in row.messages if message.role == "assistant"]
        spans = [tokenizer.decode(span) for example in result for span in spans_of(example)]
        # Each trained token is in one of these spans, and each span is one answer with its stop token.
        assert sum(e.supervised for e in result) == sum(len(span) for e in result for span in spans_of(e))
        assert len(spans) == len(answers)
        for span, answer in zip(spans, answers, strict=True):
            text = span.removesuffix(tokenizer.eos_token)
            assert text != span
            if answer.tool_calls:
                calls += 1
                assert parsed_calls(name, text) == [call["function"] for call in answer.tool_calls]
            else:
                assert text == (answer.content.strip() if name == "llama31_tools" else answer.content)
    assert calls > 150


def tool_rows(path):
    """The conversations of a file with tool calls, as the formats read them."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        records = [Record(Origin(path.name, number), json.loads(line)) for number, line in enumerate(lines, 1)]
    return [formats.parse(record, "sharegpt") for record in records]


def parsed_calls(name, text):
    """The calls that a trained text spells, as its template writes them."""
    if name == "llama31_tools":
        call = json.loads(text)
        return [{"name": call["name"], "arguments": call["parameters"]}]
    inner = [part.partition("</tool_call>")[0] for part in text.split("<tool_call>")[1:]]
    return [json.loads(part) for part in inner]


def thinking_encoder(tokenizer, weight):
    """An encoder that gives thinking a weight of its own."""
    plain = make_encoder(tokenizer)
    return Encoder(plain.tokenizer, plain.template, thinking_weight=weight)


THINKING = {
    "inline": lambda: Message("assistant", "<think>\nHm, é.\n</think>\n\nHello!"),
    "apart": lambda: Message("assistant", "Hello!", thinking="Hm, é."),
}


@pytest.mark.parametrize("factor", [0.0, 0.25, 2.0])
@pytest.mark.parametrize("metaspace", [None, "first"])
@pytest.mark.parametrize("style", list(THINKING))
@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1"])
def test_the_tokens_of_the_thinking_have_a_weight_of_their_own(name, style, metaspace, factor, tmp_path):
    tokenizer = make_template_tokenizer(tmp_path, name, metaspace=metaspace)
    row = Conversation(Origin("made", 1), (Message("user", "Why </think>?"), THINKING[style]()), 0.5)
    [example] = next(iter(thinking_encoder(tokenizer, factor).encode([row], max_length=1000)))
    [plain] = next(iter(make_encoder(tokenizer).encode([row], max_length=1000)))
    assert example.input_ids.tolist() == plain.input_ids.tolist()
    assert example.prompt_length == plain.prompt_length
    ids, end = example.input_ids.tolist(), tokenizer.convert_tokens_to_ids("</think>")
    [place] = [i for i in range(plain.prompt_length, len(ids)) if ids[i] == end]
    thought = tokenizer.decode(ids[plain.prompt_length : place + 1])
    assert thought.strip() == ("<think>\n" if name == "qwen3" else "") + "Hm, é.\n</think>"
    assert set(example.weights[: plain.prompt_length]) == {0}
    assert set(example.weights[plain.prompt_length : place + 1]) == {0.5 * factor}
    assert set(example.weights[place + 1 :]) == {0.5}
    assert tokenizer.decode(ids[place + 1 :]).strip() == "Hello!" + tokenizer.eos_token


def test_thinking_whose_marks_are_ordinary_text_is_found_by_its_text(tmp_path):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=without_think_tokens(tmp_path), eos_token="<|im_end|>")
    tokenizer.chat_template = template_source("chatml")
    row = Conversation(Origin("made", 1), (Message("user", "Why?"), THINKING["inline"]()))
    [example] = next(iter(thinking_encoder(tokenizer, 0.5).encode([row], max_length=1000)))
    assert tokenizer.decode(example.input_ids[example.weights == 0.5]) == "<think>\nHm, é.\n</think>"
    assert tokenizer.decode(example.input_ids[example.weights == 1]) == "\n\nHello!<|im_end|>"


def without_think_tokens(folder):
    """The tokenizer of the tests without its added tokens for thinking."""
    backend = make_template_tokenizer(folder, "chatml").backend_tokenizer
    spec = json.loads(backend.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if "think" not in token["content"]]
    return Tokenizer.from_str(json.dumps(spec))


def test_thinking_between_other_marks_is_its_text(tmp_path):
    tokenizer = published_tokenizer(tmp_path, "gpt_oss")
    row = Conversation(Origin("made", 1), (Message("user", "Why?"), THINKING["apart"]()))
    [example] = next(iter(thinking_encoder(tokenizer, 0.5).encode([row], max_length=1000)))
    assert tokenizer.decode(example.input_ids[example.weights == 0.5]) == "Hm, é."
    rest = tokenizer.decode(example.input_ids[example.weights == 1])
    assert rest == "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>Hello!<|return|>"


def test_an_answer_that_only_speaks_of_the_marks_does_not_think(tmp_path):
    tokenizer = make_template_tokenizer(tmp_path, "chatml")
    row = Conversation(Origin("made", 1), (Message("user", "a"), Message("assistant", "Close it with </think>.")))
    [example] = next(iter(thinking_encoder(tokenizer, 0.5).encode([row], max_length=1000)))
    assert set(example.weights.tolist()) == {0.0, 1.0}


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
