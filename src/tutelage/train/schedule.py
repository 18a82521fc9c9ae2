"""The learning rate at each step: a pure function of the step, the run's length and the recipe."""

from __future__ import annotations

import math

from tutelage.recipe import Schedule


def learning_rate(step: int, *, steps: int, peak: float, schedule: Schedule) -> float:
    """The rate of optimizer step `step`, counted from 1, of a run of `steps`.

    It rises in a line over the warm-up, is `peak` at its end, and falls to zero one step after the last, so that
    no step is wasted at rate zero.
    """
    warmup = warmup_steps(steps, schedule)
    if step <= warmup:
        return peak * step / (warmup + 1)
    if schedule.kind == "constant":
        return peak
    progress = (step - 1 - warmup) / max(1, steps - warmup)
    if schedule.kind == "linear":
        return peak * (1 - progress)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_steps(steps: int, schedule: Schedule) -> int:
    """Steps before the peak."""
    if isinstance(schedule.warmup, int):
        return min(schedule.warmup, steps)
    return round(schedule.warmup * steps)


def evaluation_points(steps: int, points: int) -> set[int]:
    """Steps after which the held-out loss is measured during training; the last step is measured anyway."""
    return {round(steps * k / (points + 1)) for k in range(1, points + 1)} - {0, steps}
