"""How a run is made to fit: its memory, what it costs, and the choice between the two, before any weight is read."""

from __future__ import annotations

import torch

from tutelage.models.attention import UnsupportedAttention
from tutelage.models.load import unreadable
from tutelage.models.location import Location
from tutelage.models.precision import Precision
from tutelage.recipe import Lora, Recipe
from tutelage.train import probe
from tutelage.train.choice import Choice, choose, does_not_fit, ways
from tutelage.train.estimate import Estimate, Estimator, Memory, held
from tutelage.train.memory import give_back_memory, is_out_of_memory, keep_freed_memory, memory_in_use, memory_limit
from tutelage.train.optimizer import build_optimizer
from tutelage.train.work import Work

MACHINE = "what the machine has available"


def plan_memory(recipe: Recipe, location: Location, precision: Precision, work: Work, device: str) -> Choice:
    """The token budget and the checkpointing with which the run fits, and what it will take.

    Raises:
        MachineError: machine/out-of-memory, with what is needed, what there is, and what would fit.
    """
    keep_freed_memory()
    place = torch.device(device)
    process, limit = memory_in_use(place), memory_limit(place)
    allowed = recipe.budget.memory_bytes
    by = "budget.memory" if allowed is not None and allowed < limit else MACHINE
    limit = limit if allowed is None else min(limit, allowed)
    try:
        config = probe.config_of(location)
    except (OSError, ValueError, KeyError) as error:
        raise unreadable(location, "settings", error) from error

    def state(adapter: Lora | None = None) -> int:
        sizes = probe.sizes_of(config, adapter or recipe.model.adapter)
        return process + sum(held(sizes, precision).values())

    def instead(least: Estimate | None = None) -> str:
        if recipe.model.adapter.kind == "full":
            working = least.memory.activations if least else 0
            needed = state(Lora()) + working
            if needed < limit:
                return f"model.adapter.kind=lora, which needs about {needed / 1e9:.1f} GB"
        return "a smaller model or a smaller data.max_length" + (", or a higher budget.memory" if allowed else "")

    try:
        needed = state()  # Without an activation; the probe itself might not fit.
        if needed > limit:
            raise does_not_fit(needed, limit, by, instead())
        estimator = Estimator(
            probe.Probe(location, recipe.model.adapter, precision, device=device, max_length=recipe.data.max_length),
            work,
            process=process,
            optimizer=lambda parameters: build_optimizer(parameters, recipe.train, precision),
        )
        return choose(
            estimator.estimate,
            token_budget=recipe.train.token_budget,
            checkpointing=recipe.train.checkpointing,
            longest=work.longest,
            device=device,
            limit=limit,
            limited_by=by,
            instead=instead,
        )
    except _ODD as error:
        if is_out_of_memory(error):
            raise does_not_fit(limit, limit, by, instead()) from error
        return _unknown(recipe, work, device, limit, by, error)
    finally:
        give_back_memory()


_ODD = (
    *(AttributeError, AssertionError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError),
    *(MemoryError, UnsupportedAttention),
)
"""What a model raises that is not built as the probe supposes: layers of one list, as many as the settings say."""


def _unknown(recipe: Recipe, work: Work, device: str, limit: int, by: str, error: Exception) -> Choice:
    """A choice without figures; the rehearsal finds them before the first step."""
    tokens, kind = next(
        ways(recipe.train.token_budget, recipe.train.checkpointing, longest=work.longest, device=device)
    )
    none = Memory(process=0, weights=0, gradients=0, optimizer=0, activations=0, allocator=0, answers=0)
    estimate = Estimate(tokens, kind, work.steps, none, work.tokens_per_step, 0.0, 0.0, 0)
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    chosen = {"train.token_budget": "full speed"} if recipe.train.token_budget is None else {}
    return Choice(estimate, limit, by, chosen, unknown=f"this model cannot be copied in small ({reason})")
