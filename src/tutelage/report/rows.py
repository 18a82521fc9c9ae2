"""A row as coloured tokens, with its long stretches shortened."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.report import text
from tutelage.report.contents import Row

TOKENS = 1000
"""Tokens of one row that are shown."""
GAP = 240
"""A longer run of tokens that are not trained is shortened in its middle."""


def shorten(row: Row) -> list[tuple[str, float | None]]:
    """(visible token, weight), with (how many are left out, None) where tokens are not shown."""
    shown: list[tuple[str, float | None]] = []
    for run in _runs(row.tokens):
        if run[0][1] == 0 and len(run) > GAP:
            left = len(run) - GAP
            shown += [*run[: GAP // 2], (f"{left:,} more tokens, not trained", None), *run[-GAP // 2 :]]
        else:
            shown += run
    kept: list[tuple[str, float | None]] = []
    length = 0
    for token, weight in shown:
        if len(kept) == TOKENS or length > text.TEXT_LIMIT:
            kept.append((f"the rest of {len(row.tokens):,} tokens is not shown", None))
            break
        piece, more = (token, 0) if weight is None else text.cut(text.visible_token(token), 200)
        length += len(piece)
        kept.append((piece + "…" if more else piece, weight))
    return kept


def _runs(tokens: Sequence[tuple[str, float]]) -> list[list[tuple[str, float]]]:
    """The tokens cut where trained ones begin and end."""
    runs: list[list[tuple[str, float]]] = []
    for token in tokens:
        if not runs or (runs[-1][-1][1] == 0) != (token[1] == 0):
            runs.append([])
        runs[-1].append(token)
    return runs
