"""Truncation: over-long rows stop the run, are dropped and counted, or lose early turns; an answer is never cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import REFUSED_TEMPLATES, TEMPLATES, make_encoder, make_template_tokenizer, make_tokenizer
from conftest import supervised_spans as spans_of
from tutelage.data.dataset import prepare
from tutelage.data.encode import CUT_NOTICE, OverLong
from tutelage.data.encode.trim import CUT, cut_to_fit
from tutelage.errors import DataError
from tutelage.recipe import DataOptions
from tutelage.types import Completion, Conversation, Message, Origin

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
    return DataOptions.model_validate(
        {"train": [{"path": str(path)}], "heldout": 0, "max_length": 150, "store": f"{path.parent}/tokens", **more}
    )


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
    assert len(list(prepare(options(hundred, max_length=longest), chatml_encoder(tmp_path)).rows())) == 100
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
    rows = list(data.rows())
    for row, demonstration in zip(rows, data.demonstrations(rows), strict=True):
        answers = [m.content for m in demonstration.messages if m.role == "assistant"]
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


def test_an_answer_that_is_too_long_alone_is_never_trimmed(tmp_path):
    encoder = chatml_encoder(tmp_path)
    messages = tuple(Message(m["role"], m["content"]) for m in turns(3, 10, "Long " * 100))
    result = next(iter(encoder.encode([Conversation(Origin("made", 1), messages)], max_length=150, trim=True)))
    assert isinstance(result, OverLong)
    assert not encoder.notices
    assert not encoder.stop_ids


WORDS = st.lists(
    st.sampled_from(["fox", "é", "日本語" * 9, "<|im_end|>", "\n\n", "😀", "a" * 40, "end."]), max_size=120
)


@settings(deadline=None, max_examples=60)
@given(
    documents=st.lists(WORDS.map(" ".join), min_size=1, max_size=4),
    answer=st.text(max_size=30),
    limit=st.integers(60, 200),
    system=st.booleans(),
    name=st.sampled_from(["chatml", "llama3", "qwen3", "alpaca"]),
)
def test_a_trimmed_row_fits_and_keeps_its_answers_whole(documents, answer, limit, system, name, encoders):
    answer = f"x{answer}x"
    encoder = encoders(name)
    messages = [Message("system", "Be brief.")] if system else []
    for number, document in enumerate(documents):
        messages += [Message("user", f"Q{number} {document} ?{number}"), Message("assistant", answer)]
    row = Conversation(Origin("made", 1), tuple(messages))
    encoder.notices.clear()
    result = next(iter(encoder.encode([row], max_length=limit, trim=True)))
    [bare] = encoder.encode([row_of(system, CUT.strip(), answer)], max_length=10_000)
    if isinstance(result, OverLong):
        assert max(map(len, bare)) > limit
        return
    assert all(len(example) <= limit for example in result)
    decode = encoder.tokenizer.decode
    [whole] = [spans_of(example) for example in bare]
    spans = [span for example in result for span in spans_of(example)]
    assert spans == whole * len(documents)
    for example in result:
        prompt = example.input_ids[: example.prompt_length].tolist()
        harmless = encoder.prompt_ids([*([Message("system", "Be brief.")] if system else []), Message("user", "x")])
        # The mark is never a control token, and a cut prompt begins and ends as its template has it.
        assert prompt[0] == harmless[0]
        assert prompt[-1] == harmless[-1]
        text = decode(prompt)
        assert not system or "Be brief." in text
        if CUT in text:
            assert encoder.notices[CUT_NOTICE] > 0
            assert "Q" in text.partition(CUT)[0]
    if encoder.notices[CUT_NOTICE]:
        assert any(CUT.strip() in decode(example.input_ids) for example in result)


def row_of(system, question, answer):
    head = (Message("system", "Be brief."),) if system else ()
    return Conversation(Origin("made", 1), (*head, Message("user", question), Message("assistant", answer)))


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    made = {}

    def make(name):
        if name not in made:
            made[name] = make_encoder(make_template_tokenizer(tmp_path_factory.mktemp(name), name))
        return made[name]

    return make


def test_the_middle_of_a_long_document_is_cut_at_words_and_counted(tmp_path):
    encoder = chatml_encoder(tmp_path)
    document = "Read: " + " ".join(f"word{n}" for n in range(300)) + " What is it about?"
    row = Conversation(Origin("made", 1), (Message("user", document), Message("assistant", "Words.")))
    [example] = next(iter(encoder.encode([row], max_length=150, trim=True)))
    assert 130 < len(example) <= 150
    text = encoder.tokenizer.decode(example.input_ids)
    head, cut, tail = text.partition(CUT)
    assert cut
    assert head.startswith("<|im_start|>user\nRead: word0 word1 ")
    assert tail.endswith(" What is it about?<|im_end|>\n<|im_start|>assistant\nWords.<|im_end|>")
    assert document.startswith(head.removeprefix("<|im_start|>user\n"))
    assert document.endswith(tail.partition("<|im_end|>")[0])
    assert encoder.notices == {CUT_NOTICE: 1}
    for edge in (head.rsplit(maxsplit=1)[-1], tail.split(maxsplit=1)[0]):
        assert edge in document.split()


def test_the_longest_message_of_the_prompt_is_cut_and_the_system_message_last(tmp_path):
    encoder = chatml_encoder(tmp_path)
    messages = (
        Message("system", "Rule. " * 40),
        Message("user", "Look it up."),
        Message("assistant", "Yes.", 0.0),
        Message("tool", "found " * 200),
        Message("assistant", "Done."),
    )
    row = Conversation(Origin("made", 1), messages)
    [example] = next(iter(encoder.encode([row], max_length=300, trim=True)))
    text = encoder.tokenizer.decode(example.input_ids)
    assert text.count("Rule.") == 40
    assert "Look it up." in text
    assert text.count("found") < 200
    [shorter] = next(iter(encoder.encode([row], max_length=120, trim=True)))
    text = encoder.tokenizer.decode(shorter.input_ids)
    assert 0 < text.count("Rule.") < 40
    assert "found" not in text
    assert text.endswith("Done.<|im_end|>")
    assert len(shorter) <= 120


def test_a_cut_is_never_inside_what_is_one_character_to_a_reader():
    family = "👩\u200d👩\u200d👧" * 40
    accents = "e\u0301" * 200
    for text in (family, accents):
        for most in range(10, 60, 7):
            cut = cut_to_fit(text, lambda candidate, most=most: len(candidate) <= most * 5, most * 5)
            assert cut is not None
            if CUT not in cut:  # Too little room for a single character.
                assert cut == CUT.strip()
                continue
            head, _, tail = cut.partition(CUT)
            assert tail[:1] not in ("\u200d", "\u0301")
            assert not head.endswith("\u200d")
            assert text.startswith(head)
            assert text.endswith(tail)


def test_the_prompt_of_plain_text_loses_its_middle_too(tmp_path):
    tokenizer = make_tokenizer(tmp_path, template=None, eos="</s>", bos="<s>")
    encoder = make_encoder(tokenizer)
    prompt = "Read: " + "word " * 300 + "\nA:"
    long = Completion(Origin("made", 1), prompt, " Words.")
    [example], lost = encoder.encode(
        [long, Completion(Origin("made", 2), "Q", " word" * 300)], max_length=100, trim=True
    )
    assert len(example) <= 100
    text = tokenizer.decode(example.input_ids)
    assert text.startswith("<s>Read: word")
    assert text.endswith("\nA: Words.</s>")
    assert CUT in text
    assert tokenizer.decode(example.input_ids[example.weights > 0]) == " Words.</s>"
    assert isinstance(lost, OverLong)
    assert encoder.notices == {CUT_NOTICE: 1}
    assert isinstance(next(iter(encoder.encode([long], max_length=100))), OverLong)


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
