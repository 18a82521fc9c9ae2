"""The verbs `tutelage eval` and `tutelage compare`: answers to tasks, row by row, and what two sets of them say.

    MODEL ── Subject ─┐
    tasks ── Errand ──┴─ evaluate ──> FOLDER/TASK.jsonl, one answer a line; FOLDER/TASK.json, the summary
                                          │
    A, B ── Results ── paired by row ── compare ──> verdicts, wins and losses ──> screen, JSON, page

A row goes by a name made of what it holds, so neither its place in a file, nor the company that it is asked in, nor
how often the evaluation was broken off changes what is written about it.
"""

from __future__ import annotations

from tutelage.evaluation.comparison import compare
from tutelage.evaluation.examination import evaluate
from tutelage.evaluation.results import Results, results
from tutelage.tasks.errand import Errand, errands

__all__ = ["Errand", "Results", "compare", "errands", "evaluate", "results"]
