"""The choice of a token: the likeliest one, or a draw that depends on its name alone.

A draw is the argmax of log(probability) - log(exponential number), one such number for each token of the vocabulary,
which is a draw from the distribution (the Gumbel-max rule). It was taken instead of the inverse of the cumulative
distribution because rounding hardly touches it: logits that differ by e, as they do between batches of different
sizes, change a token with a probability of about e, however large the vocabulary is, where every border of a
cumulative sum would move. And two models that expect nearly the same write nearly the same from the same numbers,
so that their answers can be compared in pairs.

The numbers are made by mixing a counter (SplitMix64): key + number of the token. The key is derived from the seed,
the row's name, the sample and the place in the answer, so no draw depends on what else is being drawn.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.generate.sampling import Sampling
from tutelage.seeds import derive

BLOCK = 1 << 20
"""Logits turned into draws at once."""
NUCLEUS = 1024
"""Tokens among which the border of `top_p` is looked for first."""


class Chosen(NamedTuple):
    """A token for each row."""

    tokens: list[int]
    logprobs: list[float]
    """Of each token, as the model expects it."""
    drawn: list[float]
    """Of each token, in the distribution that it was drawn from; 0 where it was the only one."""


def key(sampling: Sampling, row: object, sample: int, position: int) -> int:
    """What the draw of one token depends on, beside the logits."""
    return derive(sampling.seed, f"token/{row}", sample, position)


def choose(logits: Tensor, sampling: Sampling, keys: list[int]) -> Chosen:
    """The next token of each row, from float32 logits (rows, vocabulary) and, unless greedy, a key each."""
    total = logits.logsumexp(-1)
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)  # The first one, where several are the largest.
        drawn = torch.zeros_like(total)
    else:
        # Draws are made in float64, which not every device has.
        place = torch.device("cpu") if logits.device.type == "mps" else logits.device
        named = torch.tensor(keys, dtype=torch.int64, device=place)
        rows = max(1, BLOCK // logits.shape[1])
        parts = [
            _draw(part.to(place).double(), sampling, names)
            for part, names in zip(logits.split(rows), named.split(rows), strict=True)
        ]
        tokens, drawn = (torch.cat(column).to(logits.device) for column in zip(*parts, strict=True))
    logprobs = logits.gather(1, tokens[:, None])[:, 0] - total
    return Chosen(tokens.tolist(), logprobs.tolist(), drawn.tolist())


def _draw(logits: Tensor, sampling: Sampling, keys: Tensor) -> tuple[Tensor, Tensor]:
    """(tokens, log-probabilities in the distribution that they were drawn from)."""
    scores = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    scores = scores.masked_fill(scores < _border(scores, sampling), -math.inf)
    numbers = uniforms(keys, logits.shape[1])
    tokens = (scores - numbers.log_().neg_().log_()).argmax(-1)
    return tokens, scores.gather(1, tokens[:, None])[:, 0] - scores.logsumexp(-1)


def _border(scores: Tensor, sampling: Sampling) -> Tensor:
    """The lowest score (rows, 1) that stays."""
    border = scores.new_full((len(scores), 1), -math.inf)
    if 0 < sampling.top_k < scores.shape[1]:
        border = scores.topk(sampling.top_k).values[:, -1:]
    if sampling.top_p < 1:
        border = torch.maximum(border, _nucleus(scores.masked_fill(scores < border, -math.inf), sampling.top_p))
    if sampling.min_p > 0:
        border = border.clamp(min=math.log(sampling.min_p))  # The highest score is 0.
    return border


def _nucleus(scores: Tensor, top_p: float) -> Tensor:
    """The score (rows, 1) of the last token that is needed to reach the probability `top_p`."""
    total = scores.logsumexp(-1, keepdim=True)
    for count in (min(NUCLEUS, scores.shape[1]), scores.shape[1]):
        best = scores.topk(count).values
        shares = (best - total).exp()
        reached = shares.cumsum(-1)
        if bool((reached[:, -1] >= top_p).all()):
            break
    needed = (reached - shares < top_p).sum(-1, keepdim=True)
    return best.gather(1, needed - 1)


def uniforms(keys: Tensor, count: int) -> Tensor:
    """Numbers (rows, count) strictly between 0 and 1, in float64; each depends on its row's key and its place alone."""
    steps = torch.arange(1, count + 1, device=keys.device) * _signed(0x9E3779B97F4A7C15)
    z = keys[:, None] + steps
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    z = z ^ _shifted(z, 31)
    # 52 bits, so that half a step more still has an exact float64.
    return (_shifted(z, 12).double() + 0.5) * 2.0**-52


def _signed(number: int) -> int:
    """The int64 with the bits of a uint64; products of either wrap around to the same bits."""
    return number - (1 << 64) if number >> 63 else number


def _shifted(z: Tensor, bits: int) -> Tensor:
    """The bits moved to the right, zeros coming in."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
