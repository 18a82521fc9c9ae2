"""The held-out set is held out, and its loss is total loss over total tokens whatever the batching."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import make_encoder, make_template_tokenizer
from tutelage.data.batch import pack
from tutelage.data.dataset import prepare
from tutelage.data.split import prompt_key
from tutelage.evaluate.heldout import heldout_loss
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.recipe import DataOptions


def prompts(data, split):
    return set(map(prompt_key, given(data, split)))


def given(data, split):
    return data.demonstrations(list(data.rows(split)))


@pytest.fixture
def sources(rows):
    """1000 rows of which 10 % repeat a prompt, half of those spelled otherwise; and 100 to list thrice."""
    plain = [{"instruction": f"Question number {n}?", "output": f"Answer {n}."} for n in range(900)]
    again = [{"instruction": f"Question number {n}?", "output": f"Other {n}."} for n in range(0, 100, 2)]
    again += [{"instruction": f"  question  NUMBER {n} ?", "output": f"Other {n}."} for n in range(1, 100, 2)]
    few = [{"instruction": f"Question number {n}?", "output": "Few."} for n in range(850, 950)]
    return rows([*plain, *again], "plain.jsonl"), rows(few, "few.jsonl")


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_no_prompt_is_on_both_sides_with_duplicates_and_oversampling(sources, share, tmp_path):
    plain, few = map(str, sources)
    encoder = make_encoder(make_template_tokenizer(tmp_path, "chatml"))
    paths = [plain, few, few, few]
    options = DataOptions.model_validate({"train": [{"path": p} for p in paths], "heldout": share})
    data = prepare(options, encoder)
    assert data.ledger.rows == 1300
    assert data.ledger.trained + data.ledger.heldout == 1300
    assert data.ledger.duplicates == 1300 - 950
    assert prompts(data, "train")
    assert prompts(data, "heldout")
    assert not prompts(data, "train") & prompts(data, "heldout")
    numbers = {
        split: {int("".join(filter(str.isdigit, row.messages[0].content))) for row in given(data, split)}
        for split in ("train", "heldout")
    }
    assert not numbers["train"] & numbers["heldout"]


def test_a_file_of_its_own_is_held_out_whole_and_its_prompts_leave_the_training_rows(sources, tmp_path):
    plain, few = map(str, sources)
    encoder = make_encoder(make_template_tokenizer(tmp_path, "chatml"))
    options = DataOptions.model_validate({"train": [{"path": plain}], "heldout": {"path": few}})
    data = prepare(options, encoder)
    assert data.ledger.heldout == 100
    assert data.ledger.dropped == {"prompt is also held out": 50}
    assert not prompts(data, "train") & prompts(data, "heldout")


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral-window"])
def test_the_heldout_loss_does_not_depend_on_the_batching(family, tiny_model, rows, one_thread):
    folder = tiny_model(family)
    encoder = make_encoder(AutoTokenizer.from_pretrained(folder))
    values = [{"instruction": f"Ask {n}", "output": "word " * (n % 13 + 1), "weight": 0.5 + n % 2} for n in range(40)]
    options = DataOptions.model_validate({"train": [{"path": str(rows(values))}], "heldout": 0.5})
    examples = prepare(options, encoder).examples("heldout")
    assert len(examples) > 7
    forward = prove(load_model(locate(str(folder))), max_length=512)
    losses = [heldout_loss(forward, examples, token_budget=budget) for budget in (1, 64, 256, 2048)]
    for loss in losses:
        assert loss.nll == pytest.approx(losses[0].nll, abs=1e-6)
        assert loss.sums == pytest.approx(losses[0].sums, abs=1e-4)
        assert loss.tokens == losses[0].tokens

    with torch.no_grad():  # One row at a time through the model itself, in double precision.
        model, total, count = AutoModelForCausalLM.from_pretrained(folder).double(), 0.0, 0.0
        for example in examples:
            batch = pack([example])
            logits = model(torch.from_numpy(batch.input_ids)[None], use_cache=False).logits[0]
            nll = -torch.log_softmax(logits, -1)[batch.positions, batch.targets].numpy()
            total, count = total + float((nll * batch.weights).sum()), count + float(batch.weights.sum())
    assert losses[0].nll == pytest.approx(total / count, abs=1e-6)
