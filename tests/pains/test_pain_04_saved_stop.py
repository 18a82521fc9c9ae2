"""Pain 4: the saved model knows what stops it, and kept its template, whoever loads it."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tutelage.data.encode.template import ChatTemplate

A, B = "<|endoftext|>", "<|im_end|>"


def test_every_file_names_the_token_that_was_trained_to_stop(learned_run):
    """The base ended with A; the template that was trained ends turns with B."""
    folder = learned_run / "model"
    base = AutoTokenizer.from_pretrained(learned_run.parent / "base")
    assert base.eos_token == A
    assert base.chat_template is None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    b = tokenizer.convert_tokens_to_ids(B)
    assert tokenizer.eos_token == B
    assert json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["eos_token"] == B
    assert _ids(GenerationConfig.from_pretrained(folder).eos_token_id)[0] == b
    assert _ids(json.loads((folder / "config.json").read_text("utf-8"))["eos_token_id"])[0] == b
    assert tokenizer.convert_tokens_to_ids(A) in _ids(GenerationConfig.from_pretrained(folder).eos_token_id)


def test_the_template_is_in_both_places_and_renders_the_same(learned_run):
    folder = learned_run / "model"
    source = ChatTemplate.named("chatml", {}).source
    assert (folder / "chat_template.jinja").read_text("utf-8") == source
    assert json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["chat_template"] == source


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default")
def test_plain_transformers_stops_at_it_without_being_told(learned_run):
    """`generate` with no arguments ends with B, well before its limit."""
    folder = learned_run / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    chat = [{"role": "user", "content": "Colour 3?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    written = model.generate(**prompt)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(written) == f"red{B}"


def test_nothing_machine_specific_is_saved(learned_run):
    """No path of this machine and no file of ours is left in the model's folder."""
    folder = learned_run / "model"
    texts = [path.read_text("utf-8") for path in folder.iterdir() if path.suffix in {".json", ".jinja"}]
    assert not any(str(learned_run.parent) in text for text in texts)
    assert not (folder / "parity.safetensors").exists()


def _ids(value: int | list[int]) -> list[int]:
    return [value] if isinstance(value, int) else value
