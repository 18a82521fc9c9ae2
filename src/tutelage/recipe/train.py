"""How the weights are changed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, NonNegativeInt, PositiveFloat, PositiveInt, Tag

from tutelage.recipe.base import Section


def _share_or_steps(value: Any) -> str:
    return "(steps)" if isinstance(value, int) and not isinstance(value, bool) else "(share)"


class Schedule(Section):
    """The learning rate over the run."""

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls after the warm-up: to zero along a cosine or a line, or not at all."""
    warmup: Annotated[
        Annotated[float, Field(ge=0, lt=1), Tag("(share)")] | Annotated[NonNegativeInt, Tag("(steps)")],
        Discriminator(_share_or_steps),
    ] = 0.05
    """Steps of linear rise at the start: a share of the run (below 1) or a number of steps."""


class TrainOptions(Section):
    """The training loop."""

    epochs: PositiveInt | None = None
    """Passes over the training examples; 1 when neither this nor `steps` is given."""
    steps: PositiveInt | None = None
    """Optimizer steps, instead of epochs."""
    global_batch_size: PositiveInt = 16
    """Examples per optimizer step, whatever fits in memory at once."""
    learning_rate: PositiveFloat | None = None
    """The highest rate; 2e-5 for full fine-tuning and 2e-4 for LoRA when not given."""
    schedule: Schedule = Schedule()
    """`{kind: cosine, warmup: 0.05}`."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay, on matrices only."""
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Field(strict=False)
    ] = (0.9, 0.999)
    """AdamW's two averages."""
    eps: PositiveFloat = 1e-8
    """AdamW's smallest divisor."""
    max_grad_norm: PositiveFloat = 1.0
    """The gradient of a step is scaled down to this norm when it is longer."""
    seed: NonNegativeInt = 0
    """Decides the order of the examples, the adapter's start and dropout."""
    token_budget: PositiveInt | None = None
    """Tokens computed at once; chosen by the memory plan when not given. Changes memory and speed, never the result."""
    checkpointing: Literal["auto", "none", "selective", "full"] = "auto"
    """Which activations are computed again in the backward pass instead of being kept: auto computes none again unless
    memory demands it. Changes memory and speed, never the result."""
    parallel: Literal["replicated", "sharded"] = "replicated"
    """Where `torchrun` starts several processes, what each holds: the whole model, or a slice of its weights, gradients
    and optimizer state. Changes memory and speed, never the result."""
    compile: bool = False
    """Put the model's layers through torch.compile: minutes of waiting at the first step, which pay where there are no
    compiled kernels (GPUs) and the run is long. Changes speed, never the result."""
