"""A proved model becomes one that is trained: adapter, dropout, what is kept for the backward pass, compilation."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tutelage.data.batch import pack
from tutelage.models.adapters import adapt, base_of, trainable
from tutelage.models.checkpointing import Kind, checkpoint, supports
from tutelage.models.compiled import compile_layers
from tutelage.models.dropout import StatelessDropout, make_stateless
from tutelage.models.forward import Forward
from tutelage.recipe import Full, Lora
from tutelage.types import Example, Origin


def for_training(
    forward: Forward,
    adapter: Lora | Full,
    *,
    seed: int,
    base: str,
    checkpointing: Kind,
    compiled: bool,
    revision: str | None = None,
) -> tuple[dict[str, nn.Parameter], list[str]]:
    """The parameters that are trained, by name, and what the user should know; the model inside is changed.

    Raises:
        MachineError: machine/missing-package, when layers shall be compiled and there is no compiler.
    """
    forward.model = adapt(forward.model, adapter, seed=seed, base=base, revision=revision)  # type: ignore[arg-type]
    forward.draw, off = make_stateless(forward.model)
    notes = [f"the model's dropout of attention weights ({off:g}) is off; all other dropout is on"] if off else []
    draws = draws_by_itself(forward)
    if draws:
        notes.append("the model draws random numbers of its own while training, so its gradient depends on the cut")
    drops = any(isinstance(module, StatelessDropout) for module in forward.model.modules())
    if checkpointing != "none" and not supports(base_of(forward.model)):
        notes.append("nothing is computed again: this model has no way to")
    elif checkpointing != "none" and drops and not forward.packed:
        # Rows computed one by one have one draw at a time, and a layer computed again would take the last one's.
        notes.append("nothing is computed again: this model runs one example at a time, with dropout")
    else:
        checkpoint(forward.model, checkpointing, draws=draws)
    if compiled:
        compile_layers(forward.model)
    return trainable(forward.model), notes


@torch.no_grad()
def draws_by_itself(forward: Forward) -> bool:
    """Whether two training passes over one row differ: there is dropout that is not ours, written as a function."""
    ids = np.arange(1, 17, dtype=np.int32)
    row = pack([Example(ids, (ids > 1).astype(np.float32), Origin("made", 1), 1)])
    was = forward.model.training
    with torch.random.fork_rng(devices=[forward.device] if forward.device.type == "cuda" else []):
        forward.model.train()
        once, again = (forward.nll(row)[1] for _ in range(2))
        forward.model.train(was)
    return not torch.equal(once, again)
