"""Tokens that the model has no embedding for, and text that the vocabulary cannot write."""

from __future__ import annotations

import json
import shutil

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tinyruns
from conftest import make_tokenizer
from tutelage import assemble, config
from tutelage.data.encode.tokenizer import Tokenizer
from tutelage.errors import ModelError


@pytest.fixture
def prepare(tmp_path, tiny_model):
    """Rows prepared for a copy of a model that `change` has changed, and what was said."""

    def prepared(change, **sections):
        folder = tmp_path / "model"
        shutil.copytree(tiny_model("llama"), folder)
        change(folder)
        data = tinyruns.write_rows(tmp_path / "rows.jsonl", tinyruns.demonstrations())
        said: list[str] = []
        recipe = config.resolve(tinyruns.recipe(folder, data, tmp_path / "run", **sections)).recipe
        return assemble.prepare_data(recipe, say=said.append), said

    return prepared


def embedded(folder, count):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "vocab_size": count}), "utf-8")


def highest(prepared) -> int:
    return max(int(example.input_ids.max()) for split in (prepared.train, prepared.heldout) for example in split)


def test_ids_without_an_embedding_are_refused_with_both_numbers(prepare):
    with pytest.raises(ModelError) as caught:
        prepare(lambda folder: embedded(folder, 100))
    (problem,) = caught.value.problems
    assert problem.code == "model/tokens-outside"
    ids = len(Backend.from_file(f"{problem.where}/tokenizer.json").get_vocab())
    assert problem.found.startswith(f"ids up to {ids - 1} and 100 embeddings; ")
    assert "rows.jsonl:1" in problem.found


def test_ids_that_no_row_holds_may_lack_theirs(prepare, tmp_path):
    """A padding token that was added to the tokenizer alone harms nobody who never pads."""
    whole, _ = prepare(lambda folder: None)
    shutil.rmtree(tmp_path / "model")
    prepared, _ = prepare(lambda folder: embedded(folder, highest(whole) + 1))
    assert highest(prepared) == highest(whole)
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(ModelError):
        prepare(lambda folder: embedded(folder, highest(whole)))


def word_level(folder, unknown: str | None):
    """A tokenizer that knows few words, and perhaps has a token for all others."""
    make_tokenizer(folder)
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "user", "assistant", "Colour", "red", "?", "\n"]
    vocab = {word: id for id, word in enumerate(words if unknown is None else [*words, unknown])}
    backend = Backend(models.WordLevel(vocab, unk_token=unknown or "red"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    template = PreTrainedTokenizerFast.from_pretrained(folder).chat_template
    whole = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", unk_token=unknown)
    whole.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|endoftext|>"]})
    whole.chat_template = template
    whole.save_pretrained(folder)


def test_text_outside_the_vocabulary_is_told_of(prepare):
    prepared, said = prepare(lambda folder: word_level(folder, "[UNK]"))
    (note,) = [line for line in said if "cannot write" in line]
    store = prepared.dataset.store
    count, rows = store.holding(range(9, 10))
    assert count > 0.001 * store.lengths.sum()
    assert note.startswith(f"note    {count / store.lengths.sum():.1%} of the tokens stand for text")
    assert f"([UNK], in {len(rows)} rows: {store.origin(rows[0])}, " in note


def test_of_a_vocabulary_that_can_write_everything_nothing_is_said(prepare):
    _, said = prepare(lambda folder: None)
    assert not [line for line in said if "cannot write" in line]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (models.BPE(), None),
        (models.WordLevel({"a": 0, "[UNK]": 7}, unk_token="[UNK]"), 7),
        (models.WordPiece({"a": 0, "[UNK]": 3}, unk_token="[UNK]"), 3),
        (models.Unigram([("a", -1.0), ("<unk>", 0.0)], 1, False), 1),
        (models.Unigram([("a", -1.0)], None, False), None),
    ],
)
def test_the_unknown_token_of_each_kind_of_model(model, expected):
    assert Tokenizer(Backend(model), {}).unknown_id == expected


def test_what_holds_an_id_is_found_in_every_part(prepare):
    store = prepare(lambda folder: None)[0].dataset.store
    examples = [store.example(index) for index in range(len(store))]
    for id in {int(id) for example in examples for id in example.input_ids}:
        count, rows = store.holding(range(id, id + 1))
        assert count == sum(int((example.input_ids == id).sum()) for example in examples)
        assert [store.origin(row) for row in rows] == [e.origin for e in examples if (e.input_ids == id).any()]
