"""The lines of a task summed up: its score with an interval, and how whole the answers are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tutelage.evaluate.compare import paired_means, wilson
from tutelage.scoring.health import Health, shares
from tutelage.tasks.errand import Errand
from tutelage.tasks.marking import Line

CONFIDENCE = 0.95
PARTS = 200
"""Names of parts, such as the fields of an object, whose means are told."""


def summed(lines: Iterable[Line], confidence: float = CONFIDENCE) -> dict[str, Any]:
    """Mean, interval, health and counts; memory does not grow with what the answers say."""
    scores: list[float] = []
    draws: list[str] = []
    rows: set[str] = set()
    looked: list[Health] = []
    at_text: list[bool] = []
    parts: dict[str, list[float]] = {}
    hinted: set[str] = set()
    tokens = 0
    for line in lines:
        scores.append(float(line["score"]))
        draws.append(draw(line))
        rows.add(f"{line['row']} {line['prompt']}")
        tokens += line["tokens"] or 0
        if line["hinted"]:
            hinted.add(line["row"])
        if line["health"] is not None:
            looked.append(Health(**line["health"]))
        if line["cut_at_text"] is not None:
            at_text.append(line["cut_at_text"])
        for name, score in line["parts"].items():
            # What is rated and not written has its options there, which are other ones in each row.
            if line["health"] is not None and (name in parts or len(parts) < PARTS):
                parts.setdefault(name, []).append(score)
    return {
        "mean": float(np.mean(scores)) if scores else None,
        "interval": interval(scores, draws, confidence),
        "confidence": confidence,
        "n": len(rows),
        "answers": len(scores),
        "health": _health(looked, at_text),
        "parts": {name: sum(each) / len(each) for name, each in sorted(parts.items())},
        "answer_in_prompt": len(hinted),
        "tokens": tokens or None,
        "rows_sha256": hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest(),
    }


def spread(formats: Iterable[tuple[Errand, Iterable[Line]]], confidence: float = CONFIDENCE) -> dict[str, Any] | None:
    """What the scores of the same rows in several wordings come to, on the rows that were answered in all of them.

    The interval is of the mean over wordings: a row with all its answers is one draw. None where no row is shared.
    """
    wordings: list[Errand] = []
    scores: list[dict[str, list[float]]] = []
    draws: dict[str, str] = {}
    for errand, lines in formats:
        wordings.append(errand)
        scores.append({})
        for line in lines:
            scores[-1].setdefault(line["row"], []).append(float(line["score"]))
            draws.setdefault(line["row"], draw(line))
    rows = [row for row in scores[0] if all(row in each for each in scores)]
    if not rows:
        return None
    means = [float(np.mean([np.mean(each[row]) for row in rows])) for each in scores]
    every = [float(np.mean([np.mean(each[row]) for each in scores])) for row in rows]
    return {
        "n": len(scores),
        "rows": len(rows),
        "mean": float(np.mean(means)),
        "interval": interval(every, [draws[row] for row in rows], confidence),
        "lowest": min(means),
        "highest": max(means),
        "spread": max(means) - min(means),
        "deviation": float(np.std(means, ddof=1)) if len(means) > 1 else None,
        "scores": [
            {"format": errand.format, "prompt": errand.task.turns[-1].content, "mean": mean}
            for errand, mean in zip(wordings, means, strict=True)
        ],
    }


def draw(line: Line) -> str:
    """What the answer is a draw of: its row's cluster, such as a document, or else its prompt."""
    cluster = line.get("cluster")
    return f"prompt {line['prompt']}" if cluster is None else f"cluster {cluster}"


def interval(scores: Sequence[float], clusters: Sequence[str], confidence: float) -> list[float] | None:
    """Of a mean score, where `clusters` says what each is a draw of; None where one draw says nothing of others."""
    values = np.asarray(scores, dtype=float)
    draws = len(set(clusters))
    right_or_wrong = bool(((values == 0) | (values == 1)).all())
    # Where all are the same, spread tells nothing, and how many there are does.
    if draws and right_or_wrong and (draws == len(values) or values.min() == values.max()):
        return list(wilson(round(float(values.mean()) * draws), draws, confidence))
    if draws < 2:
        return None
    low, high = paired_means(np.zeros(len(values)), values, confidence=confidence, clusters=clusters).interval
    return [max(0.0, low), min(1.0, high)]


def _health(looked: Sequence[Health], at_text: Sequence[bool]) -> dict[str, Any] | None:
    """Shares of the answers; None where none was written."""
    if not looked:
        return None
    found = shares(looked)
    if at_text:
        found["cut_at_text"] = sum(at_text) / len(at_text)
        found["stopped"] = max(0.0, found["stopped"] - found["cut_at_text"])
    return found
