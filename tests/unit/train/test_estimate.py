"""What a run will need, before any weight is read: sizes, the copy that is measured, and the choice."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.data.batch import pack
from tutelage.errors import MachineError
from tutelage.models.adapters import adapt, trainable
from tutelage.models.forward import prove
from tutelage.models.load import load_model
from tutelage.models.location import Location, locate
from tutelage.models.precision import Precision
from tutelage.recipe import Full, Lora, TrainOptions
from tutelage.train.choice import Choice, choose, duration, steps_within, takes_too_long, ways
from tutelage.train.estimate import Estimate, Memory, held, saved_bytes
from tutelage.train.optimizer import build_optimizer
from tutelage.train.probe import Probe, Sizes, _Live, config_of, sizes_of
from tutelage.train.work import filling
from tutelage.types import Example, Origin

FLOAT32 = Precision()
FAMILIES = ["llama", "llama-untied", "gpt2", "qwen3", "gemma2"]


def made(length: int, seed: int = 0) -> Example:
    ids = np.random.default_rng(seed).integers(5, 300, length).astype(np.int32)
    weights = np.zeros(length, dtype=np.float32)
    weights[length // 2 :] = 1.0
    return Example(ids, weights, Origin("made", seed + 1), length // 2)


@pytest.mark.parametrize("adapter", [Full(), Lora(rank=4)], ids=["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_counted_without_the_weights(tiny_model, family, adapter):
    location = locate(str(tiny_model(family)))
    sizes = sizes_of(config_of(location), adapter)
    model = adapt(load_model(location), adapter, seed=0, base="")
    every, trained = (sum(p.numel() for p in ps) for ps in (model.parameters(), trainable(model).values()))
    assert (sizes.trained, sizes.trained + sizes.frozen) == (trained, every)
    assert sizes.layers == 2
    assert sizes.cached == 2 * 2 * (32 if family == "gpt2" else 2 * 8)


def deep(tmp_path, tiny_model, layers: int) -> Location:
    """The tiny model's settings with more layers, and no weights."""
    config = config_of(locate(str(tiny_model("llama"))))
    config.num_hidden_layers = layers
    config.layer_types = None
    config.save_pretrained(tmp_path)
    return Location(str(tmp_path))


@pytest.mark.parametrize("adapter", [Full(), Lora(rank=4)], ids=["full", "lora"])
@pytest.mark.parametrize("kind", ["none", "full"])
def test_what_a_pass_holds_follows_from_three_layers(tmp_path, tiny_model, adapter, kind):
    """The prediction for nine layers against the count on a model that has nine."""
    from transformers import AutoModelForCausalLM

    from tutelage.models.checkpointing import checkpoint

    location = deep(tmp_path, tiny_model, 9)
    batch = pack([made(60, seed) for seed in range(4)])
    probe = Probe(location, adapter, FLOAT32, device="cpu", max_length=128)
    probe.checkpoint(kind)
    predicted = probe.train(batch).bytes

    forward = prove(AutoModelForCausalLM.from_config(config_of(location)).eval(), max_length=128)
    forward.model = adapt(forward.model, adapter, seed=0, base="").train()
    checkpoint(forward.model, kind)
    for parameter in trainable(forward.model).values():
        parameter.grad = torch.zeros_like(parameter)
    with _Live() as live:
        forward.nll(batch)[0].backward()
    assert 0.97 * live.peak < predicted < 1.08 * live.peak


@pytest.mark.parametrize("adapter", [Full(), Lora(rank=4)], ids=["full", "lora"])
def test_what_the_layers_keep(tmp_path, tiny_model, adapter):
    """Per token and layer the same, whatever is trained but for the adapter's own, and whatever came before."""
    probe = Probe(deep(tmp_path, tiny_model, 9), adapter, FLOAT32, device="cpu", max_length=128)
    first, again, double = (probe.kept(pack([made(60, seed) for seed in range(n)])) for n in (2, 2, 4))
    assert first == again > 9 * 120 * 4 * 32
    assert double == pytest.approx(2 * first, rel=0.05)


def test_the_probe_leaves_nothing_behind(tmp_path, tiny_model):
    state = torch.get_rng_state()
    probe = Probe(deep(tmp_path, tiny_model, 9), Full(), FLOAT32, device="cpu", max_length=128)
    before = [p.detach().clone() for p in probe.forward.model.parameters()]
    probe.train(pack([made(20)]))
    assert all(p.grad is None for p in probe.forward.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, probe.forward.model.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())


def test_checkpointing_holds_less(tmp_path, tiny_model):
    probe = Probe(deep(tmp_path, tiny_model, 9), Full(), FLOAT32, device="cpu", max_length=128)
    batch = pack([made(100, seed) for seed in range(4)])
    bytes = []
    for kind in ("none", "selective", "full"):
        probe.checkpoint(kind)
        bytes.append(probe.train(batch).bytes)
    assert bytes == sorted(bytes, reverse=True)
    assert bytes[2] < 0.7 * bytes[0]


@pytest.mark.parametrize(
    ("sizes", "precision", "weights", "state"),
    [
        (Sizes(2, 100, 0, 1, 1), FLOAT32, 400, 800),
        (Sizes(2, 10, 90, 1, 1), FLOAT32, 400, 80),
        (Sizes(2, 10, 90, 1, 1), Precision("bfloat16", "bfloat16"), 220, 80),
        (Sizes(2, 100, 0, 1, 1), Precision("bfloat16", "bfloat16"), 200, 1200),
        (Sizes(2, 100, 0, 1, 1), Precision("bfloat16", "bfloat16", "bfloat16", "stochastic"), 200, 400),
    ],
)
def test_weights_and_state_by_format(sizes, precision, weights, state):
    found = held(sizes, precision)
    assert (found["weights"], found["optimizer"]) == (weights, state)
    assert found["gradients"] == 4 * sizes.trained


def test_what_the_optimizer_really_holds(tiny_model):
    model = adapt(load_model(locate(str(tiny_model("llama")))), Full(), seed=0, base="")
    slots = build_optimizer(trainable(model), TrainOptions(), FLOAT32).slots
    sizes = sizes_of(model.config, Full())
    assert sum(s.mean.nbytes + s.square.nbytes for s in slots) == held(sizes, FLOAT32)["optimizer"]
    assert saved_bytes(sizes, merged=False) == sum(p.nbytes for p in model.parameters())


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200), st.integers(1, 40))
def test_the_largest_micro_batch_holds_the_longest_and_no_more_than_fits(lengths, room, most):
    lengths = np.array(lengths)
    chosen = filling(lengths, room, most=most)
    assert len(set(chosen)) == len(chosen) <= most
    assert lengths[chosen[0]] == lengths.max()
    total = lengths[chosen].sum()
    assert total <= room or len(chosen) == 1
    left = sorted(set(range(len(lengths))) - set(chosen))
    if len(chosen) < most and total <= room:
        assert all(total + lengths[i] > room for i in left)


def estimates(peaks: dict[tuple[int, str], int]):
    """A function of (tokens, kind), 1 GB where nothing is said."""

    def estimate(tokens: int, kind: str) -> Estimate:
        memory = Memory(0, 0, 0, 0, peaks.get((tokens, kind), peaks.get((0, kind), 10**9)), 0, 0)
        return Estimate(tokens, kind, 10, memory, 100.0, 1.0, 10.0, 0)

    return estimate


def chosen(peaks, *, tokens=None, kind="auto", limit=10**9, longest=300) -> Choice:
    return choose(
        estimates(peaks),
        token_budget=tokens,
        checkpointing=kind,
        longest=longest,
        device="cpu",
        limit=limit,
        limited_by="budget.memory",
        instead=lambda least: "a smaller model",
    )


def test_the_order_of_preference():
    assert list(ways(None, "auto", longest=300, device="cpu"))[:6] == [
        (2048, "none"),
        (1024, "none"),
        (512, "none"),
        (300, "none"),
        (2048, "selective"),
        (1024, "selective"),
    ]
    assert next(ways(None, "auto", longest=5000, device="cpu")) == (5000, "none")
    assert list(ways(512, "full", longest=5000, device="cpu")) == [(512, "full")]
    assert next(ways(None, "none", longest=10, device="cuda"))[0] > 2048


@pytest.mark.parametrize(
    ("peaks", "expected"),
    [
        ({(2048, "none"): 8}, (2048, "none")),
        ({(2048, "none"): 95, (1024, "none"): 80}, (1024, "none")),
        ({(0, "none"): 200, (2048, "selective"): 50}, (2048, "selective")),
        ({(0, "none"): 200, (0, "selective"): 101, (512, "full"): 50}, (512, "full")),
        ({(0, "none"): 200, (0, "selective"): 200, (300, "full"): 99, (0, "full"): 200}, (300, "full")),
    ],
)
def test_the_first_that_fits_is_taken(peaks, expected):
    found = chosen(peaks, limit=100)
    assert (found.estimate.token_budget, found.estimate.checkpointing) == expected
    assert set(found.chosen) == {"train.token_budget", "train.checkpointing"}


def test_what_the_recipe_says_is_not_chosen():
    found = chosen({}, tokens=700, kind="full", limit=10**10)
    assert (found.estimate.token_budget, found.estimate.checkpointing, found.chosen) == (700, "full", {})


def test_a_run_that_cannot_fit_is_refused_with_both_figures():
    with pytest.raises(MachineError) as caught:
        chosen({(0, kind): 3 * 10**9 for kind in ("none", "selective", "full")})
    assert caught.value.code == "machine/out-of-memory"
    assert "it needs 3.0 GB, 1.0 GB are there (budget.memory)" in str(caught.value)


@given(st.integers(1, 1000), st.floats(0.01, 100), st.floats(0, 1000), st.floats(1, 1e5))
def test_steps_within_a_time(steps, each, beside, allowed):
    found = steps_within(allowed, steps=steps, step_seconds=each, total_seconds=beside + steps * each)
    assert 0 <= found <= steps
    assert found == 0 or beside + found * each <= allowed * (1 + 1e-6) + 1e-6
    assert found == steps or beside + (found + 1) * each >= allowed * (1 - 1e-6) - 1e-6


def test_fewer_steps_take_less():
    choice = replace(chosen({}, limit=10**10), estimate=replace(estimates({})(2048, "none"), seconds=30.0))
    shorter = choice.with_steps(4, "half")
    assert (shorter.estimate.steps, shorter.seconds) == (4, 24.0)
    assert "half" in shorter.chosen["train.steps"]


def test_durations_in_words():
    assert [duration(s) for s in (3, 99, 240, 5401, 7260)] == ["3 s", "99 s", "4 min", "1 h 30 min", "2 h 01 min"]
    assert "train.steps=3 fits" in str(takes_too_long(100, 10, 3))


def test_a_model_that_cannot_be_copied_in_small_is_planned_without_figures(tiny_model, tmp_path, monkeypatch):
    """Its run starts all the same; the rehearsal measures it."""
    import tinyruns
    from tutelage import commands

    def odd(*arguments):
        raise AttributeError("no such setting")

    monkeypatch.setattr("tutelage.train.probe._find_layers", odd)
    tinyruns.prove_here(monkeypatch)
    data = tinyruns.write_rows(tmp_path / "rows.jsonl", tinyruns.demonstrations())
    recipe = tinyruns.recipe(tiny_model("llama"), data, tmp_path / "run")
    checked = commands.check(recipe)
    assert checked["plan"]["predicted"] == {"unknown": "this model cannot be copied in small (no such setting)"}
    assert "cannot be predicted" in checked["needs"][0]
    assert commands.train(recipe)["status"] == "done"
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["measured"]["peak_memory_bytes"] > 0
    assert plan["measured"]["seconds"] > 0


@pytest.mark.parametrize("family", ["gemma2", "gpt2-dropout"])
def test_models_that_run_one_at_a_time_or_drop_attention_weights_are_planned_and_trained(
    tiny_model, tmp_path, monkeypatch, family
):
    import tinyruns
    from tutelage import commands

    tinyruns.prove_here(monkeypatch)
    data = tinyruns.write_rows(tmp_path / "rows.jsonl", tinyruns.demonstrations())
    model = tiny_model(family.partition("-")[0])
    if family == "gpt2-dropout":
        copy = tmp_path / "model"
        shutil.copytree(model, copy)
        settings = json.loads((copy / "config.json").read_text())
        settings |= {"attn_pdrop": 0.1, "resid_pdrop": 0.1, "embd_pdrop": 0.1}
        (copy / "config.json").write_text(json.dumps(settings))
        model = copy
    recipe = tinyruns.recipe(model, data, tmp_path / "run", train={"checkpointing": "full"})
    said: list[str] = []
    assert commands.check(recipe)["plan"]["predicted"]["peak_memory_bytes"] > 0
    result = commands.train(recipe, screen=tinyruns.Listening(said))
    assert result["status"] == "done"
    assert any(("attention weights" if family == "gpt2-dropout" else "one example at a time") in line for line in said)
