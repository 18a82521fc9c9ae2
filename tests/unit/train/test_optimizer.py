"""AdamW against ten lines of numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tutelage.recipe import TrainOptions
from tutelage.train.optimizer import build_optimizer


def numpy_adamw(weight, gradients, rates, *, betas, eps, decay):
    """Loshchilov and Hutter 2019, algorithm 2."""
    m, v = np.zeros_like(weight), np.zeros_like(weight)
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        weight = weight - rate * decay * weight
        m = betas[0] * m + (1 - betas[0]) * gradient
        v = betas[1] * v + (1 - betas[1]) * gradient**2
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        weight = weight - rate * m_hat / (np.sqrt(v_hat) + eps)
    return weight


@pytest.mark.parametrize(
    "options",
    [
        TrainOptions(),
        TrainOptions(weight_decay=0.3, betas=(0.8, 0.95), eps=1e-3),
        TrainOptions(weight_decay=0.0, betas=(0.0, 0.0)),
    ],
)
def test_it_is_adamw_with_decay_on_matrices_alone(options):
    rng = np.random.default_rng(0)
    shapes = {"matrix": (5, 7), "vector": (11,)}
    start = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    gradients = {name: rng.normal(size=(20, *shape)) for name, shape in shapes.items()}
    rates = [1e-2 * (step + 1) for step in range(20)]
    parameters = {name: nn.Parameter(torch.from_numpy(value.copy())) for name, value in start.items()}
    optimizer = build_optimizer(parameters, options)
    for step, rate in enumerate(rates):
        for name, parameter in parameters.items():
            parameter.grad = torch.from_numpy(gradients[name][step])
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    for name, parameter in parameters.items():
        decay = options.weight_decay if name == "matrix" else 0.0
        expected = numpy_adamw(start[name], gradients[name], rates, betas=options.betas, eps=options.eps, decay=decay)
        assert np.allclose(parameter.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_every_parameter_is_in_one_group():
    parameters = {"a": nn.Parameter(torch.ones(2, 2)), "b": nn.Parameter(torch.ones(2))}
    groups = build_optimizer(parameters, TrainOptions()).param_groups
    assert [id(p) for group in groups for p in group["params"]] == [id(p) for p in parameters.values()]
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    only = build_optimizer({"a": parameters["a"]}, TrainOptions()).param_groups
    assert len(only) == 1


def test_before_its_rate_is_set_it_changes_nothing():
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = build_optimizer({"a": parameter}, TrainOptions())
    parameter.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(parameter, torch.ones(2, 2))
