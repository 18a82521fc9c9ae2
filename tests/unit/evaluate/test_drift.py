"""Drift on general text: exact sums whatever the batching, and a KL that is a bound, exact where it should be."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn.functional import log_softmax

import launching
from conftest import make_encoder, make_model
from tutelage.evaluate import general, predictions
from tutelage.evaluate.drift import Drift, Reference, drift
from tutelage.evaluate.general import General
from tutelage.evaluate.heldout import heldout_loss
from tutelage.models.adapters import adapt
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.models.tokenizer import load_tokenizer
from tutelage.onlooker import Onlooker
from tutelage.recipe import Lora
from tutelage.runs import Run
from tutelage.types import Example, Origin


def made(count: int = 8, names: tuple[str, ...] = ("general-1",)) -> General:
    rng = np.random.default_rng(3)
    examples = []
    for number in range(count):
        length = int(rng.integers(3, 60))
        weights = np.ones(length, dtype=np.float32)
        weights[0] = 0.0
        if number % 3 == 2:
            weights[: length // 2] = 0.0
        examples.append(Example(rng.integers(5, 300, length).astype(np.int32), weights, Origin("made", number), 1))
    # Two that begin alike, so that what they share is computed once.
    alike = examples[0].input_ids.copy()
    alike[-1] = 17
    examples.append(Example(alike, examples[0].weights, Origin("made", count), 1))
    return General(names, tuple(examples), np.arange(len(examples)) % len(names))


def moved(model, by: float = 0.02):
    """The model with other weights."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return model


def exact(base, tuned, text: General) -> tuple[np.ndarray, np.ndarray]:
    """Of each text the nll of the tuned model and KL(base || tuned), by plain transformers."""
    nll, kl = [], []
    for example in text.examples:
        ids = torch.from_numpy(example.input_ids.astype(np.int64))[None]
        with torch.no_grad():
            p, q = (log_softmax(m(input_ids=ids).logits[0, :-1].double(), -1) for m in (base, tuned))
        counted = torch.from_numpy(example.weights[1:] > 0)
        nll.append(float(-(q.gather(1, ids[0, 1:, None])[:, 0] * counted).sum()))
        kl.append(float(((p.exp() * (p - q)).sum(1) * counted).sum()))
    return np.array(nll), np.array(kl)


@pytest.fixture(params=["llama", "gemma2", "cohere", "gpt2"])
def folder(request, tiny_model):
    return tiny_model(request.param)


def plain(folder):
    return load_model(locate(str(folder)))


def proved(folder, change=lambda model: model, max_length=64):
    """Our way of running the model, with its weights changed."""
    forward = prove(plain(folder), max_length=max_length)
    change(forward.model)
    return forward


def test_with_all_tokens_as_cells_it_is_the_exact_kl(folder):
    text = made()
    reference = Reference.measure(proved(folder), text, token_budget=200, likeliest=10**6)
    assert reference.ids.shape[1] == plain(folder).get_input_embeddings().weight.shape[0]
    assert reference.rest == pytest.approx(0, abs=1e-6)
    found = drift(proved(folder, moved), reference, token_budget=200)
    nll, kl = exact(plain(folder), moved(plain(folder)), text)
    assert found.sums == pytest.approx(nll, rel=1e-5)
    assert found.kl_sums == pytest.approx(kl, rel=1e-3, abs=1e-5)
    assert found.kl == pytest.approx(kl.sum() / text.tokens, rel=1e-4)
    assert kl.sum() > 0.1


def test_with_fewer_cells_it_is_a_lower_bound_that_grows_with_them(folder):
    text = made()
    _, kl = exact(plain(folder), moved(plain(folder)), text)
    tuned, bounds = proved(folder, moved), []
    for likeliest in (1, 8, 64):
        reference = Reference.measure(proved(folder), text, token_budget=200, likeliest=likeliest)
        bounds.append(drift(tuned, reference, token_budget=200).kl_sums)
        assert reference.logprobs.shape == (text.tokens, likeliest)
    assert (bounds[0] <= bounds[1] + 1e-6).all()
    assert (bounds[1] <= bounds[2] + 1e-6).all()
    assert (bounds[2] <= kl + 1e-5).all()
    assert 0 < bounds[0].sum() < bounds[2].sum() < kl.sum()


def test_it_is_exact_where_the_lump_is_divided_alike(tiny_model):
    """Tokens beside the likeliest all become less likely by one factor: no cell hides a difference."""
    folder, text = tiny_model("llama-untied"), made(3)

    def four(favoured):
        """The four likeliest tokens are the first ones everywhere, and these are their weights."""

        def change(model):
            head = model.get_output_embeddings()
            with torch.no_grad():
                head.weight.div_(1000)
                head.weight[:4] = 0
                head.bias = torch.nn.Parameter(torch.zeros(head.out_features))
                head.bias[:4] = torch.tensor(favoured)
            return model

        return change

    one, other = four([5.0, 4.0, 3.0, 2.0]), four([2.0, 2.5, 4.0, 1.0])
    reference = Reference.measure(proved(folder, one), text, token_budget=100, likeliest=4)
    assert (np.sort(reference.ids, axis=1) == [0, 1, 2, 3]).all()
    found = drift(proved(folder, other), reference, token_budget=100)
    _, kl = exact(one(plain(folder)), other(plain(folder)), text)
    assert found.kl_sums == pytest.approx(kl, rel=1e-5)
    assert found.kl > 0.5


def test_the_same_model_has_not_moved(folder):
    forward = proved(folder)
    reference = Reference.measure(forward, made(), token_budget=100)
    found = drift(forward, reference, token_budget=300)
    assert 0 <= found.kl_sums.max() < 1e-6
    assert found.sums == pytest.approx(found.base_sums, rel=1e-5)
    assert found.verdict == "no difference"


@pytest.mark.parametrize("budget", [1, 64, 10_000])
def test_batching_does_not_show(folder, budget):
    text = made()
    one, other = (
        drift(proved(folder, moved), Reference.measure(proved(folder), text, token_budget=b), token_budget=b)
        for b in (budget, 150)
    )
    for name in ("base_sums", "sums", "kl_sums"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-5, abs=1e-5)
    for name in ("base_nll", "nll", "kl"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-6)


def test_losses_are_those_of_the_heldout_measurement(folder):
    text = made()
    reference = Reference.measure(proved(folder), text, token_budget=100)
    found = drift(proved(folder, moved), reference, token_budget=100)
    for forward, sums in ((proved(folder), found.base_sums), (proved(folder, moved), found.sums)):
        assert sums == pytest.approx(heldout_loss(forward, text.examples, token_budget=100).sums, rel=1e-5)


def test_a_model_with_a_head_of_its_own_is_measured_by_its_own_code(tiny_model, monkeypatch):
    folder = tiny_model("llama")
    text = made()
    with_head = Reference.measure(proved(folder), text, token_budget=100)
    expected = drift(proved(folder, moved), with_head, token_budget=100)
    monkeypatch.setattr("tutelage.models.forward.find_head", lambda model: None)
    base, tuned = proved(folder), proved(folder, moved)
    assert base.head is None
    without = Reference.measure(base, text, token_budget=100)
    assert without.nll == pytest.approx(with_head.nll, rel=1e-4)
    assert without.logprobs == pytest.approx(with_head.logprobs, abs=1e-4)
    found = drift(tuned, without, token_budget=10_000)
    assert found.sums == pytest.approx(expected.sums, rel=1e-4)
    assert found.kl_sums == pytest.approx(expected.kl_sums, rel=1e-3)


def test_an_adapter_that_adds_nothing_has_not_moved_and_one_that_does_has(tiny_model):
    folder = tiny_model("llama")
    forward = proved(folder)
    reference = Reference.measure(forward, made(), token_budget=100)
    forward.model = adapt(forward.model, Lora(rank=4), seed=0, base=str(folder))
    assert drift(forward, reference, token_budget=100).kl < 1e-7
    with torch.no_grad():
        for name, parameter in forward.model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    assert drift(forward, reference, token_budget=100).kl > 1e-3


def test_a_model_in_bfloat16_is_measured_in_full_numbers(tiny_model):
    """Logits rounded to bfloat16 would show a movement where there is almost none."""
    folder, text = tiny_model("llama"), made()
    forward = proved(folder, lambda model: model.to(torch.bfloat16))
    reference = Reference.measure(forward, text, token_budget=100)
    full = proved(folder)
    with torch.no_grad():
        for mine, theirs in zip(full.model.parameters(), forward.model.parameters(), strict=True):
            mine.copy_(theirs.float())
    total = np.exp(reference.logprobs.astype(float)).sum(1) + reference.rest
    assert total == pytest.approx(1, abs=1e-5)
    assert drift(full, reference, token_budget=100).kl < 1e-3


def test_no_more_logits_are_held_than_a_block(tiny_model, monkeypatch):
    monkeypatch.setattr("tutelage.models.head.BLOCK_ELEMENTS", 1)
    forward = proved(tiny_model("llama"))
    sizes = []
    look = predictions._Watched.nll

    def counting(self, hidden, targets, weights):
        inner = self.block
        object.__setattr__(self, "block", lambda logits, t: sizes.append(len(logits)) or inner(logits, t))
        return look(self, hidden, targets, weights)

    monkeypatch.setattr(predictions._Watched, "nll", counting)
    text = made()
    reference = Reference.measure(forward, text, token_budget=10_000)
    assert max(sizes) == 16
    assert sum(sizes) <= text.tokens
    assert (reference.nll > 0).all()


def test_the_model_is_left_as_it_was(tiny_model):
    forward = proved(tiny_model("llama"))
    forward.model.train()
    head, done = forward.head, []
    reference = Reference.measure(forward, made(), token_budget=64, progress=done.append)
    assert sum(done) == 9
    assert forward.head is head
    assert not forward.model.training
    with pytest.raises(RuntimeError, match="stop"):
        Reference.measure(forward, made(), token_budget=64, progress=failing)
    assert forward.head is head
    drift(forward, reference, token_budget=64)
    assert all(parameter.grad is None for parameter in forward.model.parameters())
    assert not forward.model._forward_hooks


def failing(done):
    raise RuntimeError("stop")


# ----------------------------------------------------------------------------------------------- several processes


class Together:
    """The processes of a run, one after the other: what each adds is kept for the last."""

    def __init__(self) -> None:
        self.said = {}

    def rank(self, rank: int, world: int):
        from types import SimpleNamespace

        beats, calls = [], []

        def add(tensor):
            kept = self.said.setdefault(len(calls), torch.zeros_like(tensor))
            calls.append(1)
            kept += tensor
            return tensor.copy_(kept)

        return SimpleNamespace(
            rank=rank, world=world, device="cpu", sum=add, pulse=SimpleNamespace(beat=lambda: beats.append(1))
        )


@pytest.mark.parametrize("divided", [False, True])
def test_processes_share_the_work_and_a_divided_model_is_run_equally_often(tiny_model, divided):
    folder, text = tiny_model("llama"), made()
    alone = Reference.measure(proved(folder), text, token_budget=40)
    one = drift(proved(folder, moved), alone, token_budget=40)
    together, measured, runs = Together(), Together(), []
    for rank in range(4):
        forward = proved(folder)
        forward.divided = divided
        counted = []
        handle = forward.model.get_decoder().register_forward_hook(lambda *a, counted=counted: counted.append(1))
        reference = Reference.measure(forward, text, token_budget=40, ranks=together.rank(rank, 4))
        handle.remove()
        runs.append(len(counted))
        moved(forward.model)
        found = drift(forward, alone, token_budget=40, ranks=measured.rank(rank, 4))
    for name in ("nll", "ids", "logprobs", "rest"):
        assert (getattr(reference, name) == getattr(alone, name)).all()
    for name in ("base_sums", "sums", "kl_sums"):
        assert (getattr(found, name) == getattr(one, name)).all()
    assert (len(set(runs)) == 1) == divided
    assert sum(runs) >= 5


@pytest.mark.parametrize("family", ["llama-untied", "gemma2"])
def test_two_processes_say_what_one_does_in_copies_and_in_slices(tiny_model, tmp_path, family):
    driver = Path(__file__).with_name("drift_driver.py")
    with launching.Launched(2, [driver, tiny_model(family)]) as launched:
        assert launched.wait(300) == [0, 0], launched.said(0) + launched.said(1)
        said = [json.loads(launched.said(rank).splitlines()[-1]) for rank in range(2)]
    assert said[0] == said[1]
    for way in ("replicated", "sharded"):
        for name, sums in said[0]["alone"].items():
            assert said[0][way][name] == pytest.approx(sums, rel=1e-5), (way, name)
    assert min(said[0]["alone"]["kl_sums"]) > 1e-3


# -------------------------------------------------------------------------------------------------- the run folder


def test_a_reference_is_kept_in_the_run_folder(tiny_model, tmp_path):
    text, run = made(), Run(tmp_path / "run")
    run.create()
    assert Reference.load(run, text) is None
    reference = Reference.measure(proved(tiny_model("llama")), text, token_budget=100)
    reference.save(run)
    kept = Reference.load(run, text)
    for name in ("nll", "ids", "logprobs", "rest"):
        assert (getattr(kept, name) == getattr(reference, name)).all()
        assert getattr(kept, name).dtype == getattr(reference, name).dtype
    assert [path.name for path in run.folder.iterdir()] == ["general.safetensors"]
    assert sum(a.nbytes for a in load_file(run.folder / "general.safetensors").values()) == text.tokens * 8 * 65


def test_a_reference_of_other_texts_or_a_damaged_one_is_none(tiny_model, tmp_path):
    text, run = made(), Run(tmp_path / "run")
    run.create()
    Reference.measure(proved(tiny_model("llama")), text, token_budget=100).save(run)
    assert Reference.load(run, made(5)) is None
    assert Reference.load(run, General(("other",), text.examples, text.groups)) is None
    path = run.folder / "general.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert Reference.load(run, text) is None


def test_a_process_that_looks_on_writes_nothing(tiny_model, tmp_path):
    Reference.measure(proved(tiny_model("llama")), made(), token_budget=100).save(Onlooker(tmp_path))
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------- what it says


def result(change: float, names=("general-1",), noise: float = 0.01, count: int = 20) -> Drift:
    text = made(count - 1, names)
    rng = np.random.default_rng(0)
    base = 3.0 * text.counts
    return Drift(text, base, base + text.counts * (change + noise * rng.standard_normal(count)), base / 30, 0.95)


@pytest.mark.parametrize(
    ("change", "verdict", "words"),
    [
        (0.2, "worse", "General text has become harder"),
        (-0.2, "better", "General text has become easier"),
        (0.0, "no difference", "as easy for the model as before, as far as can be told"),
    ],
)
def test_the_verdict_in_words(change, verdict, words):
    found = result(change)
    assert found.verdict == verdict
    assert words in found.sentence
    assert f"20 texts, {found.general.tokens:,} tokens" in found.sentence
    assert "at least 0.100 nats per token (KL)" in found.sentence
    low, high = found.difference.interval
    assert low <= change + 0.02
    assert high >= change - 0.02
    assert f"interval {low:+.3f} to {high:+.3f}" in found.sentence


def test_few_texts_say_nothing():
    assert "Too few general texts" in result(0.5, count=3).sentence


def test_as_json_is_the_entry_of_the_result():
    found = result(0.2).as_json()
    assert found.keys() >= {"tokens", "base_nll", "tuned_nll", "difference", "interval", "kl", "verdict", "sentence"}
    assert "groups" not in found
    assert found["base_nll"] == pytest.approx(3.0)
    assert found["tuned_nll"] == pytest.approx(found["base_nll"] + found["difference"])
    assert found["kl"] == pytest.approx(0.1)
    assert found["verdict"] == "worse"
    assert math.isfinite(sum(found["interval"]))


def test_each_file_is_a_group_of_its_own():
    found = result(0.0, ("general-1", "law.txt"), count=40)
    harder = found.general.groups == 1
    worse = Drift(
        found.general, found.base_sums, found.base_sums + harder * found.general.counts * 0.3, found.kl_sums, 0.95
    )
    said = worse.as_json()
    assert [(g["name"], g["verdict"]) for g in said["groups"]] == [("general-1", "no difference"), ("law.txt", "worse")]
    assert sum(g["tokens"] for g in said["groups"]) == said["tokens"] == found.general.tokens
    assert sum(g["texts"] for g in said["groups"]) == said["texts"] == 40
    assert said["groups"][1]["difference"] == pytest.approx(0.3)
    assert "By itself, text of law.txt has become harder." in said["sentence"]


# --------------------------------------------------------------------------------------------------- our own texts


def test_our_own_texts_go_through_it(tmp_path):
    folder = make_model(tmp_path / "model")
    encoder = make_encoder(load_tokenizer(locate(str(folder))))
    text = general.load((), encoder, 1500, max_length=256)
    reference = Reference.measure(proved(folder, max_length=256), text, token_budget=512)
    found = drift(proved(folder, moved, max_length=256), reference, token_budget=512)
    assert found.as_json()["tokens"] == text.tokens > 1000
    assert found.kl > 0
