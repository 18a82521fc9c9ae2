"""What a model is asked and how its answers are scored: a task is a few lines of YAML and a file of rows.

    YAML ── load ──> Task ─┐
    rows ── data.sources ──┴─ ask ──> Asked (messages, reference) ── model ──> answer ── Task.scorer ──> Mark

An `Errand` is a task with its rows, each under a name of its own; `marked` asks some of them and gives a line for each
answer.

Everything that changes a score is in the task and is printed beside it: the wording, the shots, where an answer stops,
the scorer with its options, and the versions of both.
"""

from __future__ import annotations

from tutelage.tasks.asked import Asked, Asking, ask
from tutelage.tasks.load import builtin, load
from tutelage.tasks.task import Task

__all__ = ["Asked", "Asking", "Task", "ask", "builtin", "load"]
