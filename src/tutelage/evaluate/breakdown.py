"""Held-out loss in parts: by source, by task, by turn, by length of the answer, thinking against answer, and per byte.

Base and tuned are paired, and what is drawn anew in another set of rows is a row, with all of its answers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from tutelage.evaluate.anatomy import Anatomy
from tutelage.evaluate.compare import paired_ratio
from tutelage.evaluate.heldout import HeldoutLoss

FEWEST = 2
"""Rows of a group that is shown; one alone tells nothing of others."""
MOST = 40
"""Tasks that are told apart."""
GROUPS = 10
"""Parts by length, each with as many answers as the others where lengths allow."""


def breakdown(base: HeldoutLoss, tuned: HeldoutLoss, anatomy: Anatomy, confidence: float) -> dict[str, Any]:
    """Each group's losses, for every way to group that makes several of them; groups of too few rows are counted.

    `left_out` says how many groups of each kind had fewer than two rows.
    """
    if base.pieces is None or tuned.pieces is None or not anatomy.pieces:
        return {}
    rows = anatomy.row_numbers[anatomy.column("example").astype(np.int64)]
    weights, tokens = anatomy.column("weight"), anatomy.column("tokens")
    found: dict[str, Any] = {}
    left_out: dict[str, int] = {}
    for kind, names in _kinds(anatomy):
        order = list(dict.fromkeys(sorted(names, key=lambda name: (name[0], name[1]))))
        if len(order) < 2:
            continue
        groups = []
        for group in order:
            mine = np.array([name == group for name in names])
            drawn, row = np.unique(rows[mine], return_inverse=True)
            if len(drawn) < FEWEST:
                left_out[kind] = left_out.get(kind, 0) + 1
                continue
            values = (base.pieces.sums, tuned.pieces.sums, weights)
            loss = paired_ratio(
                *(np.bincount(row, weights=value[mine]) for value in values),
                confidence=confidence,
            )
            groups.append(
                {
                    "name": group[1],
                    "n": loss.n,
                    "tokens": int(tokens[mine].sum()),
                    "base_nll": loss.base,
                    "tuned_nll": loss.tuned,
                    "difference": loss.difference,
                    "interval": list(loss.interval),
                    "verdict": loss.verdict(lower_is_better=True),
                }
            )
        if groups:
            found[kind] = groups
    return {**found, "left_out": left_out} if found or left_out else {}


def _kinds(anatomy: Anatomy) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Each way to group the pieces, with the group of each: its place among the others, and its name."""
    sources = list(dict.fromkeys(anatomy.sources))
    yield "source", [(sources.index(anatomy.sources[p.example]), anatomy.sources[p.example]) for p in anatomy.pieces]
    yield "task", _tasks(anatomy)
    yield "turn", [(piece.turn, str(piece.turn)) for piece in anatomy.pieces]
    yield "length", _lengths(anatomy)
    parts = ("thinking", "answer")
    yield "part", [(int(not piece.thinking), parts[not piece.thinking]) for piece in anatomy.pieces]


def _tasks(anatomy: Anatomy) -> list[tuple[int, str]]:
    """The task of each piece; those of the fewest answers are one, where there are very many."""
    names = [anatomy.tasks[piece.example] for piece in anatomy.pieces]
    often = [name for name, _ in Counter(names).most_common()]
    named = {name: (place, name or "(none named)") for place, name in enumerate(often)}
    for name in often[MOST - 1 :] if len(often) > MOST else ():
        named[name] = (len(often), f"{len(often) - MOST + 1:,} others")
    return [named[name] for name in names]


def _lengths(anatomy: Anatomy) -> list[tuple[int, str]]:
    """The tenth of all answers, by tokens, in which each piece's answer is."""
    answers: dict[tuple[int, int], int] = {}
    for piece in anatomy.pieces:
        key = piece.example, piece.turn
        answers[key] = answers.get(key, 0) + piece.tokens
    sizes = np.array(list(answers.values()))
    edges = np.unique(np.quantile(sizes, np.arange(1, GROUPS) / GROUPS, method="lower"))
    group = np.searchsorted(edges, sizes, side="left")  # An edge is the longest of its own group.
    names = {}
    for number in np.unique(group).tolist():
        low, high = sizes[group == number].min(), sizes[group == number].max()
        names[number] = f"{low} tokens" if low == high else f"{low} to {high} tokens"
    place = dict(zip(answers, group.tolist(), strict=True))
    return [(place[piece.example, piece.turn], names[place[piece.example, piece.turn]]) for piece in anatomy.pieces]


def per_byte(base: HeldoutLoss, tuned: HeldoutLoss, anatomy: Anatomy) -> dict[str, Any] | None:
    """Losses in bits per byte of the answers' text, and in nats per byte: these do not depend on the tokenizer.

    Every trained token counts once, stop tokens too, which have no byte; None where no answer has any text.
    """
    size = anatomy.column("bytes").sum()
    if base.pieces is None or tuned.pieces is None or not size:
        return None
    nats = {"base": float(base.pieces.plain.sum() / size), "tuned": float(tuned.pieces.plain.sum() / size)}
    bits = {name: value / math.log(2) for name, value in nats.items()}
    return {**bits, "unit": "bits per byte", "nats": nats, "bytes": int(size)}


def stop_probability(loss: HeldoutLoss, anatomy: Anatomy) -> float | None:
    """How likely the stop token is, on average, at the end of the answers that have one; None where none has."""
    if loss.pieces is None:
        return None
    ends = loss.pieces.ends[anatomy.column("stops").astype(bool)]
    return float(np.exp(-ends).mean()) if len(ends) else None
