"""LoRA as one function computes what `peft` computes, and leaves to `peft` what it does not know."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from tutelage.models.lora import fuse_lora, keep_results


class Two(nn.Module):
    """A layer with a bias and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 40), nn.Linear(40, 16, bias=False)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def adapted(**options) -> nn.Module:
    torch.manual_seed(0)
    config = {"r": 4, "lora_alpha": 10, "target_modules": ["first", "second"], **options}
    model = get_peft_model(Two(), LoraConfig(**config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return model


def results(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The output, and the gradients of the input and of all that is trained."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    y = model(x)
    (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
    return {"y": y.detach(), "x": x.grad, **{n: p.grad for n, p in model.named_parameters() if p.grad is not None}}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("shape", [(5, 24), (1, 9, 24), (2, 3, 24)])
@pytest.mark.parametrize("keep", [False, True])
def test_output_and_gradients_are_pefts(shape, keep):
    model, x = adapted(), torch.randn(shape)
    expected = results(model, x)
    assert "base_model.model.first.lora_A.default.weight" in expected
    assert fuse_lora(model) == 2
    if keep:
        keep_results(model)
    same(results(model, x), expected)


def test_a_trained_base_gets_its_gradient_too():
    model, x = adapted(), torch.randn(6, 24)
    model.requires_grad_(True)
    expected = results(model, x)
    fuse_lora(model)
    same(results(model, x), expected)


def test_switched_off_and_merged_are_the_base():
    model, x = adapted(), torch.randn(6, 24)
    base = model.get_base_model()
    fuse_lora(model)
    with_adapter = model(x)
    with model.disable_adapter():
        without = model(x)
    assert torch.allclose(without, base.second.base_layer(torch.tanh(base.first.base_layer(x))))
    assert not torch.allclose(without, with_adapter)
    model.merge_adapter()
    assert torch.allclose(model(x), with_adapter, atol=1e-5)


def test_dropout_stays_with_peft():
    model, x = adapted(lora_dropout=0.5), torch.randn(400, 24)
    fuse_lora(model)
    model.train()
    torch.manual_seed(1)
    one = model(x)
    torch.manual_seed(2)
    assert not torch.equal(one, model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_an_adapter_that_does_more_stays_as_it_is():
    model, x = adapted(use_dora=True), torch.randn(6, 24)
    expected = model(x)
    assert fuse_lora(model) == 0
    assert torch.equal(model(x), expected)


def test_what_is_frozen_has_no_gradient_and_no_input_gradient_is_computed_where_none_is_needed(monkeypatch):
    model = adapted()
    fuse_lora(model)
    products = []
    real = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: products.append((a.shape, b.shape)) or real(a, b))
    model(torch.randn(7, 24)).sum().backward()
    assert all(p.grad is None for n, p in model.named_parameters() if "lora_" not in n)
    assert (torch.Size([7, 40]), torch.Size([40, 24])) not in products  # the first layer's input is data
    assert (torch.Size([7, 16]), torch.Size([16, 40])) in products
