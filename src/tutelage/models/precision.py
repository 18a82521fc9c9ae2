"""The formats of weights, products, optimizer state and masters: resolved once, printed, stored, kept to.

A bfloat16 number has eight significant bits, so around 1 its neighbours are 1/128 above and 1/256 below. A weight
that is held in it and moved by 1e-5 is where it was after rounding, at every step: training in bfloat16 needs
float32 masters, or rounding at random, which moves the weight once in many steps and is right on average.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.errors import Problem, RecipeError
from tutelage.models.location import Location
from tutelage.recipe.precision import PrecisionOptions

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class Precision:
    """Four names: `float32` or `bfloat16`, and for the masters `float32`, `none` or `stochastic`."""

    weights: str = "float32"
    """Of the model in memory; a LoRA adapter is always float32."""
    compute: str = "float32"
    """What matrix products round their operands to."""
    optimizer: str = "float32"
    """Of the two averages."""
    master: str = "float32"
    """`float32`: the trained weights are float32, or the optimizer keeps them so."""

    def describe(self) -> dict[str, str]:
        """The four names, as `plan.json` holds them."""
        return asdict(self)

    def sentence(self) -> str:
        """The four names for the screen."""
        masters = {
            "float32": "float32 masters",
            "none": "no masters",
            "stochastic": "rounded at random instead of masters",
        }
        return (
            f"weights {self.weights}, products {self.compute}, optimizer state {self.optimizer}, {masters[self.master]}"
        )


FLOAT32 = Precision()


def resolve(
    options: PrecisionOptions, *, device: str, adapter_kind: str, born: str | None, native: bool | None = None
) -> Precision:
    """The formats of a run. `born` is what the checkpoint is stored in; `native` whether the device has bfloat16.

    Raises:
        RecipeError: recipe/conflict, naming the option, once for every option that cannot be had.
    """
    full = adapter_kind == "full"
    native = has_bfloat16(device) if native is None else native
    mixed = device == "cuda" and native
    # Frozen weights lose nothing by it, and the adapter is served beside the same ones that it was trained beside.
    kept_in_bfloat16 = mixed and not full and options.compute != "float32" and born in (None, "bfloat16")
    weights = _chosen(options.weights, "bfloat16" if kept_in_bfloat16 else "float32")
    precision = Precision(
        weights,
        _chosen(options.compute, "bfloat16" if mixed or weights == "bfloat16" else "float32"),
        _chosen(options.optimizer, "float32"),
        _chosen(options.master, "float32"),
    )
    problems = [
        *_no_float16(precision, born, native),
        *_not_on_this_device(precision, device, native),
        *_masters_that_do_not_fit(precision, trained=weights if full else "float32"),
    ]
    if problems:
        raise RecipeError(*problems)
    return precision


def born(location: Location) -> str | None:
    """The format that a model's settings say its weights are stored in; None for GGUF, or where they do not say."""
    if location.gguf_file is not None:
        return None
    config = Path(location.path) / "config.json"
    if config.is_file():
        settings = json.loads(config.read_text("utf-8"))
    else:  # On the hub, or in its cache.
        from transformers import PreTrainedConfig

        try:
            settings, _ = PreTrainedConfig.get_config_dict(location.path, **location.arguments())
        except (OSError, ValueError):
            return None
    text = settings.get("text_config") or {}
    name = settings.get("dtype") or settings.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype")
    return str(name).removeprefix("torch.") if name else None


@functools.cache
def has_bfloat16(device: str) -> bool:
    """Whether `computing` makes products in bfloat16 there, in hardware; elsewhere they would be slower than exact."""
    import torch

    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return False
    # Asked of a product: what a processor has, and for what oneDNN uses it, are two things. With bfloat16 in AVX-512
    # and no AMX it leaves products of float32 as they are.
    size = 256
    between = torch.full((size, size), 1 + 2**-12)
    with computing(Precision(compute="bfloat16"), "cpu"):
        return float((between @ between)[0, 0]) == size


@contextmanager
def computing(precision: Precision, device: str | torch.device) -> Iterator[None]:
    """Inside, matrix products are made in `precision.compute`, forwards and backwards; outside as before.

    On a CPU the tensors stay float32 and oneDNN rounds the operands of each product, so that norms, softmax, sums and
    residuals lose nothing; the setting belongs to the process. On a GPU it is autocast, with no copies of weights kept
    between uses: they would be those of the step before.
    """
    import torch

    kind = torch.device(device).type
    if precision.compute == "float32":
        yield
    elif kind == "cuda":
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            yield
    else:
        products = torch.backends.mkldnn.matmul
        before = products.fp32_precision
        products.fp32_precision = "bf16"
        try:
            yield
        finally:
            products.fp32_precision = before


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Inside, every weight is float32, with the value it has; after, each is what it was, to the bit.

    For proofs: two ways of computing that agree to rounding in bfloat16 may still be two models.
    """
    import torch

    narrow = {parameter: parameter.dtype for parameter in model.parameters() if parameter.dtype != torch.float32}
    try:
        for parameter in narrow:
            parameter.data = parameter.data.float()
        yield
    finally:
        for parameter, dtype in narrow.items():
            parameter.data = parameter.data.to(dtype)


def _chosen(option: str, automatic: str) -> str:
    return automatic if option == "auto" else option


def _no_float16(precision: Precision, born: str | None, native: bool) -> Iterator[Problem]:
    for option in ("weights", "compute"):
        if getattr(precision, option) == "float16":
            yield Problem(
                "recipe/conflict",
                "training in float16 is refused",
                where=f"precision.{option}",
                found=f"precision.{option} = float16" + (f"; the model is stored in {born}" if born else ""),
                why="float16 ends at 65,504, which activations and gradients of models made in bfloat16 pass, and its "
                "small gradients become zero; Tutelage has no loss scaling, which can hide only the second",
                fix=f"precision.{option}={'bfloat16' if native else 'float32'}",
            )


def _not_on_this_device(precision: Precision, device: str, native: bool) -> Iterator[Problem]:
    if device == "mps":
        for option in ("weights", "compute"):
            if getattr(precision, option) == "bfloat16":
                yield Problem(
                    "recipe/conflict",
                    "on mps only float32 is offered",
                    where=f"precision.{option}",
                    found=f"precision.{option} = bfloat16",
                    why="nobody has checked the results there",
                    fix=f"remove precision.{option}",
                )
    elif precision.weights == "bfloat16" and precision.compute == "float32":
        yield Problem(
            "recipe/conflict",
            "bfloat16 weights are multiplied in bfloat16",
            where="precision.compute",
            found="precision.weights = bfloat16, precision.compute = float32",
            fix="remove precision.compute, or set precision.weights=float32",
        )
    elif precision.weights == "float32" and precision.compute == "bfloat16" and not native:
        yield Problem(
            "recipe/conflict",
            f"this {device} does not multiply in bfloat16",
            where="precision.compute",
            found="precision.compute = bfloat16",
            why="products would stay float32 under another name, or be emulated: slower, and less exact",
            fix="remove precision.compute",
        )


def _masters_that_do_not_fit(precision: Precision, *, trained: str) -> Iterator[Problem]:
    if trained == "bfloat16" and precision.master == "none":
        yield Problem(
            "recipe/conflict",
            "weights that are trained in bfloat16 need masters or stochastic rounding",
            where="precision.master",
            found="precision.weights = bfloat16, precision.master = none",
            why="an update smaller than half the distance to the next bfloat16 number is rounded away, at every step: "
            "weights around 1 would not move at any usual learning rate",
            fix="precision.master=float32, or precision.master=stochastic, which needs no memory",
        )
    elif trained == "float32" and precision.master == "stochastic":
        yield Problem(
            "recipe/conflict",
            "there is nothing to round: what is trained is float32",
            where="precision.master",
            found="precision.master = stochastic",
            fix="remove precision.master, or train every weight in bfloat16 with precision.weights=bfloat16",
        )
