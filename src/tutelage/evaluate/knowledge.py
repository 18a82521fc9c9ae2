"""Knowledge against format: whether held-out answers hold what neither their prompts nor the base model give.

Fine-tuning teaches form quickly. Facts that the base model does not know it learns slowly, and as it does it learns to
make others up (Gekhman et al. 2024, arXiv:2405.05904). So before training each held-out answer is looked at word by
word, in nats:

    few-shot    after examples and its own prompt           what is left when form, prompt and base have said theirs
    control     the same after another row's prompt         what is left when form alone has
    gained      control - few-shot                          what the prompt tells a model that knows what this one does

A word is content where the control finds it unlikely. It is unknown where it is rare even after its own prompt, which
made it hardly any likelier: names, numbers and dates from nowhere are, and free choices of wording are not, because a
word that anybody might have written is seldom that rare. An answer asks for knowledge that the base does not have
where unknown words are a large part of its content.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import regex
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.dataset import Dataset
from tutelage.data.encode import Encoder
from tutelage.evaluate.compare import Difference, paired_ratio, wilson
from tutelage.evaluate.predictions import observe
from tutelage.evaluate.shots import Placed, placed
from tutelage.models.forward import Forward
from tutelage.types import Origin

if TYPE_CHECKING:
    from tutelage.train.ranks import Ranks

CONTENT = 1.0
"""Nats from which on a word of the control is content: form alone gives it one chance in three, or less."""
RARE = 8.0
"""Nats of an unknown word: a chance of one in three thousand."""
KEPT = 0.8
"""How much of its nats in the control a word keeps after its own prompt, at least, where that does not tell it."""
PART = 0.3
"""How much of an answer's content is unknown, at least, where it asks for knowledge that the base does not have."""
MANY = 0.25
"""The share of such answers from which on a run is told that its data asks for knowledge."""
SHOWN = 5
"""Rows whose unknown words are listed."""
_BEGINS_A_WORD = regex.compile(
    r"[^\p{L}\p{N}\p{M}]|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A held-out answer: nats of each of its words in the three places."""

    origin: Origin
    words: tuple[str, ...]
    zero: NDArray[np.float64]
    few: NDArray[np.float64]
    control: NDArray[np.float64]
    tokens: int
    shots: int

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """Which words neither form nor prompt nor base gives."""
        return (self.control > CONTENT) & (self.few > RARE) & (self.few > KEPT * self.control)

    @property
    def asks_for_knowledge(self) -> bool:
        """Whether unknown words are a large part of the content."""
        content = self.control[self.control > CONTENT].sum()
        return bool(self.unknown.any() and self.few[self.unknown].sum() >= PART * content)


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """What the base model finds of the held-out answers before it is trained."""

    answers: tuple[Answer, ...]
    confidence: float

    @property
    def tokens(self) -> int:
        """Tokens of the answers, without what ends them."""
        return sum(answer.tokens for answer in self.answers)

    @property
    def zero_shot_nll(self) -> float:
        """Nats per token after the prompt alone."""
        return float(sum(answer.zero.sum() for answer in self.answers) / self.tokens)

    @property
    def few_shot_nll(self) -> float:
        """Nats per token after examples and the prompt."""
        return float(sum(answer.few.sum() for answer in self.answers) / self.tokens)

    @property
    def gained(self) -> Difference:
        """What an answer's own prompt makes of its loss, against another row's, each answer a draw of its own."""
        control, few = (np.array([getattr(a, name).sum() for a in self.answers]) for name in ("control", "few"))
        tokens = np.array([float(answer.tokens) for answer in self.answers])
        return paired_ratio(control, few, tokens, confidence=self.confidence)

    @property
    def unknown(self) -> list[Answer]:
        """The answers that ask for knowledge that the base does not have."""
        return [answer for answer in self.answers if answer.asks_for_knowledge]

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share of such answers."""
        return wilson(len(self.unknown), len(self.answers), self.confidence)

    @property
    def sentence(self) -> str:
        """What it says, in words."""
        many, n = len(self.unknown), len(self.answers)
        low, high = self.interval
        share = f"{many / n:.0%}, {self.confidence:.0%} interval {low:.0%} to {high:.0%}"
        shots = np.mean([answer.shots for answer in self.answers])
        losses = (
            f"{self.zero_shot_nll:.2f} nats per token after the prompt alone, {self.few_shot_nll:.2f} after "
            f"{shots:.2g} examples and the prompt"
        )
        if many / n >= MANY:
            return (
                f"{many:,} of {n:,} held-out answers ({share}) hold facts that neither the prompt nor the base model "
                f"gives ({losses}): fine-tuning teaches form, and learns such facts slowly and with made-up ones "
                "beside them (Gekhman et al. 2024, arXiv:2405.05904)."
            )
        gained = self.gained
        if gained.verdict(lower_is_better=True) != "better":
            return (
                "A held-out answer is no likelier after its own prompt than after another row's, as far as can be "
                f"told ({gained.difference:+.2f} nats per token, {n:,} answers): either the answers do not follow "
                "from their prompts, or this base model cannot see how."
            )
        held = f"{many:,} of {n:,} held-out answers ({share}) hold facts that neither the prompt nor the base gives"
        return f"What is there to learn is mostly form: {losses}; {held}."

    def as_json(self) -> dict[str, Any]:
        """As `result.json` holds it."""
        gained = self.gained
        return {
            "n": len(self.answers),
            "tokens": self.tokens,
            "shots": float(np.mean([answer.shots for answer in self.answers])),
            "zero_shot_nll": self.zero_shot_nll,
            "few_shot_nll": self.few_shot_nll,
            "control_nll": gained.base,
            "gained": {"difference": gained.difference, "interval": list(gained.interval)},
            "unknown": len(self.unknown),
            "share": len(self.unknown) / len(self.answers),
            "interval": list(self.interval),
            "confidence": self.confidence,
            "rows": [
                {
                    "origin": {"file": answer.origin.file, "line": answer.origin.line},
                    "words": [word.strip() for word, out in zip(answer.words, answer.unknown, strict=True) if out],
                }
                for answer in self.unknown[:SHOWN]
            ],
            "warns": len(self.unknown) / len(self.answers) >= MANY,
            "sentence": self.sentence,
        }


def knowledge(
    forward: Forward,
    dataset: Dataset,
    encoder: Encoder,
    *,
    stop_ids: Collection[int],
    limit: int,
    max_length: int,
    token_budget: int,
    confidence: float = 0.95,
    progress: Callable[[int], None] = lambda texts: None,
    ranks: Ranks | None = None,
) -> Knowledge | None:
    """How the base model finds at most `limit` held-out answers; None where there is none to look at.

    There is none where nothing is held out, where rows are plain text, or where no example fits beside them. `progress`
    is told of three texts for each answer.
    """
    rows = placed(dataset, encoder, stop_ids=stop_ids, limit=limit, max_length=max_length)
    if not rows:
        return None
    examples = [example for row in rows for example in (row.zero, row.few, row.control)]
    counts = [example.supervised for example in examples]
    nll: NDArray[np.float32] = np.zeros(sum(counts), dtype=np.float32)
    observe(forward, examples, _nll, [nll], token_budget=token_budget, progress=progress, ranks=ranks)
    each = np.split(nll.astype(np.float64), np.cumsum(counts)[:-1])
    answers = [
        _answer(row, encoder, each[place : place + 3]) for row, place in zip(rows, range(0, len(each), 3), strict=True)
    ]
    return Knowledge(tuple(answers), confidence)


def _nll(logits: Tensor, targets: Tensor, places: Tensor) -> tuple[Tensor, ...]:
    return (torch.logsumexp(logits, 1) - logits.gather(1, targets[:, None]).squeeze(1),)


def _answer(row: Placed, encoder: Encoder, nll: list[NDArray[np.float64]]) -> Answer:
    pieces = encoder.tokenizer.pieces(row.answer)
    owner = word_of(pieces)
    words = [""] * (owner[-1] + 1)
    for number, piece in zip(owner, pieces, strict=True):
        words[number] += piece
    zero, few, control = (np.bincount(owner, weights=each) for each in nll)
    return Answer(row.origin, tuple(words), zero, few, control, len(row.answer), row.shots)


def word_of(pieces: list[str]) -> list[int]:
    """Of each token, given by its text, which word it is part of.

    A word begins at a space or a sign, or at a character of a script that is written without spaces. A token that
    ends in the middle of a character is part of the word that it is found in.
    """
    owner: list[int] = []
    word = -1
    for piece in pieces:
        if word < 0 or _BEGINS_A_WORD.match(piece):
            word += 1
        owner.append(word)
    return owner
