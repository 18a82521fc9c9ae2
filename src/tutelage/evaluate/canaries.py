"""How much of a canary a model knows: its exposure (Carlini and others 2019, arXiv:1802.08232, section 4).

The canary's code is one of many that could stand there. They are put in order by their loss, and the exposure is the
logarithm of how many there are, less that of the canary's rank: 0 bits where every other code is likelier, and all of
them where none is. A model that never saw the canary has 1.4 bits on average, because any rank is as likely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.data.canaries import alternatives, as_trained, canaries, source_of
from tutelage.data.dataset import Dataset
from tutelage.data.encode import Encoder
from tutelage.data.selection import TRAIN
from tutelage.evaluate.heldout import heldout_loss
from tutelage.models.forward import Forward
from tutelage.types import Completion, Example

if TYPE_CHECKING:
    from tutelage.train.ranks import Ranks

OTHERS = 127
"""Other codes that each canary is compared with."""


@dataclass(frozen=True, slots=True)
class Planted:
    """The canaries of a run that were trained on, each with the same row under other codes."""

    groups: tuple[tuple[Example, ...], ...]
    """The canary comes first."""

    @staticmethod
    def of(dataset: Dataset, encoder: Encoder, *, count: int, seed: int) -> Planted:
        """Those of the canaries that are in the training set as they were made; a rule may have dropped or changed
        one."""
        source = source_of(dataset.options)
        if source is None:
            return Planted(())
        mine = dataset.store.rows["source"] == source
        stored = {
            dataset.store.origin(row).line: dataset.store.example(int(dataset.store.first_example[row]))
            for row in np.flatnonzero(mine & (dataset.selection.sides == TRAIN)).tolist()
        }
        chat, limit = encoder.template is not None, dataset.options.max_length
        groups = []
        for number, canary in enumerate(canaries(count, seed)):
            rows: list[Completion] = [canary, *alternatives(OTHERS, seed, number, canary)]
            encoded = list(encoder.encode((as_trained(row, as_chat=chat) for row in rows), max_length=limit))
            group = tuple(one[0] for one in encoded if isinstance(one, list))
            trained = stored.get(number + 1)
            if trained is not None and len(group) == len(rows) and _equal(group[0], trained):
                groups.append(group)
        return Planted(tuple(groups))

    def exposures(
        self,
        forward: Forward,
        *,
        token_budget: int,
        progress: Callable[[int], None] = lambda examples: None,
        ranks: Ranks | None = None,
    ) -> list[float]:
        """Of each canary, in bits."""
        every = [example for group in self.groups for example in group]
        if not every:
            return []
        loss = heldout_loss(forward, every, token_budget=token_budget, progress=progress, ranks=ranks)
        return [exposure(sums) for sums in np.split(loss.sums, len(self.groups))]


def exposure(losses: np.ndarray) -> float:
    """Of the first among all, in bits; those that are equally likely share their ranks."""
    first, others = float(losses[0]), losses[1:]
    if not math.isfinite(first):
        return 0.0
    rank = 1 + int((others < first).sum()) + int((others == first).sum()) / 2
    return math.log2(len(losses)) - math.log2(rank)


def trained_on(lines: Iterable[Mapping[str, Any]], dataset: Dataset, *, until: int) -> int:
    """How often canaries were trained on up to a step, all together, by the lines of `examples.jsonl`."""
    source, store = source_of(dataset.options), dataset.store
    if source is None:
        return 0
    count = 0
    for line in lines:
        if line["step"] <= until:
            rows = store.rows_of(np.array(line["examples"], dtype=np.int64))
            count += int((store.rows["source"][rows] == source).sum())
    return count


def exposed(base: list[float], tuned: list[float], *, passes: float) -> dict[str, Any] | None:
    """What `result.json` says of them; None without any."""
    if not tuned:
        return None
    most = math.log2(OTHERS + 1)
    first = sum(value == most for value in tuned)
    before, after = (sum(values) / len(values) for values in (base, tuned))
    sentence = (
        f"{len(tuned)} made-up secrets were trained on {passes:.2g} times each in the mean: their exposure went from "
        f"{before:.1f} to "
        f"{after:.1f} of {most:.0f} bits; {first} of them {'is' if first == 1 else 'are'} likelier than all "
        f"{OTHERS} others."
    )
    facts = {"n": len(tuned), "candidates": OTHERS + 1, "passes": passes, "base": base, "tuned": tuned}
    return {**facts, "base_mean": before, "tuned_mean": after, "first": first, "sentence": sentence}


def _equal(one: Example, other: Example) -> bool:
    return np.array_equal(one.input_ids, other.input_ids) and np.array_equal(one.weights > 0, other.weights > 0)
