"""Four formats: what they become, what is refused, and that products are made in the one that was chosen."""

from __future__ import annotations

import itertools
import json
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from tutelage.errors import RecipeError
from tutelage.models.load import load_model
from tutelage.models.location import Location, locate
from tutelage.models.precision import FLOAT32, Precision, born, computing, has_bfloat16, in_float32, resolve
from tutelage.recipe import PrecisionOptions

BFLOAT16 = Precision(compute="bfloat16")


def resolved(device: str = "cpu", kind: str = "full", *, native: bool = True, **options: str) -> tuple[str, ...]:
    precision = resolve(PrecisionOptions(**options), device=device, adapter_kind=kind, born="bfloat16", native=native)
    assert list(precision.describe()) == ["weights", "compute", "optimizer", "master"]
    return tuple({"float32": "f", "bfloat16": "b"}.get(name, name) for name in precision.describe().values())


@pytest.mark.parametrize(
    ("device", "kind", "native", "options", "expected"),
    [
        ("cpu", "full", True, {}, "ffff"),
        ("cpu", "lora", True, {}, "ffff"),
        ("mps", "full", False, {}, "ffff"),
        ("cuda", "full", True, {}, "fbff"),
        ("cuda", "lora", True, {}, "bbff"),
        ("cuda", "full", False, {}, "ffff"),
        ("cuda", "lora", False, {}, "ffff"),
        ("cuda", "lora", True, {"compute": "float32"}, "ffff"),
        ("cuda", "lora", True, {"weights": "float32"}, "fbff"),
        ("cuda", "full", True, {"weights": "bfloat16"}, "bbff"),
        ("cpu", "full", True, {"compute": "bfloat16"}, "fbff"),
        ("cpu", "full", False, {"weights": "bfloat16"}, "bbff"),
        ("cpu", "full", True, {"optimizer": "bfloat16"}, "ffbf"),
    ],
)
def test_what_auto_becomes(device, kind, native, options, expected):
    assert "".join(resolved(device, kind, native=native, **options)) == expected


@pytest.mark.parametrize(("stored", "weights"), [("float32", "float32"), ("float16", "float32"), (None, "bfloat16")])
def test_frozen_weights_are_not_rounded_on_the_way_in(stored, weights):
    found = resolve(PrecisionOptions(), device="cuda", adapter_kind="lora", born=stored, native=True)
    assert (found.weights, found.compute) == (weights, "bfloat16")


def test_masters_are_what_was_asked_for():
    assert resolved(weights="bfloat16", master="stochastic")[3] == "stochastic"
    assert resolved(master="none")[3] == "none"
    assert resolved(kind="lora", weights="bfloat16", master="none")[3] == "none"


def refused(*arguments: str, **options: str) -> list[str]:
    """The options that the error names."""
    with pytest.raises(RecipeError) as caught:
        resolved(*arguments, **options)
    assert {problem.code for problem in caught.value.problems} == {"recipe/conflict"}
    assert all(problem.fix for problem in caught.value.problems)
    return [problem.where.removeprefix("precision.") for problem in caught.value.problems]


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_float16_is_refused_everywhere_with_the_reason(device, kind):
    """Pain 23: activations of a model made in bfloat16 overflow it."""
    assert refused(device, kind, weights="float16") == ["weights"]
    assert refused(device, kind, compute="float16") == ["compute"]
    assert refused(device, kind, weights="float16", compute="float16") == ["weights", "compute"]
    with pytest.raises(RecipeError, match=r"(?s)stored in bfloat16.*65,504.*precision.compute=bfloat16"):
        resolved(device, kind, compute="float16")


def test_contradictions_name_their_option():
    assert refused(weights="bfloat16", compute="float32") == ["compute"]
    assert refused(weights="bfloat16", master="none") == ["master"]
    assert refused(master="stochastic") == ["master"]
    assert refused("cpu", "lora", weights="bfloat16", master="stochastic") == ["master"]
    assert refused("mps", compute="bfloat16") == ["compute"]
    assert refused("mps", weights="bfloat16") == ["weights", "compute"]
    with pytest.raises(RecipeError, match="does not multiply in bfloat16"):
        resolved("cpu", native=False, compute="bfloat16")


def test_every_combination_is_settled_or_refused():
    """Nothing is left `auto`, whatever is combined, and weights trained in bfloat16 are always protected."""
    names = ("auto", "float32", "bfloat16")
    everything = itertools.product(
        ("cpu", "cuda", "mps"), ("full", "lora"), names, names, names, ("auto", "float32", "none", "stochastic")
    )
    settled = 0
    for device, kind, weights, compute, optimizer, master in everything:
        options = {"weights": weights, "compute": compute, "optimizer": optimizer, "master": master}
        try:
            found = resolve(PrecisionOptions(**options), device=device, adapter_kind=kind, born=None, native=True)
        except RecipeError:
            continue
        settled += 1
        for name, chosen in found.describe().items():
            assert chosen != "auto"
            assert options[name] in ("auto", chosen)
        assert not (kind == "full" and found.weights == "bfloat16" and found.master == "none")
    assert settled > 100


def test_what_is_resolved_stays_and_is_said():
    with pytest.raises(FrozenInstanceError):
        FLOAT32.weights = "bfloat16"  # type: ignore[misc]
    assert FLOAT32.sentence() == "weights float32, products float32, optimizer state float32, float32 masters"
    assert "rounded at random" in Precision("bfloat16", "bfloat16", "float32", "stochastic").sentence()


def test_the_format_a_model_is_stored_in(tmp_path, tiny_model):
    assert born(locate(str(tiny_model("llama")))) == "float32"
    (tmp_path / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16"}))
    assert born(Location(str(tmp_path))) == "bfloat16"
    (tmp_path / "config.json").write_text("{}")
    assert born(Location(str(tmp_path))) is None
    assert born(Location(str(tmp_path), gguf_file="model.gguf")) is None
    assert born(Location("owner/name")) is None


def test_weights_are_loaded_in_the_format_asked_for(tiny_model):
    location = locate(str(tiny_model("llama")))
    exact, rounded = load_model(location), load_model(location, dtype="bfloat16")
    for one, other in zip(exact.parameters(), rounded.parameters(), strict=True):
        assert (one.dtype, other.dtype) == (torch.float32, torch.bfloat16)
        assert torch.equal(one.to(torch.bfloat16), other)


def test_a_model_can_be_looked_at_in_float32_and_is_then_what_it_was(tiny_model):
    location = locate(str(tiny_model("llama")))
    model = load_model(location, dtype="bfloat16")
    before = {name: p.clone() for name, p in model.named_parameters()}
    ids = torch.arange(5, 25)[None]
    wide = load_model(location)
    with torch.no_grad():
        for parameter in wide.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
        with in_float32(model):
            assert torch.equal(model(input_ids=ids).logits, wide(input_ids=ids).logits)
        assert model(input_ids=ids).logits.dtype == torch.bfloat16
    assert all(torch.equal(p, before[n]) and p.dtype == torch.bfloat16 for n, p in model.named_parameters())


def products() -> list[torch.Tensor]:
    """A product forwards, and its two backwards; large enough for oneDNN to take them."""
    generator = torch.Generator().manual_seed(0)
    x, weight, gradient = (torch.randn(256, 256, generator=generator) for _ in range(3))
    x.requires_grad_()
    parameter = nn.Parameter(weight)
    result = linear(x, parameter)
    result.backward(gradient)
    return [result.detach(), x.grad, parameter.grad]


def test_products_are_rounded_inside_and_exact_again_outside():
    """Forwards and backwards; tensors stay float32, which norms and sums are then computed in."""
    if not has_bfloat16("cpu"):
        assert not torch.cpu.get_capabilities().get("amx_bf16")
        pytest.skip("this processor does not multiply in bfloat16")
    before = products()
    with computing(BFLOAT16, "cpu"):
        inside = products()
    after = products()
    for exact, rounded, again in zip(before, inside, after, strict=True):
        assert torch.equal(exact, again)
        assert rounded.dtype == torch.float32
        difference = (rounded - exact).abs().max() / exact.abs().max()
        assert 1e-4 < difference < 1e-2


def test_the_setting_is_restored_after_an_error_and_untouched_for_float32():
    def setting() -> str:
        return torch.backends.mkldnn.matmul.fp32_precision

    before = setting()
    with computing(FLOAT32, "cpu"):
        assert setting() == before
    with computing(BFLOAT16, torch.device("cpu")):
        assert setting() == "bf16"
    assert setting() == before
    with pytest.raises(ZeroDivisionError), computing(BFLOAT16, "cpu"):
        raise ZeroDivisionError
    assert setting() == before
