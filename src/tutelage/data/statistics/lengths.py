"""How long the examples are in tokens, once they are encoded: what a run will compute, and what it will train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data.statistics.quantiles import SHARES, bins

Counts = NDArray[np.integer[Any]]

PADDED = 8
"""Examples in a batch, for what padding would cost."""


def token_statistics(
    lengths: Counts,
    supervised: Counts,
    sources: Counts | None = None,
    names: Sequence[str] = (),
    *,
    max_length: int | None = None,
) -> dict[str, Any]:
    """Return lengths in tokens, what is trained of them, what each source brings, and what padding would cost.

    One element an example; `sources` are places in `names`. Padding is what shuffled batches of `PADDED` examples,
    each filled up to its longest, would compute beside the tokens; packed batches do not.
    """
    total, trained, count = int(lengths.sum(dtype=np.int64)), int(supervised.sum(dtype=np.int64)), len(lengths)
    values, counts = np.unique(lengths, return_counts=True)
    quantiles = np.percentile(lengths, SHARES, method="inverted_cdf") if count else np.zeros(len(SHARES))
    found: dict[str, Any] = {
        "examples": count,
        "total": total,
        "supervised": trained,
        "supervised_share": trained / max(1, total),
        "longest": int(values[-1]) if count else 0,
        "quantiles": {str(share): int(value) for share, value in zip(SHARES, quantiles, strict=True)},
        "histogram": bins(dict(zip(values.tolist(), counts.tolist(), strict=True))),
        "padding": _padding(lengths, total),
    }
    if max_length is not None:
        longer = lengths > max_length
        found["max_length"] = max_length
        found["over_max_length"] = {"examples": int(longer.sum()), "tokens": int(lengths[longer].sum(dtype=np.int64))}
    if sources is not None:
        size = len(names)
        examples = np.bincount(sources, minlength=size)
        sums = [np.bincount(sources, weights=of, minlength=size) for of in (lengths, supervised)]
        found["sources"] = {
            name: {"examples": int(examples[i]), "tokens": int(sums[0][i]), "supervised": int(sums[1][i])}
            for i, name in enumerate(names)
        }
    return found


def _padding(lengths: Counts, total: int) -> dict[str, Any]:
    order = np.random.default_rng(0).permutation(lengths)
    starts = np.arange(0, len(order), PADDED)
    sizes = np.diff(np.append(starts, len(order)))
    padded = int((np.maximum.reduceat(order, starts).astype(np.int64) * sizes).sum()) if len(order) else 0
    return {"batch": PADDED, "tokens": padded - total, "share": (padded - total) / max(1, padded)}
