"""Truncation: over-long rows stop the run, are dropped and counted, or lose early turns; an answer is never cut."""

from __future__ import annotations

import pytest

from conftest import REFUSED_TEMPLATES, TEMPLATES, make_encoder, make_template_tokenizer
from conftest import supervised_spans as spans_of
from tutelage.data.dataset import prepare
from tutelage.data.encode import OverLong
from tutelage.errors import DataError
from tutelage.recipe import DataOptions
from tutelage.types import Conversation, Message, Origin

SUPPORTED = [name for name in TEMPLATES if name not in REFUSED_TEMPLATES]


def turns(count: int, length: int = 10, answer: str = "Answer {}.") -> list[dict[str, str]]:
    out = []
    for k in range(count):
        out += [{"role": "user", "content": f"Ask {k} " + "x" * length}]
        out += [{"role": "assistant", "content": answer.format(k)}]
    return out


@pytest.fixture
def hundred(rows):
    """100 rows, 7 of them over 150 tokens: 5 by their turns, 2 by one answer."""
    values = [{"messages": turns(1)} for _ in range(93)]
    values += [{"messages": turns(8)} for _ in range(5)]
    values += [{"messages": turns(2, answer="Long " * 100)} for _ in range(2)]
    return rows(values)


def options(path, **more) -> DataOptions:
    return DataOptions.model_validate({"train": [{"path": str(path)}], "heldout": 0, "max_length": 150, **more})


def chatml_encoder(tmp_path):
    return make_encoder(make_template_tokenizer(tmp_path, "chatml"))


def test_with_no_policy_the_run_is_refused_with_count_lengths_and_flag(hundred, tmp_path):
    with pytest.raises(DataError) as caught:
        prepare(options(hundred), chatml_encoder(tmp_path))
    text = str(caught.value)
    assert caught.value.code == "data/over-long"
    assert "7 of 100 rows" in text
    assert f"{hundred}:94" in text
    assert "50 % up to" in text
    assert "99 % up to" in text
    assert "data.over_long=drop" in text
    assert "data.max_length=" in text
    longest = int(text.partition("data.max_length=")[2].split()[0])
    assert len(prepare(options(hundred, max_length=longest), chatml_encoder(tmp_path)).rows) == 100
    with pytest.raises(DataError):
        prepare(options(hundred, max_length=longest - 1), chatml_encoder(tmp_path))


def test_dropped_rows_are_counted(hundred, tmp_path):
    data = prepare(options(hundred, over_long="drop"), chatml_encoder(tmp_path))
    assert data.ledger.dropped == {"over-long": 7}
    assert data.ledger.trained == 93
    assert max(map(len, data.examples("train"))) <= 150


def test_trimming_keeps_every_answer_that_fits_and_drops_those_that_do_not(hundred, tmp_path):
    encoder = chatml_encoder(tmp_path)
    data = prepare(options(hundred, over_long="trim-context"), encoder)
    assert data.ledger.dropped == {"over-long": 2}
    assert data.ledger.trained == 98
    for row in data.rows:
        answers = [m.content for m in row.demonstration.messages if m.role == "assistant"]
        spans = [encoder.tokenizer.decode(s) for example in row.examples for s in spans_of(example)]
        assert spans == [answer + "<|im_end|>" for answer in answers]
    assert data.ledger.as_json()["notices"] == ["5 x early turns left out of the context"]


@pytest.mark.parametrize("limit", [100, 150, 200, 400])
@pytest.mark.parametrize("name", SUPPORTED)
def test_a_trimmed_row_is_the_template_of_its_last_turns(name, limit, tmp_path):
    tokenizer = make_template_tokenizer(tmp_path, name)
    encoder = make_encoder(tokenizer)
    system = () if name == "gemma" else (Message("system", "Be brief."),)
    messages = (*system, *(Message(m["role"], m["content"]) for m in turns(8)))
    row = Conversation(Origin("made", 1), messages)
    result = next(iter(encoder.encode([row], max_length=limit, trim=True)))
    assert isinstance(result, list)
    spans = [tokenizer.decode(span) for example in result for span in spans_of(example)]
    assert [f"Answer {k}." in span for k, span in enumerate(spans)] == [True] * 8
    for example in result:
        assert len(example) <= limit
        first_prompt = example.input_ids[: example.prompt_length].tolist()
        answer = next(k for k in range(8) if f"Answer {k}." in tokenizer.decode(spans_of(example)[0]))
        # The context is a run of whole turns that ends right before the answer, with the system message kept.
        contexts = [
            encoder.prompt_ids((*system, *messages[len(system) + 2 * start : len(system) + 2 * answer + 1]))
            for start in range(answer + 1)
        ]
        assert first_prompt in contexts


def test_a_window_holds_as_much_context_as_fits(tmp_path):
    encoder = chatml_encoder(tmp_path)
    messages = tuple(Message(m["role"], m["content"]) for m in turns(8))
    examples = next(iter(encoder.encode([Conversation(Origin("made", 1), messages)], max_length=150, trim=True)))
    turn = len(encoder.prompt_ids(messages[:3])) - len(encoder.prompt_ids(messages[:1]))
    assert all(len(example) > 150 - turn for example in examples)


def test_context_is_trimmed_before_a_single_trained_answer_too(tmp_path):
    encoder = chatml_encoder(tmp_path)
    messages = [Message(m["role"], m["content"], 0.0) for m in turns(8)]
    messages[-1] = Message("assistant", "The end.")
    [example] = next(
        iter(encoder.encode([Conversation(Origin("made", 1), tuple(messages))], max_length=100, trim=True))
    )
    assert len(example) <= 100
    assert [encoder.tokenizer.decode(s) for s in spans_of(example)] == ["The end.<|im_end|>"]


def test_an_answer_or_a_question_that_is_too_long_alone_is_never_trimmed(tmp_path):
    encoder = chatml_encoder(tmp_path)
    for length, answer in [(10, "Long " * 100), (500, "Short.")]:
        messages = tuple(Message(m["role"], m["content"]) for m in turns(3, length, answer))
        result = next(iter(encoder.encode([Conversation(Origin("made", 1), messages)], max_length=150, trim=True)))
        assert isinstance(result, OverLong)


@pytest.mark.parametrize("policy", ["drop", "trim-context"])
def test_no_policy_leaves_a_row_without_trained_tokens(hundred, policy, tmp_path):
    data = prepare(options(hundred, over_long=policy), chatml_encoder(tmp_path))
    assert all(example.supervised > 0 for example in data.examples("train"))


def test_a_long_conversation_is_trimmed_with_few_renderings(tmp_path, monkeypatch):
    encoder = chatml_encoder(tmp_path)
    render, rendered = encoder.template.render, []
    monkeypatch.setattr(encoder.template, "render", lambda m, **more: rendered.append(len(m)) or render(m, **more))
    messages = tuple(Message(m["role"], m["content"]) for m in turns(80))
    result = next(iter(encoder.encode([Conversation(Origin("made", 1), messages)], max_length=300, trim=True)))
    assert sum(len(spans_of(example)) for example in result) == 80
    assert len(rendered) < 25 * 80
