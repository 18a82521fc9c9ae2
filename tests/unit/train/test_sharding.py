"""A model in one piece, replicated and divided over processes learns the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import launching
from tutelage.train.slices import files_of, name_of, read

DRIVER = Path(__file__).with_name("rank_driver.py")


@pytest.mark.parametrize("family", ["llama-untied", "gemma2"])
def test_one_process_replicas_and_slices_agree(tmp_path: Path, tiny_model: Callable[..., Path], family: str) -> None:
    """Tied and untied heads; a model that runs one example at a time; full and LoRA with dropout."""
    with launching.Launched(2, [DRIVER, "shard", tiny_model(family)]) as launched:
        assert launched.wait() == [0, 0], launched.said(0) + launched.said(1)
        said = [json.loads(launched.said(rank).splitlines()[-1]) for rank in range(2)]
    assert said[0] == said[1]
    assert set(said[0]) == {"full replicated", "full sharded", "lora replicated", "lora sharded"}
    for way, (loss, norm, weight, learned) in said[0].items():
        assert max(loss, norm, weight) <= 1e-6, way
        assert abs(learned) > 1e-3, way  # So that weights that stayed as they were would show.


def _written(folder: Path, tensors: dict[str, torch.Tensor], cuts: dict[str, list[int]], world: int) -> list[Path]:
    for rank in range(world):
        parts = {
            name: tensor if name not in cuts else tensor.split(cuts[name])[rank].clone()
            for name, tensor in tensors.items()
        }
        save_file(parts, folder / name_of("model.safetensors", rank, world))
    return files_of(folder, "model.safetensors", [path.name for path in folder.iterdir()])


def test_slices_are_read_by_any_number_of_processes(tmp_path: Path) -> None:
    whole = {"w": torch.arange(15.0).view(5, 3), "w/mean": torch.arange(5.0), "w/steps": torch.tensor(4.0)}
    paths = _written(tmp_path, whole, {"w": [2, 2, 1, 0], "w/mean": [2, 2, 1, 0]}, 4)
    assert [path.name for path in paths][-1] == "model-00004-of-00004.safetensors"
    found = read(paths)
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())
    for rows in ((0, 3), (3, 5), (1, 4), (5, 5)):
        part = read(paths, {"w": rows})
        assert torch.equal(part["w"], whole["w"][slice(*rows)])
        assert torch.equal(part["w/mean"], whole["w/mean"][slice(*rows)])
        assert torch.equal(part["w/steps"], whole["w/steps"])


def test_a_set_of_slices_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nor one set of slices"):
        files_of(tmp_path, "model.safetensors", ["optimizer.safetensors"])
    with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors is missing"):
        files_of(tmp_path, "model.safetensors", ["model-00001-of-00002.safetensors"])
    both = ["model-00001-of-00001.safetensors", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    with pytest.raises(ValueError, match="nor one set of slices"):
        files_of(tmp_path, "model.safetensors", both)
