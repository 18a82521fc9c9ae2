"""LoRA through `peft`, on every linear layer but the head; or nothing, for full fine-tuning."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tutelage.models.lora import fuse_lora
from tutelage.recipe import Full, Lora
from tutelage.seeds import derive

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def adapt(
    model: PreTrainedModel, adapter: Lora | Full, *, seed: int, base: str, revision: str | None = None
) -> nn.Module:
    """The model with what is to be trained switched on, and nothing else.

    `base`, a folder or a hub id and its commit, is written into the adapter.

    The adapter's start depends on the seed alone, and changes no output: at step 0 it adds exactly zero.
    """
    if isinstance(adapter, Full):
        model.requires_grad_(True)
        return model
    from peft import LoraConfig, get_peft_model

    if Path(base).exists():
        base = str(Path(base).absolute())  # The adapter is loaded from other folders than this one.
    model.config.name_or_path = base
    model.name_or_path = base
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.scale_numerator,
        lora_dropout=adapter.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        revision=revision,
        # GPT-2 stores its matrices the other way round, in a layer of its own.
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "adapter"))
        adapted = get_peft_model(model, config)
    fuse_lora(adapted)
    return adapted


def without_adapter(model: nn.Module) -> AbstractContextManager[None]:
    """Inside, the model is the base model."""
    disable = getattr(model, "disable_adapter", None)
    return nullcontext() if disable is None else disable()


def base_of(model: nn.Module) -> PreTrainedModel:
    """The `transformers` model inside, adapters in place."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def own_stop_ids(model: PreTrainedModel) -> list[int]:
    """The ids that the model's generation settings end an answer with."""
    ids = model.generation_config.eos_token_id
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
