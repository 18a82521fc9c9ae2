"""What a run is at the end of a step: the trained parameters, the optimizer's state by their names, and a few numbers.

Nothing else is needed to go on: order, packing and dropout are functions of the seed and the step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from tutelage import files
from tutelage.checkpoints import Checkpoint
from tutelage.errors import ModelError, Problem
from tutelage.train.optimizer import FusedAdamW
from tutelage.train.slices import Rows, files_of, read

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run is."""

    step: int
    """Optimizer steps that were made; the data's position follows from it."""
    token_budget: int | None = None
    """Tokens computed at once since memory ran out; None while it has not."""
    guard: dict[str, Any] = field(default_factory=dict)
    """What the guard remembers."""


class NotFinite(Exception):
    """A tensor that would be saved holds a value that is not finite; the text names it."""


def write(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: FusedAdamW,
    position: Position,
    *,
    named: Callable[[str], str] = lambda file: file,
    position_too: bool = True,
) -> None:
    """Write the state into a folder; on return training may go on.

    A process that holds slices gives its files names of their own, and only one of them writes the position.

    Raises:
        NotFinite: nothing was written.
    """
    weights = {name: parameter.detach() for name, parameter in parameters.items()}
    known = optimizer.state()
    for name, tensor in [*weights.items(), *known.items()]:
        if not _is_finite(tensor):
            raise NotFinite(name)
    save_file(weights, folder / named(MODEL))
    save_file(known, folder / named(OPTIMIZER))
    if position_too:
        files.write_whole(folder / STATE, files.as_json(asdict(position)).encode())


@torch.no_grad()
def restore(
    checkpoint: Checkpoint,
    parameters: Mapping[str, nn.Parameter],
    optimizer: FusedAdamW,
    *,
    rows: Rows | None = None,
) -> Position:
    """Put a verified checkpoint's state into the model and the optimizer; where the run is.

    `rows` says which rows of each parameter this process holds, where it does not hold all of them.

    Raises:
        ModelError: checkpoint/other-parameters, checkpoint/unreadable. Nothing was changed then.
    """
    try:
        weights, known = (
            read(files_of(checkpoint.folder, name, checkpoint.files), rows) for name in (MODEL, OPTIMIZER)
        )
        position = Position(**json.loads((checkpoint.folder / STATE).read_bytes()))
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise _unreadable(checkpoint, str(error)) from error
    if position.step != checkpoint.step:
        raise _unreadable(checkpoint, f"{STATE} says step {position.step}, the manifest {checkpoint.step}")
    ours = {name: parameter.detach() for name, parameter in parameters.items()}
    _same(checkpoint, ours, weights)
    _same(checkpoint, optimizer.state(), known)
    for name, parameter in ours.items():
        parameter.copy_(weights[name])
    optimizer.load_state(known)
    return position


def _is_finite(tensor: Tensor) -> bool:
    # A sum is one pass without memory of its own; only where it overflows each element is looked at.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _same(checkpoint: Checkpoint, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Make sure that names, shapes and formats are those of the run.

    Raises:
        ModelError: checkpoint/other-parameters, naming them.
    """
    missing, extra = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    both = [(name, _kind(theirs[name]), _kind(ours[name])) for name in ours if name in theirs]
    other = [f"{name} is {saved}, the run's {made}" for name, saved, made in both if saved != made]
    found = [f"not in it: {name}" for name in missing] + [f"not trained: {name}" for name in extra] + other
    if found:
        raise ModelError(
            Problem(
                "checkpoint/other-parameters",
                f"the checkpoint does not hold what is trained: {len(found):,} parameters differ",
                where=str(checkpoint.folder),
                found="; ".join(found[:4]),
                fix="continue with the recipe that the run was begun with",
            )
        )


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _unreadable(checkpoint: Checkpoint, found: str) -> ModelError:
    what, fix = "the checkpoint verifies, and cannot be read", "remove it to go on from the one before"
    return ModelError(Problem("checkpoint/unreadable", what, str(checkpoint.folder), found=found, fix=fix))
