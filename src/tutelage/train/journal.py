"""Each step of a run, written down as it is made."""

from __future__ import annotations

from dataclasses import fields

import torch

from tutelage.runs import Run
from tutelage.screen import Screen
from tutelage.train.loop import Step
from tutelage.train.memory import peak_memory_bytes


def write_down(step: Step, run: Run, screen: Screen, *, device: torch.device, token_budget: int) -> int:
    """A line of `metrics.jsonl` and one of `examples.jsonl`, and a note where something happened; the tokens computed
    at once from here on."""
    facts = {field.name: getattr(step, field.name) for field in fields(step) if field.name not in ("losses", "unsound")}
    facts |= {"unsound": step.unsound} if step.unsound else {}
    run.append("metrics.jsonl", [{**facts, "peak_memory_bytes": peak_memory_bytes(device)}])
    if step.losses is not None:
        run.append("examples.jsonl", [step.losses.as_json(step.step)])
    if step.skipped:
        why = "its rows are passed over"
        if step.unsound:
            why = f"loss {step.loss}, gradient {step.grad_norm}; its rows are {step.unsound}"
        screen.say(f"note    step {step.step} skipped: {why}")
    if step.token_budget is None or step.token_budget == token_budget:
        return token_budget
    screen.say(
        f"note    memory ran out in step {step.step}; it was made again, and from here on at most "
        f"{step.token_budget:,} tokens are computed at once, which changes no result"
    )
    return step.token_budget
