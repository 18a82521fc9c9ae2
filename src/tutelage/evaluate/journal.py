"""The held-out losses of a run, row by row, in two files: what is measured on, and every measurement of it.

    heldout.json    {"rows": [...], "origins": [[file, line], ...], "sources", "turns", "tokens", "bytes", "weights"},
                    one of each for every example, in order
    heldout.jsonl   {"step", "model", "sums": [...]}, one line a measurement: the weighted nats of every example

With them two runs are compared row by row, long after both have ended, on the rows that both held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluate.compare import Difference, paired_ratio
from tutelage.runs import Run

if TYPE_CHECKING:
    from tutelage.evaluate.anatomy import Anatomy
    from tutelage.evaluate.heldout import HeldoutLoss

DESCRIPTION, MEASUREMENTS = "heldout.json", "heldout.jsonl"
SAME = 1e-3
"""Difference of two losses on a row, as a share, that the order of sums can make; more is another model."""

Key = tuple[str, str]
"""A row's name, and in which words it was asked."""


def describe(anatomy: Anatomy) -> dict[str, Any]:
    """`heldout.json`: of each example its row, and what is needed to pair and to group it."""
    turns = [0] * len(anatomy.rows)
    for piece in anatomy.pieces:
        turns[piece.example] = turns[piece.example] or piece.turn
    return {
        "rows": list(anatomy.rows),
        "renderings": list(anatomy.renderings),
        "origins": [[origin.file, origin.line] for origin in anatomy.origins],
        "sources": list(anatomy.sources),
        "turns": turns,  # the first trained answer of the row that the example holds
        "tokens": [int(count) for count in anatomy.by_example(anatomy.column("tokens"))],
        "bytes": [int(count) for count in anatomy.by_example(anatomy.column("bytes"))],
        "weights": anatomy.by_example(anatomy.column("weight")).tolist(),
    }


def line(step: int, model: str, loss: HeldoutLoss) -> dict[str, Any]:
    """A line of `heldout.jsonl`."""
    return {"step": step, "model": model, "sums": loss.sums.tolist()}


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """What a run's two files say, summed up by row."""

    name: str
    rows: dict[Key, NDArray[np.float64]]
    """Of each row (tokens, bytes, weight)."""
    losses: dict[str, dict[Key, float]]
    """Of each model (`base`, `tuned`), each row's weighted nats."""


def recorded(run: Run, name: str) -> Recorded | None:
    """What a run kept; None where it kept nothing, or what it kept is damaged."""
    said = run.read_json(DESCRIPTION, needed=False)
    try:
        keys = [*zip(said["rows"], said.get("renderings") or [""] * len(said["rows"]), strict=True)]
        facts = [np.array(said[name], dtype=float) for name in ("tokens", "bytes", "weights")]
        lines = {one["model"]: one["sums"] for one in run.read_lines(MEASUREMENTS, whole=False)}
        losses = {
            model: _by_row(keys, np.array(sums, dtype=float))
            for model, sums in lines.items()
            if model in ("base", "tuned") and len(sums) == len(keys)
        }
        columns = [_by_row(keys, column) for column in facts]
    except (KeyError, TypeError, ValueError):
        return None
    rows = {key: np.array([column[key] for column in columns]) for key in dict.fromkeys(keys)}
    return Recorded(name, rows, losses)


def _by_row(keys: Iterable[Key], values: NDArray[np.float64]) -> dict[Key, float]:
    sums: dict[Key, float] = {}
    for key, value in zip(keys, values.tolist(), strict=True):
        sums[key] = sums.get(key, 0.0) + value
    return sums


def paired(one: Recorded, other: Recorded, confidence: float) -> dict[str, Any]:
    """Two runs on the rows that both held out: the second's tuned model against the first's.

    Where a tokenizer cuts the rows otherwise, losses are per byte of the answers, else per token. `note` says why
    there is nothing to compare, where that is so.
    """
    shared = [key for key in one.rows if key in other.rows]
    counts = {"n": len(shared), "rows": {"base": len(one.rows), "other": len(other.rows)}}
    named = {"base": one.name, "other": other.name, **counts}
    if "tuned" not in one.losses or "tuned" not in other.losses:
        late = [each.name for each in (one, other) if "tuned" not in each.losses]
        return {**named, "note": f"{' and '.join(late)} kept no held-out loss of a trained model"}
    if not shared:
        return {**named, "note": "no row was held out by both runs"}
    mine, theirs = (np.array([each.rows[key] for key in shared]) for each in (one, other))
    if np.allclose(mine[:, 2], theirs[:, 2]) and (mine[:, 0] == theirs[:, 0]).all():
        unit, scale = "nats per token", mine[:, 2]
    elif np.allclose(mine[:, 2], mine[:, 0]) and np.allclose(theirs[:, 2], theirs[:, 0]):
        unit, scale = "nats per byte", (mine[:, 1] + theirs[:, 1]) / 2
    else:
        return {**named, "note": "the two runs weight the tokens of their rows differently"}
    if not scale.sum() > 0:
        return {**named, "note": "the rows that both held out have no text to compare"}

    def differ(left: dict[Key, float], right: dict[Key, float]) -> Difference:
        names = {name: number for number, name in enumerate(dict.fromkeys(name for name, _ in shared))}
        owners = [names[name] for name, _ in shared]
        values = [np.array([losses[key] for key in shared]) for losses in (left, right)]
        return paired_ratio(*(np.bincount(owners, weights=each) for each in (*values, scale)), confidence=confidence)

    found = differ(one.losses["tuned"], other.losses["tuned"])
    bases = [each.losses.get("base") for each in (one, other)]
    same = None
    if bases[0] is not None and bases[1] is not None:
        first, second = (np.array([each[key] for key in shared]) for each in (bases[0], bases[1]))
        same = bool(np.allclose(first, second, rtol=SAME, atol=SAME))
    before = {f"{side}_before": _mean(each, shared, scale) for side, each in zip(("base", "other"), bases, strict=True)}
    return {
        **named,
        "n": found.n,
        "unit": unit,
        "same_base": same,
        **before,
        "base_nll": found.base,
        "other_nll": found.tuned,
        "difference": found.difference,
        "interval": list(found.interval),
        "confidence": confidence,
        "chance": found.chance,
        "verdict": found.verdict(lower_is_better=True),
        "sentence": _sentence(found, one, other, unit),
        "note": "",
    }


def _mean(losses: Mapping[Key, float] | None, keys: list[Key], scale: NDArray[np.float64]) -> float | None:
    return None if losses is None else float(sum(losses[key] for key in keys) / scale.sum())


def _sentence(found: Difference, one: Recorded, other: Recorded, unit: str) -> str:
    low, high = found.interval
    counts = [len({name for name, _ in each.rows}) for each in (one, other)]
    of = "" if counts[0] == counts[1] == found.n else f", of {counts[0]:,} and {counts[1]:,} that the two held out"
    numbers = (
        f"held-out loss {found.base:.3f} -> {found.tuned:.3f} {unit} ({found.difference:+.3f}, "
        f"{found.confidence:.0%} interval {low:+.3f} to {high:+.3f}; {found.n:,} shared rows{of})"
    )
    verdict = found.verdict(lower_is_better=True)
    if not found.enough:
        return f"Too few rows were held out by both to tell a difference from noise: {numbers}."
    if verdict == "no difference":
        return f"No difference that can be told from noise: {numbers}."
    return f"{other.name} is {verdict} on held-out rows than {one.name}: {numbers}."
