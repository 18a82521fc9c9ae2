"""AdamW over the trained parameters, with weight decay on matrices only and clipping inside of its one pass.

The arithmetic is torch's fused kernel. It divides the gradients by a number that it is handed, so clipping costs no
pass of its own, and it changes nothing when it is told that something is not finite, so a step needs no answer from
the device before it ends. Weights and averages that are not float32 go through the same kernel in float32, piece by
piece: the update is computed from what float32 says and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim.adamw import adamw

from tutelage.models.precision import FLOAT32, Precision
from tutelage.recipe import TrainOptions
from tutelage.train.rounding import chance, round_by_chance

PIECE = 1 << 22
"""Elements that go through float32 at once: 64 MiB of scratch. Part of what a seed means, since draws are by piece."""

_HEEDS = ("cpu", "cuda")
"""Devices whose kernels look at the divisor, and at whether the step is sound."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One trained parameter and what the optimizer knows of it."""

    name: str
    parameter: nn.Parameter
    decay: float
    steps: Tensor
    """How many steps it was part of, as the kernel wants it: float32, on the device."""
    mean: Tensor
    """Running average of the gradient."""
    square: Tensor
    """Running average of its square."""
    master: Tensor | None
    """The weights in float32, where the parameter is their rounded copy."""

    @property
    def plain(self) -> bool:
        """Whether the kernel can work in place."""
        return self.parameter.dtype == self.mean.dtype and self.parameter.dtype != torch.bfloat16


@dataclass(frozen=True, slots=True)
class _Update:
    """What one step does to every parameter alike."""

    learning_rate: float
    divisor: Tensor
    """Of the gradients, by which they are clipped."""
    broken: Tensor
    """1.0 where nothing may change, 0.0 otherwise."""


class Gathering(Protocol):
    """How the gradients of several processes become one."""

    def gather(self) -> None:
        """Make each gradient that of the whole global batch; called once, after the last backward pass."""
        ...

    def forget(self) -> None:
        """Free what is held of gradients beside the parameters."""
        ...

    def norm(self) -> Tensor:
        """The length of the gradient over all parameters."""
        ...


class FusedAdamW:
    """One step of AdamW (Loshchilov and Hutter 2019) for all parameters."""

    def __init__(self, slots: list[Slot], *, betas: tuple[float, float], eps: float, seed: int) -> None:
        self.slots = slots
        self.made = 0
        """Calls of `step`, by which the random rounding is keyed."""
        self.gathering: Gathering | None = None
        """None where there is one process."""
        self._betas, self._eps, self._seed = betas, eps, seed

    def zero_grad(self) -> None:
        """Free the gradients."""
        for slot in self.slots:
            slot.parameter.grad = None
        if self.gathering is not None:
            self.gathering.forget()

    def gather(self) -> None:
        """Make the gradients those of the whole global batch, whichever process computed them."""
        if self.gathering is not None:
            self.gathering.gather()

    def norm(self) -> Tensor:
        """The length of the gradient over all parameters, as a tensor on the device."""
        if self.gathering is not None:
            return self.gathering.norm()
        return gradient_norm([slot.parameter.grad for slot in self.slots if slot.parameter.grad is not None])

    @torch.no_grad()
    def step(self, learning_rate: float, *, norm: Tensor, clip: float, sound: Tensor) -> None:
        """One update with the gradient scaled down to the length `clip`; none at all where `sound` is false.

        Gradients are used up: what they hold afterwards is not defined.
        """
        self.made += 1
        slots = [slot for slot in self.slots if slot.parameter.grad is not None]
        divisor = ((norm + 1e-6) / clip).clamp(min=1.0).float()
        if norm.device.type not in _HEEDS:
            if not sound:
                return
            torch._foreach_div_([slot.parameter.grad for slot in slots], divisor)
            divisor = torch.ones_like(divisor)
        update = _Update(learning_rate, divisor, (~sound).float())
        for decay in sorted({slot.decay for slot in slots}):
            group = [slot for slot in slots if slot.plain and slot.decay == decay]
            self._kernel([(s.parameter, s.parameter.grad, s.mean, s.square, s.steps) for s in group], decay, update)
        for index, slot in enumerate(slots):
            if not slot.plain:
                self._through_float32(slot, index, update)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name: what a checkpoint holds."""
        parts = {"made": torch.tensor(self.made)}
        for slot in self.slots:
            parts |= {f"{slot.name}/{part}": tensor for part, tensor in _parts(slot)}
        return parts

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state, which must be of the same parameters."""
        self.made = int(state["made"])
        for slot in self.slots:
            for part, tensor in _parts(slot):
                tensor.copy_(state[f"{slot.name}/{part}"])

    def _kernel(self, rows: list[tuple[Tensor, ...]], decay: float, update: _Update) -> None:
        """Update in place, given (weights, gradient, mean, square, steps) of each tensor."""
        if not rows:
            return
        weights, gradients, means, squares, steps = (list(column) for column in zip(*rows, strict=True))
        heeded = update.divisor.device.type in _HEEDS
        adamw(
            *(weights, gradients, means, squares, [], steps),
            fused=True,
            grad_scale=update.divisor if heeded else None,
            found_inf=update.broken if heeded else None,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=update.learning_rate,
            weight_decay=decay,
            eps=self._eps,
            maximize=False,
        )

    def _through_float32(self, slot: Slot, index: int, update: _Update) -> None:
        """The same for one parameter, piece by piece in float32, rounded into what is kept."""
        assert slot.parameter.grad is not None
        parameter = slot.parameter.detach()
        kept = [tensor.view(-1) for tensor in (parameter, slot.mean, slot.square)]
        exact = [parameter.view(-1) if slot.master is None else slot.master.view(-1), *kept[1:]]
        before = slot.steps.clone()
        for piece, start in enumerate(range(0, parameter.numel(), PIECE)):
            part = slice(start, start + PIECE)
            # What is float32 already is worked on in place.
            weight, mean, square = (tensor[part].float() for tensor in exact)
            gradient = slot.parameter.grad.view(-1)[part].float()
            slot.steps.copy_(before)
            self._kernel([(weight, gradient, mean, square, slot.steps)], slot.decay, update)
            draws = chance(parameter.device, self._seed, self.made, index, piece)
            for tensor, value in zip(kept, (weight, mean, square), strict=True):
                if tensor.dtype == torch.bfloat16:
                    copy = tensor is kept[0] and slot.master is not None
                    tensor[part] = value if copy else round_by_chance(value, draws)


def build_optimizer(
    parameters: Mapping[str, nn.Parameter], options: TrainOptions, precision: Precision = FLOAT32
) -> FusedAdamW:
    """The optimizer; random rounding is keyed by the run's seed.

    Gradients of bfloat16 parameters are gathered in float32 from here on: otherwise their sum over micro-batches would
    be rounded after each, and depend on how the batch was cut.
    """
    averages = getattr(torch, precision.optimizer)
    slots = []
    for name, parameter in parameters.items():
        half = parameter.dtype == torch.bfloat16
        if half:
            assert parameter.is_contiguous(), f"bug: {name} is not contiguous"
            parameter.grad_dtype = torch.float32
        assert not (half and precision.master == "none"), f"bug: {name} would be trained without masters"
        dtype = parameter.dtype if averages == torch.float32 and not half else averages
        slots.append(
            Slot(
                name,
                parameter,
                decay=options.weight_decay if parameter.dim() >= 2 else 0.0,
                steps=torch.zeros((), device=parameter.device),
                mean=torch.zeros_like(parameter, dtype=dtype, requires_grad=False),
                square=torch.zeros_like(parameter, dtype=dtype, requires_grad=False),
                master=parameter.detach().float() if half and precision.master == "float32" else None,
            )
        )
    return FusedAdamW(slots, betas=options.betas, eps=options.eps, seed=options.seed)


def gradient_norm(gradients: list[Tensor]) -> Tensor:
    """The Euclidean length of all of them together.

    On a CPU row by row: torch adds up a whole tensor's squares in a few float32 numbers, which comes out 0.1 % too
    short for 28 million of them, and the length of rows costs the same.
    """
    if gradients[0].is_cuda:
        return get_total_norm(gradients)
    rows = [torch.linalg.vector_norm(g, dim=-1 if g.dim() else None, dtype=_at_least_float32(g)) for g in gradients]
    return torch.linalg.vector_norm(torch.cat([lengths.reshape(-1) for lengths in rows]))


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _parts(slot: Slot) -> Iterator[tuple[str, Tensor]]:
    yield from (("steps", slot.steps), ("mean", slot.mean), ("square", slot.square))
    if slot.master is not None:
        yield "master", slot.master
