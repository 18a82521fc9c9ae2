"""A proved model becomes one that is trained: adapter, dropout, what is kept for the backward pass, compilation."""

from __future__ import annotations

from torch import nn

from tutelage.models.adapters import adapt, trainable
from tutelage.models.checkpointing import Kind, checkpoint
from tutelage.models.compiled import compile_layers
from tutelage.models.dropout import StatelessDropout, make_stateless
from tutelage.models.forward import Forward
from tutelage.recipe import Full, Lora


def for_training(
    forward: Forward, adapter: Lora | Full, *, seed: int, base: str, checkpointing: Kind, compiled: bool
) -> tuple[dict[str, nn.Parameter], list[str]]:
    """The parameters that are trained, by name, and what the user should know; the model inside is changed.

    Raises:
        MachineError: machine/missing-package, when layers shall be compiled and there is no compiler.
    """
    forward.model = adapt(forward.model, adapter, seed=seed, base=base)  # type: ignore[arg-type]
    forward.draw, off = make_stateless(forward.model)
    notes = [f"the model's dropout of attention weights ({off:g}) is off; all other dropout is on"] if off else []
    drops = any(isinstance(module, StatelessDropout) for module in forward.model.modules())
    if checkpointing != "none" and drops and not forward.packed:
        # Rows computed one by one have one draw at a time, and a layer computed again would take the last one's.
        notes.append("nothing is computed again: this model runs one example at a time, with dropout")
    else:
        checkpoint(forward.model, checkpointing)
    if compiled:
        compile_layers(forward.model)
    return trainable(forward.model), notes
