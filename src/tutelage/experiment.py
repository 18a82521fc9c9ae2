"""One run, from prepared data to the report; each method of `Experiment` is a stage, in the order they happen."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage import assemble, config
from tutelage.assemble import Prepared
from tutelage.config import Resolved
from tutelage.data.show import preview_rows
from tutelage.errors import TutelageError
from tutelage.recipe import Recipe
from tutelage.runs import Run
from tutelage.screen import Screen

if TYPE_CHECKING:
    from torch import nn

    from tutelage.evaluate.heldout import HeldoutLoss
    from tutelage.evaluate.samples import Answered, Question
    from tutelage.models.forward import Forward
    from tutelage.train.loop import Step


@dataclass(slots=True)
class Measured:
    """One model, before or after."""

    loss: HeldoutLoss
    answers: list[Answered]


@dataclass(slots=True)
class Experiment:
    """A run in progress; each method is one stage of it, in this order."""

    resolved: Resolved
    prepared: Prepared
    screen: Screen
    started: float = field(default_factory=time.perf_counter)
    steps: list[Step] = field(default_factory=list)

    @property
    def recipe(self) -> Recipe:
        return self.resolved.recipe

    @property
    def folder(self) -> Run:
        return Run(self.recipe.output)

    def run(self) -> dict[str, Any]:
        """All stages in order; `result.json`.

        Raises:
            TutelageError: what went wrong; the run folder then says so.
        """
        from tutelage.train.memory import explained

        try:
            with explained(self.recipe.train.token_budget):
                return self._stages()
        except BaseException as error:
            self.record_failure(error)
            raise

    def _stages(self) -> dict[str, Any]:
        forward = self.load()
        self.open(forward)
        questions = self.questions()
        base = self.measure(forward, questions, "base", step=0)
        parameters = self.adapt(forward)
        self.folder.write_json("plan.json", assemble.plan(self.prepared, forward, parameters))
        self.learn(forward, parameters)
        tuned = self.measure(forward, questions, "tuned", step=len(self.steps))
        saved = self.save(forward)
        return self.finish(forward, base, tuned, saved)

    def load(self) -> Forward:
        """The model, with the fastest way to run it that is exact."""
        from tutelage.models.forward import prove
        from tutelage.models.load import choose_device, load_model
        from tutelage.train.memory import forget_startup_objects, keep_freed_memory

        keep_freed_memory()
        device = choose_device(self.recipe.model.device)
        with self.screen.stage("loading the model", None):
            model = load_model(self.prepared.location, device=device)
            forward = prove(model, max_length=self.recipe.data.max_length)
        forget_startup_objects()
        self.screen.say(f"model   {self.recipe.model.path} on {device}, float32")
        if not forward.packed:
            self.screen.say(f"note    one example at a time, which is slower: {forward.reason}")
        return forward

    def open(self, forward: Forward) -> None:
        """The run folder, with everything that is known before the first step."""
        folder, prepared = self.folder, self.prepared
        folder.create()
        folder.write_text("recipe.yaml", config.dump(self.recipe))
        folder.write_json("origins.json", self.resolved.origins)
        folder.write_json("environment.json", assemble.environment(prepared, forward.device.type))
        folder.write_json("data.json", prepared.describe())
        if prepared.dataset.quarantined:
            folder.append("quarantine.jsonl", (asdict(problem) for problem in prepared.dataset.quarantined))
        rows = preview_rows(prepared.dataset, prepared.encoder.tokenizer, 20)
        folder.append("rows.jsonl", (row.coloured() for row in rows))

    def questions(self) -> list[Question]:
        """Held-out prompts to answer."""
        from tutelage.evaluate.samples import questions

        options, prepared = self.recipe.evaluate, self.prepared
        count = options.samples if options.score == "none" else max(options.samples, options.score_rows)
        return questions(prepared.dataset, prepared.encoder.tokenizer, prepared.stop_ids, count)

    def measure(self, forward: Forward, questions: list[Question], name: str, *, step: int) -> Measured:
        """Held-out loss, and answers to held-out prompts, written down."""
        from tutelage.evaluate.samples import ask

        loss = self.evaluate(forward, name, step=step)
        tokenizer, options = self.prepared.encoder.tokenizer, self.recipe.evaluate
        with self.screen.stage(f"{name}: answering held-out prompts", len(questions)) as advance:
            answers = ask(
                forward,
                questions,
                tokenizer,
                stop_ids=self.stop_ids(forward),
                max_new_tokens=options.max_new_tokens,
                progress=advance,
            )
        self.folder.append(
            "samples.jsonl",
            (
                answered.as_json(
                    model=name,
                    step=step,
                    prompt=tokenizer.decode(answered.question.prompt_ids),
                    max_new_tokens=options.max_new_tokens,
                    correct=self.correct(answered),
                )
                for answered in answers
            ),
        )
        return Measured(loss, answers)

    def correct(self, answered: Answered) -> bool | None:
        from tutelage.scoring.exact import SCORERS

        scorer = SCORERS.get(self.recipe.evaluate.score)
        return None if scorer is None else scorer(answered.text, answered.question.reference)

    def stop_ids(self, forward: Forward) -> list[int]:
        """What ends an answer, for base and tuned alike: the data's stop tokens and the model's own."""
        from tutelage.models.adapters import base_of, own_stop_ids

        return list(dict.fromkeys([*self.prepared.stop_ids, *own_stop_ids(base_of(forward.model))]))

    def evaluate(self, forward: Forward, name: str, *, step: int) -> HeldoutLoss:
        """The loss on the held-out examples, written down."""
        from tutelage.evaluate.heldout import HeldoutLoss, heldout_loss

        examples = self.prepared.heldout
        if not examples:
            return HeldoutLoss(np.zeros(0), np.zeros(0), 0)
        with self.screen.stage(f"{name}: held-out loss", len(examples)) as advance:
            loss = heldout_loss(forward, examples, token_budget=self.recipe.train.token_budget, progress=advance)
        record = {"step": step, "nll": loss.nll, "tokens": loss.tokens, "examples": len(examples)}
        self.folder.append("evaluations.jsonl", [record])
        return loss

    def adapt(self, forward: Forward) -> dict[str, nn.Parameter]:
        """Switch on what is trained."""
        from tutelage.models.adapters import adapt, trainable

        forward.model = adapt(
            forward.model,  # type: ignore[arg-type]
            self.recipe.model.adapter,
            seed=self.recipe.train.seed,
            base=self.prepared.location.path,
        )
        return trainable(forward.model)

    def learn(self, forward: Forward, parameters: dict[str, nn.Parameter]) -> None:
        """The optimizer steps, each written down as it is made."""
        from tutelage.objectives.nll import nll
        from tutelage.train.guard import Guard
        from tutelage.train.loop import steps
        from tutelage.train.memory import peak_memory_bytes
        from tutelage.train.optimizer import build_optimizer
        from tutelage.train.schedule import learning_rate

        options, total = self.recipe.train, self.prepared.steps
        peak = self.recipe.learning_rate
        run = steps(
            forward,
            nll,
            assemble.groups(self.prepared, token_budget=options.token_budget),
            build_optimizer(parameters, options),
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
                record = {**asdict(step), "computed_tokens": step.tokens}
                record["peak_memory_bytes"] = peak_memory_bytes(forward.device)
                self.folder.append("metrics.jsonl", [record])
                advance(1, note=f"loss {step.loss:.3f}  {step.tokens / step.seconds:,.0f} tokens/s")
                if step.skipped:
                    self.screen.say(f"note    step {step.step} skipped: loss {step.loss}, gradient {step.grad_norm}")
                if step.step in points:
                    self.evaluate(forward, f"step {step.step}", step=step.step)

    def save(self, forward: Forward) -> dict[str, Any]:
        """Write the model and have a fresh process reproduce it."""
        from tutelage.export.folder import save, save_merged
        from tutelage.export.parity import prove, record, tolerance
        from tutelage.models.adapters import base_of, without_adapter

        prompts = [example.input_ids.tolist() for example in (self.prepared.heldout or self.prepared.train)]
        recorded = record(forward, prompts)
        allowed = {}
        if base_of(forward.model) is not forward.model:
            with without_adapter(forward.model):
                allowed = {"allowed": tolerance(recorded, record(forward, prompts))}
        given = {
            "tokenizer": self.prepared.tokenizer,
            "template": self.prepared.encoder.template,
            "stop_ids": self.prepared.stop_ids,
        }
        with self.screen.stage("saving, and loading again in a fresh process", None):
            save(forward.model, self.folder.model, **given)
            worst = prove(self.folder.model, recorded, **allowed)
            saved = {"folder": str(self.folder.model), "logit_difference": worst}
            if self.recipe.export.merged:
                merged = self.folder.folder / "merged"
                save_merged(forward.model, merged, **given)
                saved["merged"] = str(merged)
                saved["merged_logit_difference"] = prove(merged, recorded, **allowed)
        return saved

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
