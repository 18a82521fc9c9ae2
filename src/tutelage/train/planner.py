"""How a run is made to fit: its memory, what it costs, and the choice between the two, before any weight is read."""

from __future__ import annotations

import torch

from tutelage.models.location import Location
from tutelage.models.precision import Precision
from tutelage.recipe import Lora, Recipe
from tutelage.train import probe
from tutelage.train.choice import Choice, choose, does_not_fit
from tutelage.train.estimate import Estimate, Estimator, held
from tutelage.train.memory import give_back_memory, keep_freed_memory, memory_in_use, memory_limit
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
    config = probe.config_of(location)

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

    if state() > limit:  # Without an activation; the probe itself might not fit.
        raise does_not_fit(state(), limit, by, instead())
    estimator = Estimator(
        probe.Probe(location, recipe.model.adapter, precision, device=device, max_length=recipe.data.max_length),
        work,
        process=process,
        optimizer=lambda parameters: build_optimizer(parameters, recipe.train, precision),
    )
    try:
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
    finally:
        del estimator
        give_back_memory()
