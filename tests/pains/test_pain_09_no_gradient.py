"""Pain 9: a run that trains nothing stops at its first step and says which tensors received no gradient."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import tinyruns
from tutelage.data.batch import pack
from tutelage.errors import ModelError
from tutelage.models.adapters import adapt, trainable
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.objectives.base import Loss
from tutelage.objectives.nll import nll
from tutelage.recipe import Full, Lora, TrainOptions
from tutelage.train.guard import Guard, check_gradients
from tutelage.train.loop import Group, steps
from tutelage.train.optimizer import build_optimizer
from tutelage.types import Example, Origin


def group(step: int = 1) -> Group:
    ids = np.arange(10, 22, dtype=np.int32)
    weights = np.zeros(12, dtype=np.float32)
    weights[5:] = 1.0
    return Group(step, [pack([Example(ids, weights, Origin("made", 1), 5)])], [Origin("made", 1)], 0)


def start(folder, adapter):
    forward = prove(load_model(locate(str(folder))), max_length=64)
    forward.model = adapt(forward.model, adapter, seed=0, base=str(folder))
    return forward, trainable(forward.model)


def run(forward, parameters, count: int = 1):
    optimizer = build_optimizer(parameters, TrainOptions())
    loop = steps(
        forward,
        nll,
        [group(step) for step in range(1, count + 1)],
        optimizer,
        parameters=parameters,
        rate=lambda step: 1e-3,
        max_grad_norm=1.0,
        guard=Guard(),
    )
    return list(loop)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "mistral-window"])
def test_after_one_step_every_adapter_has_moved(tiny_model, family):
    forward, parameters = start(tiny_model(family), Lora(rank=2))
    run(forward, parameters)
    updates = {name: p for name, p in parameters.items() if "lora_B" in name}
    assert updates
    assert not [name for name, p in updates.items() if not p.any()]


def test_every_linear_layer_but_the_head_has_an_adapter(tiny_model):
    forward, parameters = start(tiny_model("llama-untied"), Lora(rank=2))
    linear = [name for name, _ in forward.model.named_modules() if name.endswith("_proj.base_layer")]
    assert len([name for name in parameters if "lora_A" in name]) == len(linear) == 14
    assert all("lora_" in name for name in parameters)
    assert not [name for name in parameters if "lm_head" in name]


def test_a_detached_layer_stops_the_run_before_anything_changed(tiny_model, monkeypatch):
    """As gradient checkpointing over frozen embeddings does it."""
    forward, parameters = start(tiny_model("llama"), Lora(rank=2))
    before = {name: p.clone() for name, p in parameters.items()}
    layer = forward.model.get_base_model().model.layers[0].mlp
    whole = layer.forward
    monkeypatch.setattr(layer, "forward", lambda hidden: whole(hidden).detach())
    with pytest.raises(ModelError) as caught:
        run(forward, parameters)
    assert caught.value.code == "model/no-gradient"
    assert "layers.0.mlp" in str(caught.value)
    assert "layers.1" not in str(caught.value)
    assert all(torch.equal(before[name], p) for name, p in parameters.items())


def test_the_tensors_are_named_and_counted():
    fine, silent, absent = (nn.Parameter(torch.ones(2)) for _ in range(3))
    fine.grad, silent.grad = torch.ones(2), torch.zeros(2)
    check_gradients({"fine": fine})
    with pytest.raises(ModelError) as caught:
        check_gradients({"fine": fine, "a.silent": silent, "an.absent": absent})
    assert "2 of 3 trained tensors" in str(caught.value)
    assert "a.silent, an.absent" in str(caught.value)


def test_a_first_lora_matrix_may_be_silent_but_not_without_a_gradient():
    first = nn.Parameter(torch.ones(2))
    first.grad = torch.zeros(2)
    check_gradients({"layer.lora_A.default.weight": first})
    first.grad = None
    with pytest.raises(ModelError):
        check_gradients({"layer.lora_A.default.weight": first})


def test_full_training_moves_every_tensor(tiny_model):
    forward, parameters = start(tiny_model("llama-untied"), Full())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    run(forward, parameters, 2)
    assert not [name for name, p in parameters.items() if torch.equal(before[name], p)]


def _one_tensor_alone(forward, batch):
    loss = nll(forward, batch)
    only = next(iter(trainable(forward.model).values()))
    return Loss(loss.sum.detach() + only.sum(), loss.weight)


def test_the_run_folder_says_that_it_failed(workdir, tiny_model, monkeypatch):
    data = tinyruns.write_rows(workdir / "rows.jsonl", tinyruns.demonstrations(8))
    values = tinyruns.recipe(tiny_model("llama"), data, workdir / "run", data={"heldout": 0})
    monkeypatch.setattr("tutelage.objectives.nll.nll", _one_tensor_alone)
    outcome = tinyruns.tutelage("train", tinyruns.write_recipe(workdir / "recipe.yaml", values))
    assert outcome.code == 4
    assert "error[model/no-gradient]: 19 of 20 trained tensors" in outcome.err
    result = json.loads((workdir / "run" / "result.json").read_text())
    assert result["status"] == "failed"
    assert "model/no-gradient" in result["error"]
    assert not (workdir / "run" / "model").exists()
