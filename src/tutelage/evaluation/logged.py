"""The rows that lm-eval logs, as lines of our results."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tutelage.tasks.marking import Line


def lines(task: str, metric: str, samples: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    """A line for each row. What was asked is told without the template, which is the model's."""
    times: Counter[str] = Counter()
    for one in samples:
        row = hashlib.sha256(f"{one['doc_hash']} {one['target_hash']}".encode()).hexdigest()[:12]
        times[row] += 1
        name = row if times[row] == 1 else f"{row}-{times[row]}"
        generated = len(one["arguments"]) == 1 and isinstance(one["filtered_resps"][0], str)
        yield {
            "row": name,
            "sample": 0,
            "prompt": row,
            "origin": {"file": task, "line": one["doc_id"] + 1},
            "asked": [{"role": "prompt", "content": str(one["arguments"][0][0])}],
            "reference": one["target"] if isinstance(one["target"], str | int | float) else str(one["target"]),
            "hinted": False,
            "answer": one["filtered_resps"][0] if generated else _likeliest(one),
            "score": float(one[metric]),
            "found": None,
            "why": "",
            "parts": {},
            "stopped": None,
            "cut_at_text": None,
            "tokens": None,
            "logprob": None,
            "health": None,
        }


def _likeliest(one: Mapping[str, Any]) -> str | None:
    """The option with the highest log-probability, where options were compared."""
    rated = [answer[0] for answer in one["filtered_resps"] if isinstance(answer, list | tuple) and answer]
    if not rated or len(rated) != len(one["arguments"]) or not all(isinstance(each, int | float) for each in rated):
        return None
    return str(one["arguments"][rated.index(max(rated))][1])


def digest(config: Mapping[str, Any]) -> str:
    """Of all that the task says of itself, but where it lies."""
    told = {key: value for key, value in config.items() if key not in ("metadata", "dataset_kwargs")}
    text = json.dumps(told, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", text).encode("utf-8", "surrogatepass")).hexdigest()
