"""Greedy answers of our engine and of `model.generate`, side by side: the same prompts, in turns, in one process.

    python benchmarks/generation.py [--prompts 1 8 32] [--tokens 48] [--pairs 3] [--same 50] [--samples 8]

| figure | |
|---|---|
| engine, generate | tokens written in a second, prompts included; no stop token, so all write equally many |
| ratio | the median over the pairs of engine against `model.generate` at the same number of prompts, and against it |
| | one prompt at a time |
| same | of so many prompts, those whose answer is the one that `model.generate` writes to the prompt alone |
| samples | tokens a second of several drawn answers to each prompt, and what drawing takes beside greedy |

`model.generate` gets the prompts as one batch, padded on the left, with its defaults.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from tutelage.data.encode import Encoder
from tutelage.generate.engine import generate
from tutelage.generate.sampling import Sampling
from tutelage.models.forward import Forward, prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.models.tokenizer import chat_tokenizer, load_tokenizer
from tutelage.recipe import ModelOptions
from tutelage.train.memory import keep_freed_memory
from tutelage.types import Message

SUBJECTS = ["rivers", "bread", "prime numbers", "bees", "the moon", "chess", "glass", "sleep", "maps", "iron"]
ASKED = [
    "Explain {} to a child in two sentences.",
    "Write a short poem about {}.",
    "List three facts about {} that surprise most people, each with a reason why it is so.",
    "What is the history of {}?",
    "A friend says that {} do not matter. Write a polite answer that names one example from daily life, one from "
    "science and one from history, and end with a question that keeps the conversation going.",
]


def prompts(encoder: Encoder, count: int) -> list[list[int]]:
    """Questions of different lengths, as the model's chat template writes them."""
    texts = [form.format(subject) for subject in SUBJECTS for form in ASKED]
    return [encoder.prompt_ids([Message("user", texts[i % len(texts)])]) for i in range(count)]


@torch.no_grad()
def by_transformers(model: Any, asked: list[list[int]], tokens: int, stop_ids: list[int] | None) -> list[list[int]]:
    """What `model.generate` writes after each prompt."""
    longest = max(map(len, asked))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in asked])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in asked])
    model.generation_config.eos_token_id = stop_ids
    written = model.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return [row[longest:] for row in written.tolist()]


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def side_by_side(forward: Forward, peer: Any, encoder: Encoder, count: int, tokens: int, pairs: int) -> dict[str, Any]:
    """Tokens a second of both, and the ratios pair by pair."""
    asked = prompts(encoder, count)

    def ours() -> None:
        generate(forward, asked, stop_ids=[], max_new_tokens=tokens, in_flight=count)

    def theirs() -> None:
        by_transformers(peer, asked, tokens, None)

    ours(), theirs()  # The first run of each makes its buffers.
    times = [(seconds(ours), seconds(theirs)) for _ in range(pairs)]
    return {
        "engine": count * tokens / statistics.median(mine for mine, _ in times),
        "generate": count * tokens / statistics.median(other for _, other in times),
        "ratio": statistics.median(other / mine for mine, other in times),
    }


def same(forward: Forward, peer: Any, encoder: Encoder, count: int, tokens: int) -> int:
    """How many answers are those of `model.generate`."""
    asked = prompts(encoder, count)
    stop_ids = [encoder.tokenizer.eos_id] if encoder.tokenizer.eos_id is not None else []
    found = generate(forward, asked, stop_ids=stop_ids, max_new_tokens=tokens)
    equal = 0
    for prompt, answer in zip(asked, found, strict=True):
        (right,) = by_transformers(peer, [prompt], tokens, stop_ids)
        right = right[: next((i for i, id in enumerate(right) if id in stop_ids), len(right))]
        equal += list(answer.input_ids) == right
    return equal


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--same", type=int, default=50)
    parser.add_argument("--samples", type=int, default=8)
    options = parser.parse_args()
    keep_freed_memory()
    location = locate(options.model)
    encoder = Encoder(*chat_tokenizer(load_tokenizer(location), ModelOptions(path=options.model)))
    peer = load_model(location)
    forward = prove(load_model(location), max_length=1024)
    print(f"{options.model}, {torch.get_num_threads()} threads of {os.cpu_count()}, {options.tokens} new tokens")
    print("prompts  engine tok/s  generate tok/s  ratio  against one at a time")
    alone: float | None = None
    for count in options.prompts:
        found = side_by_side(forward, peer, encoder, count, options.tokens, options.pairs)
        alone = found["generate"] if count == 1 else alone
        against = "" if alone is None else f"{found['engine'] / alone:.2f}"
        print(f"{count:7}  {found['engine']:12.1f}  {found['generate']:14.1f}  {found['ratio']:5.2f}  {against}")
    if options.samples > 1:
        asked = prompts(encoder, 4)
        warm = Sampling(temperature=0.8, top_p=0.95, samples=options.samples)
        many = [prompt for prompt in asked for _ in range(options.samples)]
        drawn = seconds(lambda: generate(forward, asked, stop_ids=[], max_new_tokens=options.tokens, sampling=warm))
        greedy = seconds(lambda: generate(forward, many, stop_ids=[], max_new_tokens=options.tokens))
        speed = len(many) * options.tokens / drawn
        print(f"{options.samples} samples of {len(asked)} prompts: {speed:.1f} tok/s, {drawn / greedy:.2f} of greedy")
    if options.same:
        equal = same(forward, peer, encoder, options.same, options.tokens)
        print(f"{equal} of {options.same} answers are those of `model.generate`")


if __name__ == "__main__":
    main()
