"""Rows of a finished run that are worth a look: what the losses of each pass say of them, and what becomes of that.

examples.jsonl ──> courses ──> ranking ──┐
                                         ├──> suspects.jsonl, adjust.jsonl ──> data.adjust of the next recipe
token store ──> conflicts ───────────────┘
"""

from tutelage.suspects.search import Suspects, find

__all__ = ["Suspects", "find"]
