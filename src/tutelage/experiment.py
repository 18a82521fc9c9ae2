"""One run, from prepared data to the report; each method of `Experiment` is a stage, in the order they happen."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tutelage import assemble, config, environment
from tutelage.assemble import Prepared
from tutelage.config import Resolved
from tutelage.data.show import preview_rows
from tutelage.errors import TutelageError
from tutelage.recipe import Recipe
from tutelage.runs import Run
from tutelage.screen import Screen

if TYPE_CHECKING:
    from torch import nn

    from tutelage.evaluate.measure import Measure, Measured
    from tutelage.models.forward import Forward
    from tutelage.models.precision import Precision
    from tutelage.train.choice import Choice
    from tutelage.train.loop import Step


@dataclass(slots=True)
class Experiment:
    """A run in progress; each method is one stage of it, in this order."""

    resolved: Resolved
    prepared: Prepared
    screen: Screen
    started: float = field(default_factory=time.perf_counter)
    steps: list[Step] = field(default_factory=list)
    choice: Choice | None = None
    rounding: dict[str, Any] | None = None
    """What approximate products change of the loss, where they are approximate."""
    token_budget: int = 2048
    """Tokens computed at once: the plan's choice, and less after memory ran out."""

    @property
    def recipe(self) -> Recipe:
        return self.resolved.recipe

    @property
    def folder(self) -> Run:
        return Run(self.recipe.output)

    @property
    def precision(self) -> Precision:
        """The formats of weights, products, optimizer state and masters."""
        return assemble.formats(self.prepared, self.device)

    @property
    def device(self) -> str:
        """Where the model runs."""
        from tutelage.models.load import choose_device

        return choose_device(self.recipe.model.device)

    def run(self) -> dict[str, Any]:
        """All stages in order; `result.json`.

        Raises:
            TutelageError: what went wrong; the run folder then says so.
        """
        from tutelage.train.memory import explained

        try:
            with explained(lambda: self.token_budget):
                return self._stages()
        except BaseException as error:
            self.record_failure(error)
            raise

    def _stages(self) -> dict[str, Any]:
        from tutelage.models.adapters import without_adapter
        from tutelage.models.precision import computing

        self.plan()
        forward = self.load()
        self.open(forward)
        questions = self.measure.questions(self.prepared.questions)
        self.rounding = self.measure.rounding(forward, self.precision, token_budget=self.token_budget)
        with computing(self.precision, forward.device):
            parameters = self.adapt(forward)
            self.rehearse(forward, parameters)
            with without_adapter(forward.model):
                base = self.measure.model(forward, questions, "base", step=0, token_budget=self.token_budget)
            self.learn(forward, parameters)
            done = len(self.steps)
            tuned = self.measure.model(forward, questions, "tuned", step=done, token_budget=self.token_budget)
        saved = self.save(forward)
        return self.finish(forward, base, tuned, saved)

    def plan(self) -> None:
        """How the run fits into memory and time, before any weight is read."""
        with self.screen.stage("planning", None):
            self.resolved, self.prepared, self.choice = assemble.choose(self.resolved, self.prepared, self.device)
        self.token_budget = self.choice.estimate.token_budget
        for line in self.choice.lines():
            self.screen.say(f"plan    {line}")

    def load(self) -> Forward:
        """The model, with the fastest way to run it that is exact."""
        from tutelage.models.forward import prove
        from tutelage.models.load import load_model
        from tutelage.train.memory import forget_startup_objects, keep_freed_memory

        keep_freed_memory()
        device = self.device
        with self.screen.stage("loading the model", None):
            model = load_model(self.prepared.location, device=device, dtype=self.precision.weights)
            forward = prove(model, max_length=self.recipe.data.max_length)
        forget_startup_objects()
        self.screen.say(f"model   {self.recipe.model.path} on {device}; {self.precision.sentence()}")
        for remark in forward.remarks():
            self.screen.say(f"note    {remark}")
        return forward

    def open(self, forward: Forward) -> None:
        """The run folder, with everything that is known before the first step."""
        folder, prepared = self.folder, self.prepared
        folder.create()
        self.write_recipe()
        folder.write_json("environment.json", environment.describe(prepared.dataset.store, forward))
        folder.write_json("data.json", prepared.describe())
        if prepared.dataset.quarantined:
            folder.append("quarantine.jsonl", (asdict(problem) for problem in prepared.dataset.quarantined))
        rows = preview_rows(prepared.dataset, prepared.encoder.tokenizer, 20)
        folder.append("rows.jsonl", (row.coloured() for row in rows))

    def write_recipe(self) -> None:
        """What is run, and why each value is what it is."""
        self.folder.write_text("recipe.yaml", config.dump(self.recipe))
        self.folder.write_json("origins.json", self.resolved.origins)

    @property
    def measure(self) -> Measure:
        """What the model is measured on, before, during and after."""
        return assemble.measure(self.prepared, self.folder, self.screen)

    def adapt(self, forward: Forward) -> dict[str, nn.Parameter]:
        """Switch on what is trained."""
        from tutelage.models.training import for_training

        assert self.choice is not None
        options = self.recipe.train
        parameters, notes = for_training(
            forward,
            self.recipe.model.adapter,
            seed=options.seed,
            base=self.prepared.location.path,
            checkpointing=self.choice.estimate.checkpointing,
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

    def learn(self, forward: Forward, parameters: dict[str, nn.Parameter]) -> None:
        """The optimizer steps, each written down as it is made."""
        from tutelage.objectives.nll import nll
        from tutelage.train.guard import Guard
        from tutelage.train.journal import write_down
        from tutelage.train.loop import steps
        from tutelage.train.optimizer import build_optimizer
        from tutelage.train.schedule import learning_rate

        options, total = self.recipe.train, self.prepared.steps
        peak = self.recipe.learning_rate
        run = steps(
            forward,
            nll,
            assemble.groups(self.prepared, token_budget=self.token_budget, share=forward.share),
            build_optimizer(parameters, options, self.precision),
            parameters=parameters,
            rate=lambda step: learning_rate(step, steps=total, peak=peak, schedule=options.schedule),
            max_grad_norm=options.max_grad_norm,
            guard=Guard(),
        )
        points = assemble.evaluation_points(total, self.recipe.evaluate.points)
        trained = sum(p.numel() for p in parameters.values())
        self.screen.say(f"train   {trained:,} parameters, {total:,} steps of {options.global_batch_size} examples")
        with self.screen.stage("training", total) as advance:
            for step in run:
                self.steps.append(step)
                self.token_budget = write_down(
                    step, self.folder, self.screen, device=forward.device, token_budget=self.token_budget
                )
                advance(1, note=f"loss {step.loss:.3f}  {step.tokens / step.seconds:,.0f} tokens/s")
                if step.step in points:
                    name = f"step {step.step}"
                    self.measure.loss(forward, name, step=step.step, token_budget=self.token_budget)
        forward.model.zero_grad(set_to_none=True)  # What is measured next needs no gradients.

    def save(self, forward: Forward) -> dict[str, Any]:
        """Write the model and have a fresh process reproduce it."""
        from tutelage.export.delivery import deliver
        from tutelage.train.memory import give_back_memory

        prepared = self.prepared
        given = {"tokenizer": prepared.tokenizer, "template": prepared.encoder.template, "stop_ids": prepared.stop_ids}
        give_back_memory()  # The fresh process needs as much as this one still holds.
        with self.screen.stage("saving, and loading again in a fresh process", None):
            examples = prepared.heldout or prepared.train
            return deliver(
                forward,
                self.folder,
                examples,
                merged=self.recipe.export.merged,
                weights=self.precision.weights,
                given=given,
            )

    def finish(
        self,
        forward: Forward,
        base: Measured,
        tuned: Measured,
        saved: dict[str, Any],
    ) -> dict[str, Any]:
        """The answer, for machines and for people."""
        from tutelage.evaluate.outcome import heldout_verdict, stopped, task_scores
        from tutelage.report.page import write
        from tutelage.train.memory import peak_memory_bytes

        options = self.recipe.evaluate
        seconds = sum(step.seconds for step in self.steps)
        result = {
            "status": "done",
            "steps": len(self.steps),
            "skipped_steps": sum(step.skipped for step in self.steps),
            "ledger": {
                key: self.prepared.dataset.ledger.as_json()[key] for key in ("rows", "trained", "heldout", "dropped")
            },
            "heldout": heldout_verdict(
                base.loss,
                tuned.loss,
                confidence=options.confidence,
                rows=self.prepared.dataset.rows_of(self.prepared.heldout),
                renderings=self.prepared.dataset.rendering_of(self.prepared.heldout),
            ),
            "tasks": task_scores(base.answers, tuned.answers, options),
            "stopped": {"base": stopped(base.answers), "tuned": stopped(tuned.answers)},
            "tokens_per_second": sum(step.tokens for step in self.steps) / seconds,
            "supervised_tokens_per_second": sum(step.supervised_tokens for step in self.steps) / seconds,
            "peak_memory_bytes": peak_memory_bytes(forward.device),
            "training_seconds": seconds,
            "seconds": time.perf_counter() - self.started,
            "model": saved,
        }
        self.folder.write_json("result.json", result)
        write(self.folder.folder)
        return result

    def record_failure(self, error: BaseException) -> None:
        """Say in the run folder, if the run got as far as having one, how it ended."""
        if self.folder.is_empty():
            return
        diverged = isinstance(error, TutelageError) and error.code == "train/diverged"
        status = "diverged" if diverged else "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        self.folder.write_json("result.json", {"status": status, "steps": len(self.steps), "error": str(error)})
