"""One global batch has one gradient whether prefixes are shared, activations kept, or dropout on."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from test_one_gradient import assert_same, cuts, uneven
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.data.batch import lay_out, pack
from tutelage.data.cut import cut
from tutelage.models import checkpointing
from tutelage.models.adapters import adapt, trainable
from tutelage.models.compiled import compile_layers
from tutelage.models.dropout import StatelessDropout, kept, make_stateless
from tutelage.models.forward import Forward, prove
from tutelage.models.load import load_model
from tutelage.models.location import locate
from tutelage.models.training import draws_by_itself
from tutelage.recipe import Full, Lora
from tutelage.types import Example, Origin

FAMILIES = ["llama", "qwen2", "qwen3", "gpt2", "mistral-window", "cohere"]


def related(count: int = 16) -> list[Example]:
    """Rows of one system prompt, several to a question, some the same to the end."""
    rng = np.random.default_rng(5)
    system, questions = rng.integers(5, 300, 24), [rng.integers(5, 300, n) for n in (17, 9, 30)]
    examples = []
    for number in range(count):
        answer = rng.integers(5, 300, int(rng.integers(3, 20)))
        if number in (5, 6):
            answer = np.arange(10, 18)  # Twice the same row, and a row that continues it.
        if number == 7:
            answer = np.arange(10, 24)
        question = questions[2 if number in (5, 6, 7) else number % 3]
        ids = np.concatenate([system, question, answer]).astype(np.int32)
        weights = np.zeros(len(ids), np.float32)
        weights[-len(answer) :] = rng.choice([0.5, 1.0, 2.0], len(answer))
        examples.append(Example(ids, weights, Origin("made", number + 1), len(ids) - len(answer)))
    return examples


def of_batches(forward: Forward, examples, batches) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one global batch in these micro-batches."""
    forward.model.train()
    forward.model.zero_grad(set_to_none=True)
    total = sum(float(e.weights.sum()) for e in examples)
    summed = 0.0
    for batch in batches:
        loss, _ = forward.nll(batch)
        (loss / total).backward()
        summed += loss.item()
    return summed / total, {n: p.grad.clone() for n, p in trainable(forward.model).items()}


def made(tiny_model, family, adapter, *, dropout: float = 0.0) -> Forward:
    """A model with an adapter that is no longer at its start, and dropout in every place that can have it."""
    model = load_model(locate(str(tiny_model(family))))
    forward = prove(model, max_length=128)
    forward.model = adapt(forward.model, adapter, seed=1, base="")
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trainable(forward.model).items():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    for module in forward.model.modules():
        if type(module) is torch.nn.Dropout:
            module.p = dropout
    forward.draw, _ = make_stateless(forward.model)
    forward.draw.seed = 11
    return forward


@pytest.mark.parametrize("adapter", [Full(), Lora(rank=4)], ids=["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_sharing_prefixes_changes_no_gradient(tiny_model, family, adapter):
    forward, examples = made(tiny_model, family, adapter), related()
    loss, expected = of_batches(forward, examples, [pack(examples)])
    for budget in (80, 200, 2000):
        batches = [lay_out(examples, forest) for forest in cut(examples, budget, share=True)]
        assert sum(batch.computed_tokens for batch in batches) < sum(map(len, examples))
        shared_loss, found = of_batches(forward, examples, batches)
        assert shared_loss == pytest.approx(loss, rel=1e-6)
        assert_same(found, expected)


@pytest.mark.parametrize("kind", ["selective", "full"])
@pytest.mark.parametrize("adapter", [Full(), Lora(rank=4)], ids=["full", "lora"])
@pytest.mark.parametrize("family", [*FAMILIES, "gemma2"])
def test_checkpointing_changes_no_gradient(tiny_model, family, adapter, kind, monkeypatch):
    monkeypatch.setattr(checkpointing, "SMALL", 16)  # The tiny model's products are small ones.
    forward, examples = made(tiny_model, family, adapter), related()
    _, expected = of_batches(forward, examples, [pack(examples, share=forward.share)])
    kept_before = saved_bytes(forward, examples)
    checkpointing.checkpoint(forward.model, kind)
    _, found = of_batches(forward, examples, [pack(examples, share=forward.share)])
    assert_same(found, expected)
    assert saved_bytes(forward, examples) < 0.9 * kept_before


def saved_bytes(forward: Forward, examples) -> int:
    """Bytes that are alive after the forward pass and were not before."""
    alive: dict[int, int] = {}

    def keep(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            alive[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    forward.model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward.nll(pack(examples, share=forward.share))
    return sum(alive.values())


@pytest.mark.parametrize(("family", "adapter"), [("llama", Lora(rank=4, dropout=0.3)), ("gpt2", Full())])
def test_dropout_is_the_same_for_every_cut(tiny_model, family, adapter):
    """Packed, alone, shared: what is dropped depends on the step and the token with all before it."""
    forward, examples = made(tiny_model, family, adapter, dropout=0.3), related()
    assert any(isinstance(module, StatelessDropout) for module in forward.model.modules())
    loss, expected = of_batches(forward, examples, [pack(examples)])
    ways = {name: [pack(group) for group in groups] for name, groups in cuts(examples).items()}
    ways["shared"] = [lay_out(examples, forest) for forest in cut(examples, 150, share=True)]
    for name, batches in ways.items():
        found_loss, found = of_batches(forward, examples, batches)
        assert found_loss == pytest.approx(loss, rel=1e-6), name
        assert_same(found, expected)
    checkpointing.checkpoint(forward.model, "full")
    assert_same(of_batches(forward, examples, ways["shared"])[1], expected)
    forward.draw.seed = 12
    assert of_batches(forward, examples, [pack(examples)])[0] != pytest.approx(loss, rel=1e-3)
    forward.model.eval()
    with torch.no_grad():
        assert forward.nll(pack(examples))[0].item() != pytest.approx(loss, rel=1e-3)


@pytest.mark.filterwarnings("ignore")  # torch's own, while it traces
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("adapter", [Full(), Lora(rank=4)], ids=["full", "lora"])
def test_compiling_the_layers_changes_no_gradient(tiny_model, adapter):
    forward, examples = made(tiny_model, "llama", adapter), related()
    _, expected = of_batches(forward, examples, [pack(examples, share=True)])
    assert compile_layers(forward.model) == 2
    for batches in ([pack(examples, share=True)], [pack(examples[:7]), pack(examples[7:])]):
        assert_same(of_batches(forward, examples, batches)[1], expected)
    torch._dynamo.reset()


def test_dropout_that_is_not_ours_is_noticed_and_drawn_again_in_checkpointing(tiny_model, monkeypatch):
    """A model that calls `nn.functional.dropout` itself: the layer computed again must drop what it dropped before."""
    from transformers.models.llama.modeling_llama import LlamaMLP

    plain = LlamaMLP.forward
    forward = made(tiny_model, "llama", Full())
    assert not draws_by_itself(forward)
    for module in forward.model.modules():
        if isinstance(module, LlamaMLP):
            ours = type(module).forward

            def dropping(self, x, ours=ours):
                return torch.nn.functional.dropout(ours(self, x), 0.3, self.training)

            monkeypatch.setattr(type(module), "forward", dropping)
            break
    assert plain is LlamaMLP.forward
    assert draws_by_itself(forward)
    examples = related(4)
    torch.manual_seed(3)
    _, expected = of_batches(forward, examples, [pack(examples)])
    checkpointing.checkpoint(forward.model, "full", draws=True)
    torch.manual_seed(3)
    assert_same(of_batches(forward, examples, [pack(examples)])[1], expected)


def test_dropout_keeps_the_share_it_says_evenly():
    rng = np.random.default_rng(0)
    keys = torch.from_numpy(rng.integers(-(2**31), 2**31, 4000, dtype=np.int64).astype(np.int32) | 1)
    columns = torch.from_numpy(rng.integers(-(2**31), 2**31, 500, dtype=np.int64).astype(np.int32) | 1)
    for p in (0.05, 0.3, 0.5):
        stays = kept(keys, columns, p).double()
        assert abs(stays.mean() - (1 - p)) < 4 * (p * (1 - p) / stays.numel()) ** 0.5
        for axis, count in ((0, 4000), (1, 500)):  # no row and no column is special
            off = (stays.mean(axis) - (1 - p)) / (p * (1 - p) / count) ** 0.5
            assert off.abs().max() < 5.5
            assert 0.85 < off.std() < 1.15
        pairs = (stays[:, 1:] - (1 - p)) * (stays[:, :-1] - (1 - p))
        assert abs(pairs.mean()) < 5 * p * (1 - p) / pairs.numel() ** 0.5


class Largest(TorchDispatchMode):
    """Watches every tensor that an operation gives, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.shapes.add(tuple(tensor.shape))
        return result


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_tensor_of_tokens_by_vocabulary_or_tokens_by_tokens(tiny_model, family, train, monkeypatch):
    """Pains 28 and 29: neither logits of all tokens nor a mask is ever made, in training or evaluation."""
    from tutelage.models.head import Head

    monkeypatch.setattr(Head, "rows", 16)
    forward, examples = made(tiny_model, family, Full()), related() + uneven()
    batch = pack(examples, share=True)
    tokens, (vocabulary, width) = batch.computed_tokens, forward.head.linear.weight.shape
    with Largest() as seen, torch.set_grad_enabled(train):
        loss, _ = forward.nll(batch)
        if train:
            loss.backward()
    for shape in seen.shapes:
        assert vocabulary not in shape or width in shape or np.prod(shape) <= 16 * vocabulary, shape
        assert sum(size >= tokens for size in shape) < 2, shape
