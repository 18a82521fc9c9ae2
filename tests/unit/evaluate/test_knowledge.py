"""Knowledge against format: which words of held-out answers neither form nor prompt nor base gives."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from conftest import make_encoder, make_tokenizer
from tutelage.data.dataset import prepare
from tutelage.evaluate import shots
from tutelage.evaluate.knowledge import Answer, Knowledge, knowledge, word_of
from tutelage.evaluate.shots import placed
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.models.tokenizer import load_tokenizer
from tutelage.recipe import DataOptions, Source
from tutelage.types import Origin

COUNT = 60


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return make_encoder(make_tokenizer(tmp_path_factory.mktemp("chat")))


@pytest.fixture(scope="module")
def plain_encoder(tmp_path_factory):
    return make_encoder(make_tokenizer(tmp_path_factory.mktemp("plain"), template=None))


@pytest.fixture
def dataset(tmp_path):
    """`dataset(rows, encoder)`: the rows, a quarter of them held out."""

    def make(rows, encoder, name="rows", **options):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        sources = (Source(path=str(path)), *options.pop("more", ()))
        return prepare(DataOptions(train=sources, heldout=0.25, store=str(tmp_path / "store"), **options), encoder)

    return make


def asked(question: str, answer: str) -> dict[str, str]:
    return {"instruction": question, "input": "", "output": answer}


def boxes(count: int = COUNT):
    return [
        {"instruction": f"Colour of box {n}?", "input": "", "output": f"It is shade {n * 7}."} for n in range(count)
    ]


def put(rows, encoder, *, limit=8, max_length=1024):
    return placed(rows, encoder, stop_ids=set(rows.stop_ids), limit=limit, max_length=max_length)


def before(encoder, example) -> str:
    return encoder.tokenizer.decode(example.input_ids[: example.prompt_length])


# ----------------------------------------------------------------------------------------- what stands before answers


def test_an_answer_in_its_three_places(dataset, encoder):
    rows = dataset(boxes(), encoder)
    answers = {f"Colour of box {n}?": f"It is shade {n * 7}." for n in range(COUNT)}
    trained = {encoder.tokenizer.decode(row.examples[0].input_ids) for row in rows.rows("train")}
    found = put(rows, encoder)
    assert len(found) == 8
    assert {one.origin for one in found} <= {row.origin for row in rows.rows("heldout")}
    for one in found:
        for example in (one.zero, one.few, one.control):
            assert tuple(example.input_ids[example.weights > 0].tolist()) == one.answer
            assert tuple(example.input_ids[example.prompt_length :].tolist()) == one.answer
        zero, few, control = (before(encoder, each) for each in (one.zero, one.few, one.control))
        question = zero.removeprefix("<|im_start|>user\n").removesuffix("<|im_end|>\n<|im_start|>assistant\n")
        assert encoder.tokenizer.decode(one.answer) == answers[question]
        assert few.endswith(zero)
        shown = few.removesuffix(zero)
        turns = [turn + "<|im_end|>\n" for turn in shown.split("<|im_end|>\n") if turn]
        assert one.shots == 3
        assert len(turns) == 6
        rows_shown = {turns[n] + turns[n + 1].removesuffix("\n") for n in (0, 2, 4)}
        assert len(rows_shown) == 3
        assert rows_shown <= trained
        assert control.startswith(shown)
        other = control.removeprefix(shown)
        assert other != zero
        assert other in {before(encoder, each.zero) for each in found}


def test_sets_of_examples_differ_and_the_order_of_rows_decides_nothing(dataset, encoder):
    alike = []
    for rows in (dataset(boxes(), encoder), dataset(boxes()[::-1], encoder, "other")):
        texts = [[before(encoder, each) for each in (one.zero, one.few, one.control)] for one in put(rows, encoder)]
        alike.append({zero: (few, control) for zero, few, control in texts})
    assert alike[0] == alike[1]
    assert 2 <= len({few.removesuffix(zero) for zero, (few, _) in alike[0].items()}) <= shots.SETS
    assert not encoder.notices


def test_fewer_examples_where_they_do_not_fit_and_no_row_where_none_does(dataset, encoder):
    rows = dataset(boxes(), encoder)
    lengths = {}
    for limit in (1024, 130, 100, 60):
        found = put(rows, encoder, max_length=limit)
        lengths[limit] = {one.shots for one in found}
        for one in found:
            assert max(len(one.few), len(one.control)) <= limit
    assert lengths[1024] == {3}
    assert max(lengths[130]) < 3
    assert lengths[60] == set()


def test_long_rows_are_not_shown_where_there_are_short_ones(dataset, encoder):
    long = [asked(f"Long {n}?", "shade " * 100) for n in range(40)]
    for one in put(dataset(boxes() + long, encoder), encoder, limit=30):
        assert "Long" not in before(encoder, one.few).rpartition("<|im_start|>user")[0]


def test_without_a_template_examples_stand_as_text(dataset, plain_encoder):
    pairs = [{"prompt": f"Box {n} is", "completion": f" shade {n * 7}"} for n in range(COUNT)]
    for one in put(dataset(pairs, plain_encoder), plain_encoder):
        zero, few, control = (before(plain_encoder, each) for each in (one.zero, one.few, one.control))
        *shown, last = few.split("\n\n")
        assert last == zero
        assert len(shown) == 3
        assert {f"{pair['prompt']}{pair['completion']}" for pair in pairs} > set(shown)
        assert control.split("\n\n")[:3] == shown
        assert control.split("\n\n")[3] != zero
        assert plain_encoder.tokenizer.decode(one.answer).startswith(" shade")


def test_a_message_of_the_system_stays_in_front(dataset, encoder):
    chats = [
        {
            "messages": [
                {"role": "system", "content": f"Rule {n}."},
                {"role": "user", "content": f"Box {n}?"},
                {"role": "assistant", "content": f"Shade {n}."},
                {"role": "user", "content": "Sure?"},
                {"role": "assistant", "content": "Yes."},
            ]
        }
        for n in range(COUNT)
    ]
    for one in put(dataset(chats, encoder), encoder):
        few, control = before(encoder, one.few), before(encoder, one.control)
        number = encoder.tokenizer.decode(one.answer).removeprefix("Shade ").removesuffix(".")
        assert few.startswith(f"<|im_start|>system\nRule {number}.<|im_end|>\n")
        assert few.count("<|im_start|>system") == control.count("<|im_start|>system") == 1
        assert few.count("Sure?") == 0
        assert not control.startswith(f"<|im_start|>system\nRule {number}.<|im_end|>\n")


def test_examples_are_of_the_rows_own_source(dataset, encoder, tmp_path):
    other = tmp_path / "towns.jsonl"
    other.write_text(
        "".join(
            json.dumps({"instruction": f"Town {n}?", "input": "", "output": f"Far {n}."}) + "\n" for n in range(COUNT)
        )
    )
    found = put(dataset(boxes(), encoder, more=(Source(path=str(other)),)), encoder, limit=20)
    kinds = set()
    for one in found:
        text = before(encoder, one.few)
        kinds.add("Town" in text)
        assert ("Town" in text) != ("Colour" in text)
        assert ("Town" in before(encoder, one.control)) == ("Town" in text)
    assert kinds == {True, False}


def test_nothing_to_look_at(dataset, encoder):
    texts = [{"text": f"Note {n} of many."} for n in range(COUNT)]
    assert put(dataset(texts, encoder), encoder) == []
    assert put(dataset([*boxes(), *boxes(1)], encoder, "two"), encoder, limit=0) == []
    assert put(dataset(boxes(), encoder), encoder, limit=1) == [], "one row has no other row's prompt"


# ----------------------------------------------------------------------------------------------------- what is counted


@pytest.mark.parametrize("budget", [1, 64, 4096])
def test_words_are_as_likely_as_plain_transformers_says(dataset, tiny_model, budget):
    folder = tiny_model("llama")
    encoder = make_encoder(load_tokenizer(locate(str(folder))))
    rows = dataset(boxes(), encoder)
    forward = prove(load_model(locate(str(folder))), max_length=256)
    done = []
    found = knowledge(
        forward,
        rows,
        encoder,
        stop_ids=set(rows.stop_ids),
        limit=6,
        max_length=400,
        token_budget=budget,
        progress=done.append,
    )
    plain = load_model(locate(str(folder)))
    expected = put(rows, encoder, limit=6, max_length=400)
    assert sum(done) == 18
    for answer, one in zip(found.answers, expected, strict=True):
        assert "".join(answer.words) == encoder.tokenizer.decode(one.answer)
        for got, example in ((answer.zero, one.zero), (answer.few, one.few), (answer.control, one.control)):
            ids = torch.from_numpy(example.input_ids.astype(np.int64))[None]
            with torch.no_grad():
                each = cross_entropy(plain(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
            assert got.sum() == pytest.approx(float(each[example.prompt_length - 1 :].sum()), rel=1e-5)
    tokens = sum(len(one.answer) for one in expected)
    assert found.tokens == tokens
    assert found.few_shot_nll == pytest.approx(sum(a.few.sum() for a in found.answers) / tokens)
    said = found.as_json()
    assert said["n"] == 6
    assert said["shots"] == 3
    assert said["gained"]["difference"] == pytest.approx(said["few_shot_nll"] - said["control_nll"])


def test_words():
    assert word_of(["It", " is", " Tarn", "holm", "."]) == [0, 1, 2, 2, 3]
    assert word_of(["5", "55", "-", "01", "73"]) == [0, 0, 1, 1, 1]
    assert word_of(["", "ü", "ber", "\n", "x"]) == [0, 0, 0, 1, 1]
    assert word_of([" 北", "京", "和"]) == [0, 1, 2]
    assert word_of(["नम", "स्", "ते"]) == [0, 0, 0]
    assert word_of(["न", "ि"]) == [0, 0], "a vowel sign is part of its word"


def answer(few, control, zero=None) -> Answer:
    arrays = [np.array(values, dtype=float) for values in (zero or few, few, control)]
    return Answer(Origin("made", 1), tuple(f" w{n}" for n in range(len(few))), *arrays, len(few), 3)


def test_which_words_are_unknown():
    #            rare and not told · told · free wording · not content · rare, and told a little · made likelier
    one = answer([12, 0.5, 5, 0.4, 9, 9], [12, 12, 5, 0.9, 9.5, 20])
    assert one.unknown.tolist() == [True, False, False, False, True, False]


def test_an_answer_asks_for_knowledge_where_such_words_are_a_large_part_of_it():
    assert answer([12, 0.5, 0.5], [12, 12, 12]).asks_for_knowledge
    assert not answer([12, 0.5, 0.5, 0.5], [12, 12, 12, 12]).asks_for_knowledge
    assert not answer([0.1, 0.2], [0.5, 0.6]).asks_for_knowledge
    assert not answer([5.0, 5.0], [5.0, 5.0]).asks_for_knowledge, "wording that anybody might have chosen"


def test_data_that_asks_for_knowledge():
    found = Knowledge((answer([12, 0.5], [12, 12]),) * 3 + (answer([0.5, 0.5], [12, 12]),) * 7, 0.95)
    said = found.as_json()
    assert (said["unknown"], said["n"], said["share"]) == (3, 10, 0.3)
    low, high = said["interval"]
    assert (low, high) == pytest.approx((0.108, 0.603), abs=1e-3)
    assert said["sentence"].startswith("3 of 10 held-out answers (30%, 95% interval 11% to 60%) hold facts that")
    assert "arXiv:2405.05904" in said["sentence"]
    assert said["rows"] == [{"origin": {"file": "made", "line": 1}, "words": ["w0"]}] * 3


def test_data_that_asks_for_form():
    few = [answer([1.0, 0.5 + n / 10], [8.0, 8.0], zero=[3.0, 3.0]) for n in range(10)]
    found = Knowledge(tuple(few), 0.95)
    assert found.sentence == (
        "What is there to learn is mostly form: 3.00 nats per token after the prompt alone, 0.97 after 3 examples and "
        "the prompt; 0 of 10 held-out answers (0%, 95% interval 0% to 28%) hold facts that neither the prompt nor the "
        "base gives."
    )


def test_answers_that_have_nothing_to_do_with_their_prompts():
    noise = np.random.default_rng(0).normal(0, 0.1, 12)
    found = Knowledge(tuple(answer([2.0 + x, 2.0], [2.0, 2.0]) for x in noise), 0.95)
    assert "no likelier after its own prompt than after another row's" in found.sentence
    assert found.as_json()["gained"]["interval"][0] < 0 < found.as_json()["gained"]["interval"][1]


# -------------------------------------------------------------------------------------------------------- a real model

SYLLABLES = ("Brin", "Tar", "Okal", "Vesh", "Lun", "Mor", "Quill", "Fen", "Das", "Hob", "Ister", "Jorv", "Kelm", "Nax")
ENDS = ("dle", "holm", "afor", "ander", "ik", "wick", "stead", "ova", "en", "by", "mere", "rath", "ton", "ett")


@pytest.mark.model
@pytest.mark.parametrize("told", [True, False])
def test_made_up_facts_are_found_and_copied_ones_are_not(dataset, real_model, told):
    rng = random.Random(5)

    def name():
        return rng.choice(SYLLABLES) + rng.choice(ENDS)

    rows = []
    for _ in range(60):
        person, town = f"{name()} {name()}", name()
        note = f"{person} was born in {town} and lives in {name()}. " if told else ""
        rows.append(asked(f"{note}In which town was {person} born?", town))
    location = locate(real_model)
    encoder = make_encoder(load_tokenizer(location))
    data = dataset(rows, encoder)
    forward = prove(load_model(location), max_length=512)
    found = knowledge(forward, data, encoder, stop_ids=set(data.stop_ids), limit=12, max_length=512, token_budget=2048)
    assert found is not None
    share = len(found.unknown) / len(found.answers)
    assert share <= 0.2 if told else share >= 0.8
    assert ("hold facts that neither the prompt nor the base model gives" in found.sentence) != told
