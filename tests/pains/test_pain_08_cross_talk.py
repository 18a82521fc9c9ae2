"""Pain 8: rows that are computed together do not see each other, or are not computed together.

The backends for a GPU are tried in tests/unit/models/test_attention.py as far as a CPU can.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tutelage.data.batch import pack
from tutelage.data.forest import trees_of_one
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.types import Example, Origin

PACKED = ["llama", "qwen2", "qwen3", "gpt2", "cohere", "mistral-window"]
ONE_BY_ONE = ["gemma2"]


def made(*lengths: int) -> list[Example]:
    """Rows in which every token but the first is trained."""
    rng = np.random.default_rng(0)
    weights = [np.r_[0.0, np.ones(n - 1)].astype(np.float32) for n in lengths]
    return [
        Example(rng.integers(5, 300, n).astype(np.int32), w, Origin("made", i), 1)
        for i, (n, w) in enumerate(zip(lengths, weights, strict=True), 1)
    ]


@pytest.mark.parametrize("family", PACKED + ONE_BY_ONE)
@torch.no_grad()
def test_losses_together_equal_those_alone(family, tiny_model):
    forward = prove(load_model(locate(str(tiny_model(family)))), max_length=64)
    examples = made(9, 30, 2, 17)
    together = forward.nll(pack(examples))[1]
    alone = torch.cat([forward.nll(pack([example]))[1] for example in examples])
    assert len(together) == sum(len(example) - 1 for example in examples)
    assert (together - alone).abs().max() < 1e-5


@pytest.mark.parametrize("family", PACKED)
@torch.no_grad()
def test_changing_a_row_leaves_the_others_as_they_are_bit_for_bit(family, tiny_model):
    forward = prove(load_model(locate(str(tiny_model(family)))), max_length=64)
    first, *others = made(9, 30, 17)
    before = forward.nll(pack([first, *others]))[1]
    changed = Example(first.input_ids[::-1].copy(), first.weights, first.origin, 1)
    after = forward.nll(pack([changed, *others]))[1]
    own = len(first) - 1
    assert torch.equal(after[own:], before[own:])
    assert not torch.equal(after[:own], before[:own])


@pytest.mark.parametrize("family", ONE_BY_ONE)
def test_a_model_that_cannot_is_known_at_the_start_and_run_row_by_row(family, tiny_model):
    forward = prove(load_model(locate(str(tiny_model(family)))), max_length=64)
    assert not forward.packed
    assert forward.reason


@torch.no_grad()
def test_attention_that_leaks_is_found_out(tiny_model, monkeypatch):
    """With one segment for all rows, as a packer without boundaries has it, the proof fails and packing is given up."""
    from tutelage.models import attention

    original = attention.attend_segments
    monkeypatch.setattr(
        attention.interface,
        "attend_segments",
        lambda q, k, v, segments, **o: original(q, k, v, trees_of_one([q.shape[2]]), **o),
    )
    forward = prove(load_model(locate(str(tiny_model("llama")))), max_length=64)
    assert not forward.packed
    assert "do not come out as they do alone" in forward.reason
