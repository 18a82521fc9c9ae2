"""The optimizer steps of a run, and what happens between two of them: notes, measurements, checkpoints, signals.

A run that was broken off goes on after its newest checkpoint that verifies; so does one that a step sent back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tutelage import assemble
from tutelage.prepared import Prepared
from tutelage.runs import MEASUREMENTS, Run
from tutelage.screen import Advance, Screen
from tutelage.signals import SIGNALS, StopRequested

if TYPE_CHECKING:
    from torch import nn

    from tutelage.evaluate.course import Course
    from tutelage.evaluate.measure import Measure
    from tutelage.models.forward import Forward
    from tutelage.models.precision import Precision
    from tutelage.train.guard import Guard, RollBack
    from tutelage.train.joint import JointSaver
    from tutelage.train.loop import Step
    from tutelage.train.optimizer import FusedAdamW
    from tutelage.train.ranks import Ranks
    from tutelage.train.sharding import Shards
    from tutelage.train.state import Position


@dataclass(slots=True)
class Learning:
    """The part of a run in which weights change."""

    prepared: Prepared
    folder: Run
    screen: Screen
    measure: Measure
    forward: Forward
    parameters: dict[str, nn.Parameter]
    optimizer: FusedAdamW
    guard: Guard
    course: Course
    saver: JointSaver
    ranks: Ranks
    shards: Shards | None = None
    """What this process holds, where the model is divided."""
    token_budget: int = 2048
    """Tokens computed at once; less after memory ran out."""
    reduced: int | None = None
    """The same, where memory ran out."""
    done: int = 0
    """Steps that were made."""
    ended: bool = False
    """Whether no further step is made, although the recipe asks for more: the last ones were in vain."""
    look_around: Callable[[], None] = lambda: None
    """Called after each step."""
    kept: int | None = None
    """The last step that was saved or restored."""

    @staticmethod
    def begin(
        prepared: Prepared,
        folder: Run,
        screen: Screen,
        measure: Measure,
        forward: Forward,
        parameters: dict[str, nn.Parameter],
        precision: Precision,
        run: str,
        ranks: Ranks,
        shards: Shards | None = None,
        until: int | None = None,
    ) -> Learning:
        """Before its first step."""
        from tutelage import measurements
        from tutelage.train.guard import Guard
        from tutelage.train.joint import JointSaver
        from tutelage.train.optimizer import build_optimizer
        from tutelage.train.sharding import Replicas

        recipe = prepared.recipe
        optimizer = build_optimizer(parameters, recipe.train, precision)
        if not ranks.alone:
            optimizer.gathering = shards or Replicas(ranks, parameters)
        saver = JointSaver(
            folder.checkpoints,
            run,
            parameters,
            optimizer,
            keep=recipe.checkpoint.keep,
            named=recipe.export.named,
            wait_seconds=recipe.checkpoint.wait,
            say=screen.say,
            before_commit=folder.sync_journals,
            ranks=ranks,
            shards=shards,
        )
        guard, course = Guard(recipe.guard, go_on_from=saver.where), measurements.course(prepared, until)
        parts = (prepared, folder, screen, measure, forward, parameters, optimizer, guard, course, saver, ranks, shards)
        return Learning(*parts)

    def go_on(self) -> None:
        """Take up the run where its newest verified checkpoint left it; without one, at the beginning."""
        if self._restore():
            total, last = self.prepared.steps, self.saver.last
            self.screen.say(f"resume  after step {self.done:,} of {total:,}, from {last.folder if last else 'rank 0'}")
        self.folder.cut_back(self.done)
        self.course.restore(self.ranks.by_first(lambda: list(self.folder.read_lines("heldout.jsonl"))))
        if self.course.asks_for(self.done):  # Of one that was broken off half may be written.
            self.folder.cut_back(self.done - 1, MEASUREMENTS)
        if self.done < self.prepared.steps:
            self.saver.refuse_without_room()

    def run(self) -> None:
        """Make the steps that are left.

        Raises:
            StopRequested: after a checkpoint was written.
            TutelageError: what went wrong.
        """
        from tutelage.train.guard import RollBack

        try:
            with SIGNALS.held(), self.screen.stage("training", self.prepared.steps) as advance:
                self._between()
                if self.done:
                    advance(self.done)
                while self._goes_on:
                    try:
                        for step in self._steps():
                            self._note(step, advance)
                            self._between()
                            if not self._goes_on:
                                break
                    except RollBack as back:
                        self._go_back(back, advance)
            self.saver.finish()
        finally:
            self.saver.join()  # What was begun is committed before anybody else may have the folder.

    @property
    def _goes_on(self) -> bool:
        return self.done < self.prepared.steps and not self.ended

    def _steps(self) -> Iterator[Step]:
        from tutelage.objectives.nll import nll
        from tutelage.train.loop import steps
        from tutelage.train.schedule import learning_rate

        recipe, total = self.prepared.recipe, self.prepared.steps
        groups = assemble.groups(
            self.prepared,
            token_budget=self.token_budget,
            share=self.forward.share,
            after=self.done,
            passed_over=self.guard.passed_over,
            ranks=self.ranks,
            lockstep=self.shards is not None,
        )
        return steps(
            self.forward,
            nll,
            groups,
            self.optimizer,
            parameters=self.parameters,
            rate=lambda step: learning_rate(
                step, steps=total, peak=recipe.learning_rate, schedule=recipe.train.schedule
            ),
            max_grad_norm=recipe.train.max_grad_norm,
            guard=self.guard,
            budget=self.reduced,
            ranks=self.ranks,
        )

    def _note(self, step: Step, advance: Advance) -> None:
        from tutelage.train.journal import write_down

        self.token_budget = write_down(
            step, self.folder, self.screen, device=self.forward.device, token_budget=self.token_budget
        )
        self.done, self.reduced = step.step, step.token_budget
        speed = f"{step.tokens / step.seconds:,.0f} tokens/s" if step.seconds else "passed over"
        advance(1, note=f"loss {step.loss:.3f}  {speed}")
        self.look_around()

    def _between(self) -> None:
        """What is due after the last step."""
        options, step = self.prepared.recipe.checkpoint, self.done
        paused = self.course.pauses_at(step)
        stop, open_ = self._stop(), self.course.asks_for(step)
        if open_ and not stop:
            self._measure(step)
            stop = self._stop()
        # A save that a signal asked for came before the measurement; it is made again with it.
        told = open_ and not self.course.asks_for(step)
        due = step % options.every == 0 or paused or self.course.saves(step)
        first = step == 0 and self.guard.goes_back
        if (self.kept != step or told) and (first or (step > 0 and (due or stop))):
            self._save(step)
        if stop or paused:
            self.saver.finish()
            names = self.ranks.gather(SIGNALS.requested)
            raise StopRequested(next((name for name in names if name), f"--until {self.course.until}"))
        if not self.ended and self.course.in_vain(step):
            self.ended = True
            self.screen.say(f"stop    after step {step:,} of {self.prepared.steps:,}: {self.course.reason}")

    def take_exported(self) -> int:
        """Stand at the step whose weights are exported; its number.

        Raises:
            ModelError: checkpoint/not-kept, where the recipe names it.
        """
        step, named = self.course.exported(self.done), self.prepared.recipe.export.named
        if step == self.done:
            return step
        why = "is the step that export.step names" if named else "has the lowest held-out loss of all steps"
        if self.saver.restored(self.ranks.only_first(partial(self.saver.of_step, step))) is not None:
            self.screen.say(f"export  step {step:,} {why}")
            return step
        if named:
            raise self.saver.checkpoints.not_kept(named)
        self.screen.say(f"note    step {step:,} {why}, but its checkpoint is not there any more")
        return self.done

    def _stop(self) -> bool:
        """Whether the run was asked to stop, on any process.

        Raises:
            TutelageError: a checkpoint could not be saved.
        """
        said = self.ranks.agree({"stop": SIGNALS.requested is not None, "broken": self.saver.broken})
        if said["broken"]:
            self.ranks.together(self.saver.check)
        return bool(said["stop"])

    def _measure(self, step: int) -> None:
        # Several processes share a measurement, which one of them cannot leave.
        interruptible = SIGNALS.released() if self.ranks.alone else nullcontext()
        try:
            with self.ranks.pulse.during("evaluating"), interruptible:
                pause = self.course.is_pause(step)
                loss = self.measure.point(self.forward, step=step, token_budget=self.token_budget, pause=pause)
        except StopRequested:
            return  # The step is saved first; the measurement is made when the run goes on.
        finally:
            if self.shards is not None:
                self.shards.give_back()
        self.course.add(step, loss)

    def _save(self, step: int) -> None:
        from tutelage.train.state import Position

        facts = {
            "healthy": self.guard.in_a_row == 0,
            "heldout_nll": self.course.nll_at(step),
            "heldout_rows": self.course.digest,
        }
        broken = self.saver.save(Position(step, self.reduced, self.guard.state()), facts)
        if broken is not None:
            self.guard.refuse_state(step, broken)
        self.kept = step

    def _go_back(self, back: RollBack, advance: Advance) -> None:
        """To the last checkpoint after sound steps; the step that sent the run back is passed over from now on."""
        self.saver.finish()
        self.guard.passed_over.append(back.step)
        was = self.done
        if not self._restore(healthy=True):
            self.guard.refuse_to_go_back(back)
        if self.ranks.first:
            self.folder.checkpoints.remove_after(self.done)
        self.folder.cut_back(self.done)
        self.course.forget_after(self.done)
        advance(self.done - was)
        self.screen.say(
            f"note    step {back.step} is not sound ({back}); back to step {self.done}, and its rows are passed over"
            f"{back.rows and ': '}{back.rows}"
        )

    def _restore(self, *, healthy: bool = False) -> bool:
        """Stand where the newest verified checkpoint stands; False where there is none."""
        found = self.ranks.only_first(partial(self.saver.newest, healthy=healthy))
        position = self.saver.restored(found)
        if position is None:
            return False
        self.saver.last, self.kept = found, position.step
        self._stand_at(position)
        return True

    def _stand_at(self, position: Position) -> None:
        self.done, self.reduced = position.step, position.token_budget
        self.token_budget = min(self.token_budget, position.token_budget or self.token_budget)
        self.guard.load_state(position.guard)
