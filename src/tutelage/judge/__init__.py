"""The verb `tutelage judge`: which of two models answers better, in the opinion of a third.

    A, B ── pairs ──> a request with two answers ── hear ──> FOLDER/judgements.jsonl, one judgement a line
                                                                │
    FOLDER/labels of people ──────────── agreement ── figures ──┴──> FOLDER/judgement.json ──> screen, page

Each pair is judged twice, with the answers the other way round the second time; a judge that is moved by the place of
an answer says so by contradicting itself, and then nobody has won. What cannot be read is counted and never guessed.
"""

from __future__ import annotations

from tutelage.judge.hearing import judge

__all__ = ["judge"]
