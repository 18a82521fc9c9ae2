"""Weights, gradients and optimizer state divided over the processes: each holds a slice of every tensor (FSDP2).

    layer      gathered when it is computed, forwards and backwards, and given back
    the rest   embedding, last norm and head: gathered once for the loss as a whole, since the loss reads the head's
               weights where they are, and a tied head is the embedding
    gradients  added over the processes, each keeps its slice; the optimizer sees plain tensors, the slices

The result is that of one process, up to the order in which numbers are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from tutelage.data.batch import MicroBatch
from tutelage.models.adapters import base_of
from tutelage.models.forward import Forward
from tutelage.train.optimizer import gradient_norm
from tutelage.train.ranks import Ranks


@dataclass(slots=True)
class ShardedForward(Forward):
    """Computes losses of a model whose weights are divided; every process must, equally often."""

    whole: nn.Module | None = None
    """The model and its loss as one module."""

    def nll(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """As of a model in one piece."""
        assert self.whole is not None
        total, each = self.whole(batch)
        return total, each


@dataclass(frozen=True, slots=True)
class Replicas:
    """The trained parameters of a model that every process holds whole."""

    ranks: Ranks
    parameters: Mapping[str, nn.Parameter]

    def gather(self) -> None:
        """Add up the gradients of all processes."""
        self.ranks.sum_gradients(self.parameters.values())

    def forget(self) -> None:
        """Nothing: all gradients are the parameters' own."""

    def norm(self) -> Tensor:
        """The length of the gradient, which is the same everywhere."""
        return gradient_norm([p.grad for p in self.parameters.values() if p.grad is not None])


class _Whole(nn.Module):
    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.model = forward.model
        self._compute = forward

    def forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        return Forward.nll(self._compute, batch)


@dataclass(slots=True)
class Shards:
    """The trained parameters of a divided model, as this process holds them."""

    ranks: Ranks
    whole: nn.Module
    divided: dict[str, DTensor]
    parameters: dict[str, nn.Parameter]
    """For each a plain parameter, which is the same memory: what the optimizer changes."""

    def gather(self) -> None:
        """Hand this process's slices of the gradients, which were added on the way, to the optimizer."""
        for name, divided in self.divided.items():
            gradient, divided.grad = divided.grad, None
            self.parameters[name].grad = None if gradient is None else _slice(gradient)

    def forget(self) -> None:
        """Free the slices of the gradients."""
        for name, divided in self.divided.items():
            divided.grad = self.parameters[name].grad = None

    def norm(self) -> Tensor:
        """The length of the whole gradient."""
        slices = [p.grad for p in self.parameters.values() if p.grad is not None and p.grad.numel()]
        device = next(iter(self.parameters.values())).device
        own = gradient_norm(slices) if slices else torch.zeros((), device=device)
        return self.ranks.sum(own.double().square()).sqrt().float()

    def rows(self) -> dict[str, tuple[int, int]]:
        """For each parameter, which rows of it this process holds: from, to."""
        return {name: _rows(divided) for name, divided in self.divided.items()}

    @torch.no_grad()
    def whole_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every trained parameter whole, one after another; every process must take all of them."""
        for name, divided in self.divided.items():
            with self.ranks.pulse.meeting():
                whole = divided.full_tensor()
            yield name, whole

    def give_back(self) -> None:
        """Give back what was gathered for a loss without a backward pass."""
        for module in self.whole.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def divide(forward: Forward, ranks: Ranks) -> tuple[ShardedForward, Shards]:
    """The same model, its weights divided over the processes; adapters are in place, and all hold the same weights."""
    mesh = init_device_mesh(ranks.device, (ranks.world,))
    sharded = ShardedForward(**{field.name: getattr(forward, field.name) for field in fields(Forward)})
    whole = _Whole(sharded)
    names = {id(p): name for name, p in forward.model.named_parameters() if p.requires_grad}
    for layer in layers_of(forward.model):
        fully_shard(layer, mesh=mesh)
    fully_shard(whole, mesh=mesh, reshard_after_forward=False)
    for module in whole.modules():
        if isinstance(module, FSDPModule):
            # A gradient is a sum over examples, divided once by the weight of the whole batch.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
            # An expert that no token of this process went to takes part with zeros.
            module.set_reduce_scatter_unused_params(True)
    sharded.whole, sharded.divided = whole, True
    divided = {name: p for name, p in forward.model.named_parameters() if p.requires_grad}
    assert divided.keys() == set(names.values()), "bug: dividing the model renamed its parameters"
    assert all(isinstance(p, DTensor) for p in divided.values()), "bug: a parameter was not divided"
    plain = {name: nn.Parameter(_slice(p.detach())) for name, p in divided.items()}
    return sharded, Shards(ranks, whole, divided, plain)  # type: ignore[arg-type]


@torch.no_grad()
def put_into(parameters: Mapping[str, nn.Parameter], trained: Mapping[str, Tensor]) -> None:
    """Give a model what another one learned."""
    for name, parameter in parameters.items():
        parameter.copy_(trained[name])


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The decoder's layers, which hold nearly all of its weights."""
    lists = [module for module in base_of(model).modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=len)) if lists else []


def _rows(divided: DTensor) -> tuple[int, int]:
    mesh = divided.device_mesh
    size = -(-divided.shape[0] // mesh.size())
    start = min(divided.shape[0], size * mesh.get_local_rank())
    return start, start + divided.to_local().shape[0]


def _slice(tensor: Tensor) -> Tensor:
    assert isinstance(tensor, DTensor)
    local = tensor.to_local()
    # Gradients may still be on their way.
    return local.wait() if hasattr(local, "wait") and not isinstance(local, nn.Parameter) else local
