"""What a checkpoint holds of a run is what is put back, to the last bit; anything else is refused before a change."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tutelage.checkpoints import Checkpoints
from tutelage.errors import ModelError
from tutelage.models.precision import FLOAT32, Precision
from tutelage.recipe import TrainOptions
from tutelage.train.optimizer import build_optimizer
from tutelage.train.state import MODEL, OPTIMIZER, STATE, NotFinite, Position, restore, write

POSITION = Position(4, 512, {"skipped": 1, "in_a_row": 0, "passed_over": [3], "losses": [1.5, 0.1 + 0.2]})
MASTERS = Precision("bfloat16", "bfloat16", "float32", "float32")


def made(shape=(3, 5), dtype=torch.float32, precision=FLOAT32, seed=0):
    """Parameters and their optimizer, before the first step."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"block.matrix": shape, "block.vector": (7,), "scale": ()}
    parameters = {name: nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for name, s in shapes.items()}
    return parameters, build_optimizer(parameters, TrainOptions(), precision)


def advance(parameters, optimizer, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step(1e-2, norm=optimizer.norm(), clip=1.0, sound=torch.tensor(True))


def saved(tmp_path, parameters, optimizer, position=POSITION):
    checkpoints = Checkpoints(tmp_path)
    part = checkpoints.begin(position.step)
    write(part, parameters, optimizer, position)
    return checkpoints.commit(part, step=position.step, run="run", facts={})


def values(parameters, optimizer):
    """Everything there is, as bytes."""
    tensors = {**{name: p.detach() for name, p in parameters.items()}, **optimizer.state()}
    return {name: tensor.reshape(-1).contiguous().view(torch.uint8).tolist() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("dtype", "precision"), [(torch.float32, FLOAT32), (torch.bfloat16, MASTERS)], ids=["float32", "masters"]
)
def test_the_next_steps_are_the_same_bit_for_bit(tmp_path, dtype, precision):
    straight = made(dtype=dtype, precision=precision)
    advance(*straight, 4)
    checkpoint = saved(tmp_path, *straight)
    advance(*straight, 3, seed=2)
    fresh = made(dtype=dtype, precision=precision, seed=99)
    advance(*fresh, 1)
    assert restore(checkpoint, *fresh) == POSITION
    advance(*fresh, 3, seed=2)
    assert values(*fresh) == values(*straight)


def test_everything_is_by_name_and_readable_by_others(tmp_path):
    parameters, optimizer = made()
    advance(parameters, optimizer, 2)
    checkpoint = saved(tmp_path, parameters, optimizer)
    assert set(checkpoint.files) == {MODEL, OPTIMIZER, STATE}
    assert set(load_file(checkpoint.folder / MODEL)) == set(parameters)
    known = load_file(checkpoint.folder / OPTIMIZER)
    assert {name.partition("/")[0] for name in known} == {*parameters, "made"}
    assert int(known["made"]) == 2
    assert json.loads((checkpoint.folder / STATE).read_text())["step"] == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["parameter", "optimizer"])
def test_what_is_not_finite_is_not_written(tmp_path, value, where):
    parameters, optimizer = made()
    advance(parameters, optimizer, 1)
    tensor = parameters["block.matrix"].detach() if where == "parameter" else optimizer.slots[0].mean
    tensor[1, 2] = value
    with pytest.raises(NotFinite, match=r"^block\.matrix"):
        write(tmp_path, parameters, optimizer, POSITION)
    assert list(tmp_path.iterdir()) == []


def test_a_sum_that_overflows_is_no_value_that_is_not_finite(tmp_path):
    parameters, optimizer = made()
    parameters["block.vector"].data.fill_(3e38)
    write(tmp_path, parameters, optimizer, POSITION)
    assert torch.equal(load_file(tmp_path / MODEL)["block.vector"], parameters["block.vector"])


def refused(checkpoint, parameters, optimizer) -> str:
    """The text of the refusal, after which nothing may have changed."""
    before = values(parameters, optimizer)
    with pytest.raises(ModelError) as caught:
        restore(checkpoint, parameters, optimizer)
    assert values(parameters, optimizer) == before
    assert caught.value.exit_code == 4
    return str(caught.value)


def test_another_shape_is_refused_with_both(tmp_path):
    checkpoint = saved(tmp_path, *made())
    said = refused(checkpoint, *made(shape=(4, 5)))
    assert "checkpoint/other-parameters" in said
    assert "block.matrix is (3, 5) float32, the run's (4, 5) float32" in said


def test_another_format_is_refused_with_both(tmp_path):
    checkpoint = saved(tmp_path, *made())
    parameters, optimizer = made(dtype=torch.bfloat16, precision=MASTERS)
    assert "scale is () float32, the run's () bfloat16" in refused(checkpoint, parameters, optimizer)


def test_other_parameters_are_named(tmp_path):
    parameters, _ = made()
    checkpoint = saved(tmp_path, *made())
    parameters["added"] = nn.Parameter(torch.zeros(2))
    del parameters["scale"]
    said = refused(checkpoint, parameters, build_optimizer(parameters, TrainOptions()))
    assert "2 parameters differ" in said
    assert "not in it: added; not trained: scale" in said


def test_another_optimizer_is_refused_though_the_weights_fit(tmp_path):
    parameters, optimizer = made()
    checkpoint = saved(tmp_path, parameters, optimizer)
    known = load_file(checkpoint.folder / OPTIMIZER)
    first = next(name for name in known if name.startswith("scale/"))
    save_file({name: t for name, t in known.items() if name != first}, checkpoint.folder / OPTIMIZER)
    assert f"not in it: {first}" in refused(checkpoint, *made(seed=5))


@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"step": 4, "other": 1}', '{"step": 9}'])
def test_a_state_that_is_none_is_refused(tmp_path, content):
    checkpoint = saved(tmp_path, *made())
    (checkpoint.folder / STATE).write_text(content)
    assert "checkpoint/unreadable" in refused(checkpoint, *made(seed=5))


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER])
@pytest.mark.parametrize("content", [b"", b"\x00" * 64, None], ids=["empty", "zeros", "missing"])
def test_tensors_that_are_none_are_refused(tmp_path, name, content):
    checkpoint = saved(tmp_path, *made())
    path = checkpoint.folder / name
    path.unlink() if content is None else path.write_bytes(content)
    assert "checkpoint/unreadable" in refused(checkpoint, *made(seed=5))
