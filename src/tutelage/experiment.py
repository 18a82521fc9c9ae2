"""One run, from prepared data to the report; each method of `Experiment` is a stage, in the order they happen.

A stage that an earlier process of the run finished is not made again: its file is read.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tutelage import track
from tutelage.beginning import MEASURED, Beginning
from tutelage.errors import TutelageError
from tutelage.learning import Learning
from tutelage.runs import summary
from tutelage.screen import SILENT
from tutelage.signals import SIGNALS, StopRequested

if TYPE_CHECKING:
    from torch import nn

    from tutelage.evaluate.course import Course
    from tutelage.evaluate.measure import Measured
    from tutelage.evaluate.samples import Question
    from tutelage.models.forward import Forward
    from tutelage.train.sharding import Shards


@dataclass(slots=True)
class Experiment(Beginning):
    """A run in progress; each method is one stage of it, in this order."""

    def run(self) -> dict[str, Any]:
        """All stages in order; `result.json`.

        Raises:
            TutelageError: what went wrong; the run folder then says so.
            StopRequested: a signal came; the run folder then says so.
        """
        from tutelage.train.memory import explained

        try:
            with self.watched(), explained(lambda: self.token_budget):
                return self._stages()
        except BaseException as error:
            self.record_failure(error)
            raise
        finally:
            if self.followers is not None:
                self.followers.finish()

    def _stages(self) -> dict[str, Any]:
        from tutelage.models.adapters import without_adapter
        from tutelage.models.precision import computing

        ranks = self.ranks
        with self.stage("planning"):
            ranks.together(lambda: self.measure)  # A file that is named and cannot be read is told of now.
            ranks.only_first(self.plan)
            self.follow()
        with self.stage("loading"):
            forward = ranks.together(self.load)
            ranks.only_first(partial(self.open, forward))
            self.followers = (
                track.start(self.folder.folder, self.recipe.track, self.screen.say) if ranks.first else None
            )
        questions = self.measure.questions(self.prepared.questions)
        with self.stage("evaluating"):
            if self.choice is not None:
                self.rounding = self.measure.rounding(forward, self.precision, token_budget=self.token_budget)
        with computing(self.precision, forward.device):
            with self.stage("rehearsing"):
                parameters = ranks.together(partial(self.adapt, forward))
                if ranks.broadcast(self.choice is not None):
                    ranks.only_first(partial(self.rehearse, forward, parameters))
                self.follow()
            with self.stage("evaluating"), without_adapter(forward.model):
                base = self.before(forward, questions)
            step, course = self.learn(forward, parameters)
            with self.stage("evaluating"):
                budget, known = self.token_budget, course.measured.get(step)
                tuned = self.measure.model(forward, questions, "tuned", step=step, token_budget=budget, loss=known)
        with self.stage("exporting"):
            saved = ranks.only_first(partial(self.save, forward)) or {}
            result: dict[str, Any] = ranks.by_first(partial(self.finish, forward, base, tuned, course, saved))
        return result

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stretch of the run, as the watchdog knows it; a signal that a library swallowed is heard before it."""
        SIGNALS.raise_if_requested()
        with self.ranks.pulse.during(name):
            yield

    def before(self, forward: Forward, questions: list[Question]) -> Measured:
        """The base model measured; once for a run, whatever breaks it off."""
        known = self.folder.read_json("base.json") if self.ranks.first else None
        if self.ranks.broadcast(known is not None):
            return self.measure.recalled(known, questions)
        for name in MEASURED:
            self.folder.forget(name)
        base = self.measure.base(forward, questions, token_budget=self.token_budget)
        self.folder.write_json("base.json", base.as_json())
        return base

    def learn(self, forward: Forward, parameters: dict[str, nn.Parameter]) -> tuple[int, Course]:
        """The optimizer steps; the one whose weights the model then has, and what was measured on the way."""
        options, total = self.recipe.train, self.prepared.steps
        trained = sum(p.numel() for p in parameters.values())
        whole, shards = forward, None
        if options.parallel == "sharded" and not self.ranks.alone:
            from tutelage.train.sharding import divide

            forward, shards = divide(forward, self.ranks)
            parameters = shards.parameters
        given = (self.prepared, self.folder, self.screen, self.measure, forward, parameters)
        learning = Learning.begin(*given, self.precision, self.lineage.run, self.ranks, shards, self.until)
        learning.token_budget = self.token_budget
        if self.followers is not None:
            learning.look_around = self.followers.check
        self.screen.say(f"train   {trained:,} parameters, {total:,} steps of {options.global_batch_size} examples")
        learning.go_on()
        learning.run()
        step = learning.take_exported()
        self.token_budget = learning.token_budget
        learning.optimizer.zero_grad()  # What is measured next needs no gradients.
        if shards is not None:
            self.put_together(whole, shards)
        return step, learning.course

    def put_together(self, forward: Forward, shards: Shards) -> None:
        """The model in one piece again, on every process, with what was trained."""
        from tutelage.train.sharding import put_into

        with self.ranks.pulse.during("loading"):
            trained = {name: tensor.cpu() for name, tensor in shards.whole_tensors()}
            screen, self.screen = self.screen, SILENT  # All of this was said before.
            loaded = self.ranks.together(self.load)
            put_into(self.ranks.together(partial(self.adapt, loaded)), trained)
            self.screen = screen
        forward.become(loaded)

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
        self, forward: Forward, base: Measured, tuned: Measured, course: Course, saved: dict[str, Any]
    ) -> dict[str, Any]:
        """The answer, for machines and for people."""
        from tutelage.evaluate.outcome import answer
        from tutelage.report.page import write
        from tutelage.train.memory import peak_memory_bytes

        ledger, made = self.prepared.dataset.ledger.as_json(), summary(self.folder)
        result = {
            "status": "done",
            "ledger": {key: ledger[key] for key in ("rows", "trained", "heldout", "dropped")},
            **answer(base, tuned, self.measure, course, done=made["steps"], rule=self.recipe.export.step),
            **made,
            "peak_memory_bytes": max(peak_memory_bytes(forward.device), made["peak_memory_bytes"]),
            "seconds": time.perf_counter() - self.started,
            "sessions": len(self.lineage.sessions) + 1,
            "model": saved,
        }
        self.folder.write_json("result.json", result)
        write(self.folder.folder)
        return result

    def record_failure(self, error: BaseException) -> None:
        """Say in the run folder, if the run got as far as having one, how it ended."""
        if not self.ranks.first or not self.folder.holds_a_run():
            return
        diverged = isinstance(error, TutelageError) and error.code == "train/diverged"
        stopped = isinstance(error, StopRequested | KeyboardInterrupt)
        status = "diverged" if diverged else "stopped" if stopped else "failed"
        with contextlib.suppress(Exception):  # The disk may be what failed, and this must not hide how.
            steps = summary(self.folder)["steps"]
            self.folder.write_json("result.json", {"status": status, "steps": steps, "error": str(error)})
