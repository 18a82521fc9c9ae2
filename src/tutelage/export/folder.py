"""The result as a folder that any server reads: weights, tokenizer, template, and what stops it.

The stop ids are those that training supervised last in its answers. They go into every file that a server looks at:
`generation_config.json`, `config.json`, and the tokenizer's end-of-sequence token. The template goes into
`chat_template.jinja` and into `tokenizer_config.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tutelage.data.encode.template import ChatTemplate
from tutelage.errors import ModelError, Problem
from tutelage.models.adapters import base_of, own_stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def save(
    model: nn.Module,
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate | None,
    stop_ids: Sequence[int],
) -> None:
    """Write the model (of a LoRA model, the adapter) with everything that serving needs.

    Raises:
        ModelError: save/untrained, when the adapter is still all zeros.
    """
    _check_trained(model)
    folder.mkdir(parents=True, exist_ok=True)
    _set_stop_ids(model, stop_ids)
    model.save_pretrained(folder, safe_serialization=True)
    base = base_of(model)
    base.generation_config.save_pretrained(folder)
    if base is not model:
        (folder / "README.md").unlink(missing_ok=True)
        _sort_names(folder / "adapter_config.json")
    save_tokenizer(folder, tokenizer, template, stop_ids)


def save_tokenizer(
    folder: Path, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None, stop_ids: Sequence[int]
) -> None:
    """Write the tokenizer with the template in both places and the first stop id as its end token."""
    tokenizer.chat_template = None if template is None else template.source
    if stop_ids and tokenizer.eos_token_id not in stop_ids:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(stop_ids[0])
    tokenizer.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    values: dict[str, Any] = json.loads(settings.read_text("utf-8"))
    for machine_specific in ("is_local", "local_files_only", "name_or_path"):
        values.pop(machine_specific, None)
    if template is not None:
        values["chat_template"] = template.source
    settings.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", "utf-8")


def save_merged(
    model: nn.Module,
    folder: Path,
    *,
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate | None,
    stop_ids: Sequence[int],
) -> None:
    """Write the base model with the adapter's update added to its weights; the model in memory is used up."""
    merged = model.merge_and_unload()
    save(merged, folder, tokenizer=tokenizer, template=template, stop_ids=stop_ids)


def _sort_names(path: Path) -> None:
    """Write lists of layer names in order: `peft` has them as sets, whose order another process need not share."""
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    for name, value in values.items():
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            values[name] = sorted(value)
    path.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _set_stop_ids(model: nn.Module, stop_ids: Sequence[int]) -> None:
    base = base_of(model)
    config = base.generation_config
    every = list(dict.fromkeys([*stop_ids, *own_stop_ids(base)]))
    config.eos_token_id = every[0] if len(every) == 1 else every
    if config.pad_token_id is None:
        config.pad_token_id = every[0]
    base.config.eos_token_id = config.eos_token_id
    # Sampling settings that the base shipped with stay; a cache is what every server wants.
    config.use_cache = True
    base.config.use_cache = True


def _check_trained(model: nn.Module) -> None:
    updates = [(name, p) for name, p in model.named_parameters() if "lora_B" in name]
    zero = [name for name, p in updates if not torch.any(p)]
    if zero:
        raise ModelError(
            Problem(
                "save/untrained",
                f"{len(zero):,} of {len(updates):,} adapter matrices are all zeros",
                where=", ".join(zero[:3]),
                why="saving them would save the base model under another name",
                fix="please report this with the model's name; nothing was saved",
            )
        )
