"""Pain 6: what was saved is what was trained; a fresh process says so, or the run fails."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import tinyruns
from tutelage.errors import ModelError
from tutelage.export.folder import save
from tutelage.export.parity import FLOOR, TOLERANCE, _distance, prove, record, tolerance
from tutelage.models.adapters import adapt, trainable, without_adapter
from tutelage.models.forward import prove as fastest
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.models.tokenizer import load_tokenizer
from tutelage.recipe import Lora

PROMPTS = [[n + 5, 17, 80, 3 * n + 7] for n in range(8)]


@pytest.fixture(scope="module")
def adapted(tiny_model, tmp_path_factory):
    """(folder of a saved adapter, recorded logits, how far they may be off)."""
    location = locate(str(tiny_model("llama")))
    forward = fastest(load_model(location), max_length=64)
    forward.model = adapt(forward.model, Lora(rank=2), seed=0, base=location.path)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trainable(forward.model).items():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    recorded = record(forward, PROMPTS)
    with without_adapter(forward.model):
        allowed = tolerance(recorded, record(forward, PROMPTS))
    folder = tmp_path_factory.mktemp("adapter")
    save(forward.model, folder, tokenizer=load_tokenizer(location), template=None, stop_ids=[2])
    return folder, recorded, allowed


def test_runs_record_that_a_fresh_process_reproduced_them(learned_run, lora_run):
    """Full, adapter and merged: far closer than the tolerance."""
    full = json.loads((learned_run / "result.json").read_text())["model"]
    lora = json.loads((lora_run / "result.json").read_text())["model"]
    for worst in (full["logit_difference"], lora["logit_difference"], lora["merged_logit_difference"]):
        assert 0.0 <= worst < FLOOR


def test_the_saved_models_are_not_the_base(lora_run, tiny_model):
    """Adapter and merged agree with each other, and differ from the base by more than the tolerance."""
    merged = fastest(load_model(locate(str(lora_run / "merged"))), max_length=64)
    adapter = fastest(load_model(locate(str(lora_run / "model"))), max_length=64)
    base = fastest(load_model(locate(str(tiny_model("llama")))), max_length=64)
    one, other, before = (record(forward, PROMPTS) for forward in (merged, adapter, base))
    for number in range(8):
        assert _distance(one[f"logits.{number}"], other[f"logits.{number}"]) < FLOOR
        assert _distance(one[f"logits.{number}"], before[f"logits.{number}"]) > TOLERANCE


def _damage(kind: str, tensors: dict[str, torch.Tensor]) -> str:
    """Spoil the adapter's tensors; the key that was touched."""
    key = next(name for name in sorted(tensors) if "lora_B" in name)
    if kind == "delete":
        del tensors[key]
    elif kind == "rename":
        tensors[key.replace("layers.0", "layers.9")] = tensors.pop(key)
    else:
        tensors[key] = torch.zeros_like(tensors[key])
    return key


@pytest.mark.parametrize("kind", ["delete", "rename", "zero"])
def test_a_damaged_adapter_is_found_out(adapted, tmp_path, monkeypatch, kind):
    folder, recorded, allowed = adapted
    if kind != "delete":
        tinyruns.prove_here(monkeypatch)
    spoiled = shutil.copytree(folder, tmp_path / "spoiled")
    tensors = load_file(spoiled / "adapter_model.safetensors")
    key = _damage(kind, tensors)
    save_file(tensors, spoiled / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        prove(spoiled, recorded, allowed=allowed)
    assert caught.value.code == "save/not-reproduced"
    if kind != "zero":
        assert key.removeprefix("base_model.model.").removesuffix(".weight") in str(caught.value)
    assert not (spoiled / "parity.safetensors").exists()


def test_a_full_model_that_lost_a_tensor_is_found_out(learned_run, tmp_path, monkeypatch):
    """`transformers` fills the hole with random numbers and goes on; neither the proof nor our loading does."""
    tinyruns.prove_here(monkeypatch)
    folder = shutil.copytree(learned_run / "model", tmp_path / "model")
    forward = fastest(load_model(locate(str(folder))), max_length=64)
    recorded = record(forward, PROMPTS)
    tensors = load_file(folder / "model.safetensors")
    key = next(name for name in tensors if name.endswith("mlp.down_proj.weight"))
    del tensors[key]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        prove(folder, recorded)
    assert caught.value.code == "save/not-reproduced"
    assert key in str(caught.value)
    with pytest.raises(ModelError) as caught:
        load_model(locate(str(folder)))
    assert caught.value.code == "model/unreadable"
    assert key in str(caught.value)


def test_an_adapter_of_zeros_is_not_saved(tiny_model, tmp_path):
    location = locate(str(tiny_model("llama")))
    model = adapt(load_model(location), Lora(rank=2), seed=0, base=location.path)
    with pytest.raises(ModelError) as caught:
        save(model, tmp_path / "model", tokenizer=load_tokenizer(location), template=None, stop_ids=[2])
    assert caught.value.code == "save/untrained"
    assert "lora_B" in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_the_tolerance_never_reaches_the_base():
    """When training changed little, the save must be that much closer."""
    base = {"ids.0": torch.tensor([1]), "logits.0": torch.tensor([1.0, 2.0])}
    far = {"ids.0": torch.tensor([1]), "logits.0": torch.tensor([1.0, 3.0])}
    near = {"ids.0": torch.tensor([1]), "logits.0": torch.tensor([1.0, 2.002])}
    assert tolerance(far, base) == TOLERANCE
    assert tolerance(near, base) == pytest.approx(1e-4, rel=0.01)
    assert tolerance(base, base) == FLOOR


def test_logits_that_are_no_numbers_are_not_reproduced():
    nan = torch.tensor([float("nan"), 1.0])
    assert _distance(nan, torch.tensor([1.0, 1.0])) > TOLERANCE
    assert _distance(torch.tensor([1.0, 1.0]), nan) > TOLERANCE
