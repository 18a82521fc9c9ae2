"""The functions of `kernels.c` for autograd: float32 on the CPU, one pass over memory each.

The library is built when the package is installed, where there is a C compiler; without it `library()` is None and
the model's own code runs.

Shapes: rows are all dimensions but the last.
"""

from __future__ import annotations

import ctypes
import functools
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_SIGNATURES = {
    "tutelage_gated_forward": "pppnii",
    "tutelage_gated_backward": "pppppnii",
    "tutelage_norm_forward": "ppppnnffi",
    "tutelage_norm_backward": "ppppppnnfi",
    "tutelage_rotate": "ppppnnnii",
    "tutelage_nll": "ppppnnii",
}
_TYPES = {"p": ctypes.c_void_p, "n": ctypes.c_int64, "i": ctypes.c_int, "f": ctypes.c_float}
VERSION = 1
ACTIVATIONS = {"silu": 0, "gelu_tanh": 1}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled functions, or None where they were not built."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_kernels{suffix}")
        if path.is_file():
            try:
                found = ctypes.CDLL(str(path))
                if found.tutelage_version() != VERSION:
                    return None
            except (OSError, AttributeError):  # built for another system or by another version; torch without OpenMP
                return None
            for name, letters in _SIGNATURES.items():
                function = getattr(found, name)
                function.argtypes, function.restype = [_TYPES[letter] for letter in letters], None
            return found
    return None


def takes(*tensors: Tensor) -> bool:
    """Whether the functions can be used on these; a compiled graph makes its own."""
    if torch.compiler.is_compiling():
        return False
    return library() is not None and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)


def gated(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """activation(gate) * up, all of one shape."""
    return _Gated.apply(gate, up, ACTIVATIONS[activation])


def rms_norm(x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
    """The last dimension over its root mean square: x / sqrt(mean(x^2) + eps) * (weight + offset).

    Zhang and Sennrich 2019, arXiv 1910.07467.
    """
    return _Norm.apply(x, weight, eps, offset)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions of a flat row: x (1, heads, T, dim), cosine and sine (1, T, dim).

    Su et al. 2021, arXiv 2104.09864.
    """
    return _Rotate.apply(x, cosine, sine)


def nll_in_place(logits: Tensor, target: Tensor, weights: Tensor, each: Tensor, need: bool) -> None:
    """Fill `each` with the losses; turn the logits (N, V) into d(sum of weight * nll) / d(logits) where needed."""
    weights = weights.contiguous()
    _call("tutelage_nll", logits, target.contiguous(), weights, each, *logits.shape, int(need))


def _call(name: str, *arguments: Any) -> None:
    values = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    getattr(library(), name)(*values, torch.get_num_threads())


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: int) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        out = torch.empty_like(gate)
        _call("tutelage_gated_forward", gate, up, out, gate.numel(), activation)
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        d_gate, d_up = torch.empty_like(gate), torch.empty_like(up)
        d_out = d_out.contiguous()
        _call("tutelage_gated_backward", d_out, gate, up, d_gate, d_up, gate.numel(), ctx.activation)
        return d_gate, d_up, None


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        x, width = x.contiguous(), x.shape[-1]
        y, inverse = torch.empty_like(x), x.new_empty(x.shape[:-1])
        _call("tutelage_norm_forward", x, weight, y, inverse, inverse.numel(), width, eps, offset)
        ctx.save_for_backward(x, weight, inverse)
        ctx.offset = offset
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        dx = torch.empty_like(x)
        partial = x.new_zeros(torch.get_num_threads(), x.shape[-1]) if ctx.needs_input_grad[1] else None
        shape = (inverse.numel(), x.shape[-1], ctx.offset)
        _call("tutelage_norm_backward", dy.contiguous(), x, weight, inverse, dx, partial, *shape)
        return dx, None if partial is None else partial.sum(0), None, None


class _Rotate(torch.autograd.Function):
    """The row lies in memory as (T, heads, dim), whatever the order of its dimensions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        cosine, sine = cosine.contiguous(), sine.contiguous()
        ctx.save_for_backward(cosine, sine)
        return _turned(x, cosine, sine, back=0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return _turned(dy, *ctx.saved_tensors, back=1), None, None


def _turned(x: Tensor, cosine: Tensor, sine: Tensor, *, back: int) -> Tensor:
    rows = x.transpose(1, 2).contiguous()
    y = torch.empty_like(rows)
    _call("tutelage_rotate", rows, cosine, sine, y, *rows.shape[1:], back)
    return y.transpose(1, 2)
