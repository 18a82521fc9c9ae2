"""The real 135M model through the whole flow: a few steps, then it is saved, proved, loaded and talked to."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tutelage import commands
from tutelage.demo import orders
from tutelage.generate.chat import Chat
from tutelage.generate.engine import generate
from tutelage.types import Message

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def run(real_model, tmp_path_factory):
    """A run of three steps on twelve orders, and its result."""
    folder = tmp_path_factory.mktemp("real")
    train, test = orders.write(folder / "data", train=12, test=4)
    recipe = {
        "model": {"path": real_model, "adapter": {"kind": "full"}},
        "data": {"train": [{"path": str(train)}], "heldout": {"path": str(test)}, "max_length": 256},
        "train": {"global_batch_size": 4, "learning_rate": 2e-4},
        "evaluate": {"samples": 2, "max_new_tokens": 8, "points": 0, "knowledge": 4, "drift": False},
        "output": str(folder / "run"),
    }
    return folder / "run", commands.train(recipe)


def test_the_result_is_whole_and_sensible(run):
    folder, result = run
    assert result["status"] == "done"
    assert result["steps"] == 3
    assert result["ledger"] == {"rows": 16, "trained": 12, "heldout": 4, "dropped": {}}
    assert 0.5 < result["heldout"]["base_nll"] < 3
    assert result["heldout"]["tuned_nll"] < result["heldout"]["base_nll"]
    assert result["model"]["logit_difference"] < 1e-4
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == [1, 2, 3]
    assert metrics[-1]["loss"] < metrics[0]["loss"]


def test_the_prompt_in_training_is_the_one_of_the_saved_folder(run):
    folder, _ = run
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    for row in map(json.loads, (folder / "samples.jsonl").read_text().splitlines()):
        expected = tokenizer.apply_chat_template(row["messages"], add_generation_prompt=True, tokenize=False)
        assert row["prompt"] == expected


def test_plain_transformers_writes_the_same_answers(run):
    folder, _ = run
    chat = Chat(folder, device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    questions = ["Name a colour.", "Two bagels for Friday, please.", "What is the capital of France?"]
    prompts = [chat.encoder.prompt_ids([Message("user", question)]) for question in questions]
    ours = generate(chat.forward, prompts, stop_ids=chat.stop_ids, max_new_tokens=12)
    for prompt, answer in zip(prompts, ours, strict=True):
        output = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :].tolist()
        assert output[: len(answer.input_ids)] == list(answer.input_ids)
        assert answer.stopped == (tokenizer.eos_token_id in output)
    spoken = "".join(chat.answer([Message("user", questions[0])], max_new_tokens=12))
    assert spoken == tokenizer.decode(ours[0].input_ids)
