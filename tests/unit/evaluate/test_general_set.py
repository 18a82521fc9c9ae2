"""The general set: our own texts and the user's files, the same part of them each time."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from conftest import make_encoder, make_tokenizer
from tutelage.errors import DataError
from tutelage.evaluate import general
from tutelage.evaluate.general import LIMIT_TOKENS, OURS, load, passages


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return make_encoder(make_tokenizer(tmp_path_factory.mktemp("chat")))


@pytest.fixture(scope="module")
def plain_encoder(tmp_path_factory):
    return make_encoder(make_tokenizer(tmp_path_factory.mktemp("plain"), template=None))


@pytest.fixture
def whole(monkeypatch):
    """The tests' tokenizer knows few words, so that it needs more tokens than a real one."""
    monkeypatch.setattr(general, "PASSAGE", 10**9)
    return {"limit_tokens": 10**9, "max_length": 10**9}


def words(passage) -> int:
    turns = passage.get("messages") or [{"content": passage["text"]}]
    return sum(len(turn["content"].split()) for turn in turns)


def said(encoder, made) -> list[str]:
    return [encoder.tokenizer.decode(example.input_ids) for example in made.examples]


def test_our_own_texts_are_many_short_and_varied():
    ours = passages()
    assert 55 <= len(ours) <= 80
    assert 6000 <= sum(map(words, ours)) <= 9000
    assert all(40 <= words(passage) <= 200 for passage in ours)
    assert len({passage["id"] for passage in ours}) == len(ours)
    assert len({json.dumps(passage.get("text") or passage["messages"]) for passage in ours}) == len(ours)
    kinds = Counter(passage["kind"] for passage in ours)
    assert {"explanation", "narrative", "letter", "how-to", "dialogue", "arithmetic", "code", "table"} < kinds.keys()
    assert {"news", "german", "french", "spanish", "conversation"} < kinds.keys()
    assert kinds["conversation"] >= 5
    for passage in ours:
        roles = [turn["role"] for turn in passage.get("messages", [])]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_python_among_them_is_python():
    """The snippets that are Python at all."""
    found = [p["text"] for p in passages() if p["kind"] == "code" and p["text"].startswith(("def", "import", "class"))]
    assert len(found) == 3
    for text in found:
        compile(text, "passage", "exec")


def test_a_run_takes_each_kind_once_before_any_twice(encoder, whole):
    kinds = {passage["kind"]: 0 for passage in passages()}
    made = load((), encoder, **whole)
    assert len(made.examples) == len(passages())
    assert made.names == (OURS,)
    for example in made.examples[: len(kinds)]:
        kinds[passages()[example.origin.line - 1]["kind"]] += 1
    assert set(kinds.values()) == {1}


def test_the_default_is_small_and_a_larger_limit_adds(encoder):
    few, more = load((), encoder), load((), encoder, 2 * LIMIT_TOKENS)
    assert 0.5 * LIMIT_TOKENS < few.tokens <= LIMIT_TOKENS < more.tokens <= 2 * LIMIT_TOKENS
    assert said(encoder, more)[: len(few.examples)] == said(encoder, few)
    assert load((), encoder).hash == few.hash != more.hash
    assert len(load((), encoder, 1).examples) == 1


def test_every_token_of_a_text_is_predicted_but_the_first_and_none_is_added(encoder, whole):
    made = load((), encoder, **whole)
    places = [place for place, p in enumerate(passages()) if "text" in p]
    for example in made.examples:
        if example.origin.line - 1 in places:
            text = passages()[example.origin.line - 1]["text"]
            assert encoder.tokenizer.decode(example.input_ids) == text
            assert example.weights.tolist() == [0.0] + [1.0] * (len(example) - 1)
    assert made.counts.sum() == made.tokens == made.starts[-1]


def test_what_the_tokenizer_puts_in_front_is_not_predicted(tmp_path):
    with_bos = make_encoder(make_tokenizer(tmp_path, bos="<s>"))
    first = load((), with_bos, 1).examples[0]
    assert with_bos.tokenizer.decode(first.input_ids[:1]) == "<s>"
    assert first.weights[:3].tolist() == [0.0, 1.0, 1.0]
    with_bos.tokenizer.opening = [3, 1]
    assert load((), with_bos, 1).examples[0].weights[:4].tolist() == [0.0, 0.0, 1.0, 1.0]


def test_conversations_go_through_the_template_where_there_is_one(encoder, plain_encoder, whole):
    place = next(n for n, p in enumerate(passages(), start=1) if p["kind"] == "conversation")
    turns = passages()[place - 1]["messages"]
    by_template, plain = (load((), one, **whole) for one in (encoder, plain_encoder))
    chat = next(e for e in by_template.examples if e.origin.line == place)
    trained = encoder.tokenizer.decode(chat.input_ids[chat.weights > 0])
    assert trained == "".join(t["content"] + "<|im_end|>" for t in turns if t["role"] == "assistant")
    text = plain_encoder.tokenizer.decode(next(e for e in plain.examples if e.origin.line == place).input_ids)
    assert text.startswith(f"User: {turns[0]['content']}\n\nAssistant: {turns[1]['content']}")
    assert not encoder.stop_ids, "the run's own encoder counted rows that are not trained"


def test_a_template_that_refuses_conversations_costs_no_text(tmp_path, whole):
    refusing = make_encoder(
        make_tokenizer(
            tmp_path,
            template="{% if messages[0]['content'] | length > 5 %}{{ raise_exception('no') }}{% endif %}"
            "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|im_end|>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
        )
    )
    made = load((), refusing, **whole)
    assert len(made.examples) == len(passages())


def test_texts_are_cut_to_the_length_that_the_model_takes(encoder):
    made = load((), encoder, 10**9, max_length=100)
    assert max(map(len, made.examples)) == 100


def test_a_file_of_text_is_a_group_of_short_texts(encoder, tmp_path):
    path = tmp_path / "book.txt"
    sentences = [f"Sentence number {n} tells of the {n * 7 % 97} ships that came." for n in range(400)]
    path.write_text("\n".join(sentences), "utf-8")
    made = load([str(path)], encoder, 2000)
    assert made.names == (OURS, str(path))
    mine = made.groups == 1
    assert mine.sum() >= 2
    assert 1000 < made.counts[mine].sum() <= 2000
    whole = path.read_text("utf-8")
    assert all(text in whole for text, is_mine in zip(said(encoder, made), mine, strict=True) if is_mine)
    assert made.hash != load((), encoder, 2000).hash


def test_pieces_of_a_text_lose_no_word():
    text = " ".join(f"word{n}" for n in range(2000)) + " end."
    pieces = [match.group() for match in general._PIECE.finditer(text)]
    assert " ".join(pieces) == text
    assert all(len(piece) <= 1502 for piece in pieces)
    assert "".join(m.group() for m in general._PIECE.finditer("x" * 4000)) == "x" * 4000


def test_rows_of_any_format_are_measured_as_they_would_be_trained(encoder, plain_encoder, rows):
    chat = rows([{"messages": [{"role": "user", "content": "Red?"}, {"role": "assistant", "content": "Blue."}]}])
    pair = rows([{"prompt": "Red? ", "completion": "Blue."}], "pair.jsonl")
    made = load([str(chat), str(pair)], encoder, 50)
    trained = [encoder.tokenizer.decode(e.input_ids[e.weights > 0]) for e in made.examples]
    assert trained[-2:] == ["Blue.<|im_end|>", "Blue.<|im_end|>"]
    assert made.groups.tolist()[-2:] == [1, 2]
    (*_, last) = load([str(pair)], plain_encoder, 50).examples
    assert plain_encoder.tokenizer.decode(last.input_ids) == "Red? Blue.<|im_end|>"


def test_the_order_of_rows_decides_nothing(encoder, rows):
    texts = [{"text": f"The {n}th of many short notes about ships."} for n in range(60)]
    one = load([str(rows(texts, "one.jsonl"))], encoder, 300)
    other = load([str(rows(texts[::-1], "two.jsonl"))], encoder, 300)
    assert said(encoder, one) == said(encoder, other)
    assert 2 < (one.groups == 1).sum() < 60


def test_a_weight_of_a_row_does_not_count(encoder, rows):
    path = rows([{"prompt": "Red? ", "completion": "Blue.", "weight": 0.25}])
    assert set(load([str(path)], encoder, 50).examples[-1].weights.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("content", "code"),
    [("", "data/empty-file"), ('{"text": "a"', "data/bad-json"), ('{"colour": 3}', "data/unknown-format")],
)
def test_a_file_that_is_not_right_is_refused(encoder, tmp_path, content, code):
    path = tmp_path / "wrong.jsonl"
    path.write_text(content, "utf-8")
    with pytest.raises(DataError) as refused:
        load([str(path)], encoder)
    assert refused.value.code == code


def test_a_file_without_a_text_is_refused(encoder, rows):
    with pytest.raises(DataError) as refused:
        load([str(rows([{"prompt": "Why? " * 600, "completion": "Blue."}]))], encoder)
    assert refused.value.code == "data/no-rows"
