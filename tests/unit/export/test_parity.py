"""What is recorded of the model in memory, for a fresh process to reproduce."""

from __future__ import annotations

import pytest
import torch

from tutelage.errors import DivergedError
from tutelage.export.parity import record
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import Location

ROWS = [[5, 9, 11], [7, 8]]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_broke_in_memory_is_not_exported(tiny_model, value):
    forward = prove(load_model(Location(str(tiny_model("llama")))), max_length=64)
    assert set(record(forward, ROWS)) == {"ids.0", "logits.0", "ids.1", "logits.1"}
    with torch.no_grad():
        forward.model.get_input_embeddings().weight[11] = value
    with pytest.raises(DivergedError, match="logits that are not finite"):
        record(forward, ROWS)
