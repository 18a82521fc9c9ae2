"""Answers by a model that runs one prompt at a time, by its own code in `transformers`, chosen by the same rules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tutelage.generate.generation import Generation
from tutelage.generate.work import Work
from tutelage.models.adapters import base_of
from tutelage.models.forward import Forward


def write_alone(forward: Forward, work: Work, prompt: int, sample: int) -> Generation:
    """One answer."""
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    answer = work.begin(prompt, sample)
    ids = torch.tensor([list(work.prompts[prompt])], device=forward.device)
    model = base_of(forward.model)
    done: list[Generation] = []

    def choose(_: Tensor, scores: Tensor) -> Tensor:
        """Leave the model's loop no choice: it takes the likeliest token, and all but ours are ruled out."""
        work.continue_with(scores.float(), [answer])
        return torch.full_like(scores, -torch.inf).index_fill_(
            1, torch.tensor([answer.input_ids[-1]], device=scores.device), 0.0
        )

    def finished(input_ids: Tensor, _: Any, **options: Any) -> Tensor:
        generation = work.finished(answer)
        if generation is not None:
            done.append(generation)
        return torch.full((len(input_ids),), generation is not None, device=input_ids.device)

    config = GenerationConfig(max_new_tokens=answer.limit, do_sample=False, use_cache=True, pad_token_id=0)
    with _plain(model):
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            logits_processor=LogitsProcessorList([choose]),
            stopping_criteria=StoppingCriteriaList([finished]),
        )
    return done[0]


@contextmanager
def _plain(model: Any) -> Iterator[None]:
    """Inside, the model's own settings (penalties, temperature, stop tokens) do not apply."""
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
