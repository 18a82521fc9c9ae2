"""A run up to its first step: the plan, the model, the run folder, the adapter, the rehearsal.

What rank 0 of several processes plans holds for all of them; a run that goes on keeps the plan that it has.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tutelage import assemble, config, environment
from tutelage.config import Resolved
from tutelage.data.show import preview_rows
from tutelage.lineage import Lineage, with_steps
from tutelage.onlooker import Onlooker
from tutelage.prepared import Prepared
from tutelage.recipe import Recipe
from tutelage.runs import MEASUREMENTS, Run
from tutelage.screen import Screen

if TYPE_CHECKING:
    from torch import nn

    from tutelage.evaluate.measure import Measure
    from tutelage.models.checkpointing import Kind
    from tutelage.models.forward import Forward
    from tutelage.models.precision import Precision
    from tutelage.track import Followers
    from tutelage.train.choice import Choice
    from tutelage.train.ranks import Ranks

MEASURED = (*MEASUREMENTS, "samples.jsonl", "tasks.jsonl")
"""What is written anew when the base model is measured anew."""


@dataclass(slots=True)
class Beginning:
    """A run that has made no step yet; each method is one stage, in this order."""

    resolved: Resolved
    prepared: Prepared
    screen: Screen
    lineage: Lineage = field(default_factory=Lineage.new)
    ranks: Ranks = field(default_factory=lambda: _alone())
    watched: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    """Names the process that is to blame for what the others raise."""
    started: float = field(default_factory=time.perf_counter)
    choice: Choice | None = None
    """How the run fits into memory; None for one that goes on as it was planned."""
    rounding: dict[str, Any] | None = None
    """What approximate products change of the loss, where they are approximate."""
    token_budget: int = 2048
    """Tokens computed at once: the plan's choice, and less after memory ran out."""
    checkpointing: Kind = "none"
    """The plan's choice."""
    until: int | None = None
    """The step after which the run stops, to be continued later."""
    measuring: Measure | None = None
    """What is measured on, once it was asked for."""
    followers: Followers | None = None
    """Who tells the trackers."""

    @property
    def recipe(self) -> Recipe:
        return self.resolved.recipe

    @property
    def folder(self) -> Run:
        kind = Run if self.ranks.first else Onlooker
        return kind(self.recipe.output, wait_seconds=self.recipe.checkpoint.wait, say=self.screen.say)

    @property
    def precision(self) -> Precision:
        """The formats of weights, products, optimizer state and masters."""
        return assemble.formats(self.prepared, self.device)

    @property
    def device(self) -> str:
        """Where the model runs."""
        from tutelage.models.load import choose_device

        return choose_device(self.recipe.model.device)

    def follow(self) -> None:
        """What rank 0 planned holds for all."""
        names = ("token_budget", "checkpointing", "rounding")
        origin = self.resolved.origins.get("train.steps", "default")
        plan = {**{name: getattr(self, name) for name in names}, "steps": self.recipe.train.steps, "origin": origin}
        plan = self.ranks.broadcast(plan)
        if not self.ranks.first:
            for name in names:
                setattr(self, name, plan[name])
            self.resolved = with_steps(self.resolved, plan["steps"], plan["origin"])
            self.prepared = replace(self.prepared, recipe=self.resolved.recipe)

    def plan(self) -> None:
        """How the run fits into memory and time, before any weight is read; a run that goes on keeps its plan."""
        known = self.folder.read_json("plan.json") if self.lineage.resumed else None
        if known is not None:
            self.token_budget, self.checkpointing = known["token_budget"], known["checkpointing"]
            self.rounding = known["rounding"]
            if known["steps"] != self.prepared.steps:
                self.folder.write_json("plan.json", {**known, "steps": self.prepared.steps})
            return
        with self.screen.stage("planning", None):
            self.resolved, self.prepared, self.choice = assemble.choose(self.resolved, self.prepared, self.device)
        self.token_budget = self.choice.estimate.token_budget
        self.checkpointing = self.choice.estimate.checkpointing
        for line in self.choice.lines():
            self.screen.say(f"plan    {line}")

    def load(self) -> Forward:
        """The model, with the fastest way to run it that is exact."""
        from tutelage.models.forward import prove
        from tutelage.models.load import load_model, remark_on_weights
        from tutelage.train.memory import forget_startup_objects, keep_freed_memory

        keep_freed_memory()
        device = self.device
        with self.screen.stage("loading the model", None):
            model = load_model(self.prepared.location, device=device, dtype=self.precision.weights)
            forward = prove(model, max_length=self.recipe.data.max_length)
        forget_startup_objects()
        self.screen.say(f"model   {self.recipe.model.path} on {device}; {self.precision.sentence()}")
        for remark in (*remark_on_weights(model), *forward.remarks()):
            self.screen.say(f"note    {remark}")
        return forward

    def open(self, forward: Forward) -> None:
        """The run folder, with everything that is known before the first step."""
        folder, prepared = self.folder, self.prepared
        folder.create()
        folder.checkpoints.sweep()
        made_with = environment.describe(prepared.location, prepared.dataset.store, forward)
        for note in self.lineage.compare_environment(folder.read_json("environment.json", needed=False), made_with):
            self.screen.say(f"note    {note}")
        if (
            self.lineage.other_rows
        ):  # Before anything says that these are the run's rows: nothing is compared with others.
            for name in ("base.json", "examples.jsonl", *MEASURED):
                folder.forget(name)
        self.lineage.write(folder, prepared, environment=made_with)
        folder.forget("result.json")
        self.write_recipe()
        folder.write_json("environment.json", made_with)
        folder.write_json("data.json", prepared.describe())
        if prepared.dataset.quarantined:
            folder.write_lines("quarantine.jsonl", (asdict(problem) for problem in prepared.dataset.quarantined))
        rows = preview_rows(prepared.dataset, prepared.encoder.tokenizer, 20)
        folder.write_lines("rows.jsonl", (row.coloured() for row in rows))

    def write_recipe(self) -> None:
        """What is run, and why each value is what it is."""
        self.folder.write_text("recipe.yaml", config.dump(self.recipe))
        self.folder.write_json("origins.json", self.resolved.origins)

    @property
    def measure(self) -> Measure:
        """What the model is measured on, before, during and after."""
        if self.measuring is None:
            from tutelage.measurements import measure

            self.measuring = measure(self.prepared, self.folder, self.screen, self.ranks)
        return self.measuring

    def adapt(self, forward: Forward) -> dict[str, nn.Parameter]:
        """Switch on what is trained."""
        from tutelage.models.training import for_training

        options = self.recipe.train
        parameters, notes = for_training(
            forward,
            self.recipe.model.adapter,
            seed=options.seed,
            base=self.prepared.location.name,
            revision=self.prepared.location.commit,
            checkpointing=self.checkpointing,
            compiled=options.compile,
        )
        for note in notes:
            self.screen.say(f"note    {note}")
        return parameters

    def rehearse(self, forward: Forward, parameters: dict[str, nn.Parameter]) -> None:
        """The worst micro-batch before the first step; what it took replaces what was predicted."""
        from tutelage.export.delivery import try_saving
        from tutelage.models.attention import dropped
        from tutelage.objectives.nll import nll
        from tutelage.train.optimizer import build_optimizer
        from tutelage.train.rehearsal import rehearse_until_it_fits

        assert self.choice is not None
        dropped.clear()
        with self.screen.stage("rehearsing the largest micro-batch", None):
            self.choice = rehearse_until_it_fits(
                self.choice,
                assemble.work(self.prepared),
                forward,
                nll,
                parameters,
                build=partial(build_optimizer, parameters, self.recipe.train, self.precision),
                save=partial(try_saving, forward),
                folder=self.folder.folder,
                allowed=self.recipe.budget.memory_bytes,
            )
        self.token_budget = self.choice.estimate.token_budget
        self.resolved, self.prepared, self.choice = assemble.shortened(self.resolved, self.prepared, self.choice)
        self.write_recipe()
        planned = assemble.plan(self.prepared, forward, parameters, self.choice)
        self.folder.write_json("plan.json", {**planned, "rounding": self.rounding})
        self.screen.say(f"plan    {self.choice.measured_line()}")
        if dropped:
            self.screen.say(f"note    dropout of attention weights ({max(dropped):g}) is off; all other dropout is on")


def _alone() -> Ranks:
    from tutelage.train.ranks import ALONE

    return ALONE
