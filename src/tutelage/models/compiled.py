"""Layers of a model through `torch.compile`, one graph for all that are alike.

The first step of a run pays for it: tens of seconds to minutes, of which the compiler's part is kept between runs. On
the CPU the kernels of this package do as well without the wait, so it is off unless asked for.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import torch
from torch import nn

from tutelage.cache import cache_folder
from tutelage.errors import MachineError, Problem
from tutelage.models.adapters import base_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_GRAPHS = 64
"""Different graphs that may be made before torch gives up."""


def refuse_without_compiler(device: str) -> None:
    """Make sure that layers can be compiled.

    Raises:
        MachineError: machine/missing-package, on a CPU without a C++ compiler.
    """
    if device == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise MachineError(
            Problem(
                "machine/missing-package",
                "torch.compile needs a C++ compiler on the CPU",
                found="train.compile = true, and no g++",
                fix="train.compile=false, which costs little on a CPU; or install g++",
            )
        )


def compile_layers(model: nn.Module) -> int:
    """Compile each layer of the decoder when it first runs, adapters in place; how many there are.

    Raises:
        MachineError: machine/missing-package, on a CPU without a C++ compiler.
    """
    inner: PreTrainedModel = base_of(model)
    refuse_without_compiler(inner.device.type)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _GRAPHS)
    layers = max((m for m in inner.modules() if isinstance(m, nn.ModuleList)), key=len)
    for layer in layers:
        layer.compile(dynamic=True)
    return len(layers)
