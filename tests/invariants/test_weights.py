"""Weights of source, row, message and thinking multiply, from the file to the gradient."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from test_one_gradient import assert_same, gradients, padded_reference
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import make_encoder
from tutelage.data.dataset import prepare
from tutelage.data.encode import Encoder
from tutelage.models.adapters import adapt
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.recipe import DataOptions, Full

SOURCE, ROW, MESSAGE, THINKING = 2.0, 0.5, 3.0, 0.25


@pytest.fixture
def weighted(tmp_path, tiny_model):
    """Two sources, of which the first has every weight and the second none; the examples and the model."""
    thought = [
        {"role": "user", "content": "What colour?"},
        {"role": "assistant", "content": "<think>\nIt is red.\n</think>\n\nRed.", "weight": MESSAGE},
        {"role": "user", "content": "And this?"},
        {"role": "assistant", "content": "Blue."},
    ]
    plain = [{"role": "user", "content": "Name a number."}, {"role": "assistant", "content": "Four."}]
    for name, rows in (("a", [{"messages": thought, "weight": ROW}]), ("b", [{"messages": plain}])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tiny_model("llama")
    train = [{"path": str(tmp_path / "a.jsonl"), "weight": SOURCE}, {"path": str(tmp_path / "b.jsonl")}]
    options = DataOptions.model_validate({"train": train, "heldout": 0, "thinking_weight": THINKING})
    plain_encoder = make_encoder(AutoTokenizer.from_pretrained(folder))
    encoder = Encoder(plain_encoder.tokenizer, plain_encoder.template, thinking_weight=THINKING)
    return list(prepare(options, encoder).examples("train")), encoder, locate(str(folder))


def test_each_token_has_the_product_of_its_weights(weighted):
    examples, encoder, _ = weighted
    said: dict[float, str] = {}
    for example in examples:
        for weight in np.unique(example.weights):
            of_weight = example.input_ids[example.weights == weight].tolist()
            said[float(weight)] = said.get(float(weight), "") + encoder.tokenizer.decode(of_weight)
    assert said.keys() == {0.0, 1.0, SOURCE * ROW * MESSAGE, SOURCE * ROW * MESSAGE * THINKING}
    assert said[SOURCE * ROW * MESSAGE * THINKING].startswith("<think>")
    assert said[SOURCE * ROW * MESSAGE].strip().startswith("Red.")
    assert "Blue." in said[1.0]  # the source and the row undo each other
    assert "Four." in said[1.0]


def test_the_gradient_is_the_weighted_sum_by_the_sum_of_weights(weighted):
    examples, _, location = weighted
    plain = AutoModelForCausalLM.from_pretrained(location.path, dtype=torch.float32).eval()
    reference_loss, reference = padded_reference(plain, examples)
    forward = prove(load_model(location), max_length=256)
    adapt(forward.model, Full(), seed=0, base="")
    for groups in ([examples], [[example] for example in examples]):
        loss, found = gradients(forward, groups)
        assert loss == pytest.approx(reference_loss, rel=1e-6)
        assert_same(found, reference)
