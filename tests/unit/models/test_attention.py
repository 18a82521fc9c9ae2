"""Attention over the prefix forest: equal to the masked reference, without a mask of tokens by tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.data.forest import Segment, trees_of_one
from tutelage.models import attention
from tutelage.models.attention import choice, flex, interface, merged, part, varlen
from tutelage.models.attention.flex import Flex
from tutelage.models.attention.merged import Merged
from tutelage.models.attention.reference import Reference

pytestmark = pytest.mark.usefixtures("one_thread")

Tree = tuple[int, list["Tree"]]


@st.composite
def trees(draw: st.DrawFn, depth: int = 0) -> Tree:
    width = draw(st.integers(0, 3 if depth < 3 else 0))
    return draw(st.integers(1, 9)), [draw(trees(depth + 1)) for _ in range(width)]


forests = st.lists(trees(), min_size=1, max_size=4)


def laid_out(forest: list[Tree]) -> tuple[Segment, ...]:
    """Depth-first."""
    found: list[Segment] = []

    def add(tree: Tree, start: int) -> int:
        length, children = tree
        place = len(found)
        found.append(Segment(0, 0, 0))
        at = start + length
        for child in children:
            at = add(child, at)
        found[place] = Segment(start, start + length, at)
        return at

    at = 0
    for tree in forest:
        at = add(tree, at)
    return tuple(found)


def visible(segments: tuple[Segment, ...], window: int | None = None) -> Tensor:
    """The (T, T) mask by the rule of the forest, token by token: the definition, written another way."""
    length = segments[-1].end
    parents: list[int] = []
    for i, (start, _, _) in enumerate(segments):
        above = [j for j in range(i) if segments[j].end <= start < segments[j].exit]
        parents.append(above[-1] if above else -1)
    mask = torch.zeros(length, length, dtype=torch.bool)
    for i, (start, end, _) in enumerate(segments):
        path: list[int] = []
        at = i
        while at >= 0:
            path = [*range(segments[at].start, segments[at].end), *path]
            at = parents[at]
        for query in range(start, end):
            upto = [token for token in path if token <= query]
            mask[query, upto if window is None else upto[-window:]] = True
    return mask


def random(length: int, heads: int = 4, kv_heads: int = 2, dim: int = 16, dtype=torch.float64) -> list[Tensor]:
    """q, k, v, as a model has them (views of token-first tensors), and a gradient of the result."""
    generator = torch.Generator().manual_seed(length)
    sizes = [(1, length, n, dim) for n in (heads, kv_heads, kv_heads, heads)]
    *qkv, push = [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]
    return [*(x.transpose(1, 2) for x in qkv), push]


def dense(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float | None = None, softcap: float | None = None
) -> Tensor:
    """Softmax over a mask, in the plainest way."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return (scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v).transpose(1, 2)


def with_gradients(function, inputs: list[Tensor]) -> list[Tensor]:
    q, k, v = (x.detach().requires_grad_() for x in inputs[:3])
    out = function(q, k, v)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), inputs[3])]


def both(segments, inputs, *, window=None, scale=None, backend=None) -> tuple[list[Tensor], list[Tensor]]:
    """Ours and the masked reference: result and gradients."""
    layout = attention.Layout(segments, (backend or Merged(),))
    options = {"scale": inputs[0].shape[-1] ** -0.5 if scale is None else scale, "window": window}
    ours = with_gradients(lambda q, k, v: attention.attend_segments(q, k, v, layout, **options), inputs)
    theirs = with_gradients(lambda q, k, v: dense(q, k, v, visible(segments, window), scale), inputs)
    return ours, theirs


def close(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-12) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1.0)


@settings(max_examples=60, deadline=None)
@given(forests)
def test_any_forest_is_as_under_a_mask(forest):
    segments = laid_out(forest)
    close(*both(segments, random(segments[-1].end)))


@settings(max_examples=60, deadline=None)
@given(forests, st.integers(1, 12), st.sampled_from([2, 5, 256]))
def test_any_forest_under_any_window_is_as_under_a_mask(forest, window, chunk):
    segments = laid_out(forest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part, "CHUNK", chunk)
        patch.setattr(merged, "CHUNK", chunk)
        close(*both(segments, random(segments[-1].end), window=window))


@settings(max_examples=30, deadline=None)
@given(forests, st.sampled_from([None, 1, 4]))
def test_the_reference_itself_is_as_under_a_mask(forest, window):
    segments = laid_out(forest)
    close(*both(segments, random(segments[-1].end), window=window, backend=Reference()))


@settings(max_examples=60, deadline=None)
@given(forests)
def test_a_layout_knows_exits_and_depths(forest):
    segments = laid_out(forest)
    layout = attention.Layout(segments, ())
    mask = visible(segments)
    length = layout.tokens
    tokens = np.arange(length)
    by_rule = (tokens[None] <= tokens[:, None]) & (tokens[:, None] < layout.token_exits(length)[None])
    assert (by_rule == mask.numpy()).all()
    assert (layout.token_depths(length) == mask.sum(1).numpy() - 1).all()
    assert layout.token_exits(length + 3)[length:].tolist() == [length + 1, length + 2, length + 3]


TREE = laid_out([(24, [(40, []), (33, [(20, []), (41, [])]), (40, [])]), (50, []), (50, []), (7, [])])


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (4, 1)], ids=["mha", "gqa", "mqa"])
@pytest.mark.parametrize("dim", [64, 7])
@pytest.mark.parametrize("window", [None, 30])
def test_heads_dims_scale_and_window_in_float32(heads, dim, window):
    inputs = random(TREE[-1].end, *heads, dim, torch.float32)
    close(*both(TREE, inputs, window=window, scale=0.3), tolerance=4e-6)


def test_the_difference_is_rounding_and_leans_to_no_side():
    inputs = random(TREE[-1].end, 9, 3, 64, torch.float32)
    ours, _ = both(TREE, inputs)
    _, exact = both(TREE, [x.double() for x in inputs])
    for a, b in zip(ours, exact, strict=True):
        errors = a.double() - b
        assert errors.abs().max() < 4e-6 * b.abs().max()
        assert errors.mean().abs() < 5 * errors.std() / errors.numel() ** 0.5


def test_large_and_far_apart_scores_stay_finite():
    """The root's scores are about 1e4 above or below those of the branches."""
    for sign in (1.0, -1.0):
        q, k, v, push = random(TREE[-1].end, dim=16, dtype=torch.float32)
        k = k.clone()
        k[:, :, :24] += sign * 1e4 * q.mean(dim=2, keepdim=True)[:, ::2]
        ours, theirs = both(TREE, [q, k, v, push])
        assert all(x.isfinite().all() for x in ours)
        close(ours, theirs, tolerance=1e-2)


def test_low_precision_is_summed_in_float32():
    inputs = random(TREE[-1].end, 4, 2, 64, torch.bfloat16)
    ours, _ = both(TREE, inputs)
    _, exact = both(TREE, [x.double() for x in inputs])
    assert all(x.dtype == torch.bfloat16 for x in ours)
    close([x.double() for x in ours], exact, tolerance=2e-2)


def test_equal_lengths_are_computed_together_and_nothing_is_merged(monkeypatch):
    monkeypatch.setattr(merged, "_merge", lambda *_: pytest.fail("nothing is shared"))
    segments = trees_of_one([6] * 5)
    assert len(part.plan_parts(segments, [0] * 5, None).own) == 1
    close(*both(segments, random(30)))
    mixed = trees_of_one([6, 6, 3, 6, 2, 2, 2])
    assert [p.times for p in part.plan_parts(mixed, [0] * 7, None).own] == [2, 1, 1, 3]
    close(*both(mixed, random(27)))


@pytest.mark.parametrize("window", [None, 20])
def test_changing_a_branch_leaves_the_others_as_they_are_bit_for_bit(window):
    q, k, v, _ = random(TREE[-1].end, 9, 3, 64, torch.float32)
    before = attention.attend_segments(q, k, v, TREE, scale=0.125, window=window)
    changed = slice(30, 40)  # In the first branch.
    q, k, v = q.clone(), k.clone(), v.clone()
    for x in (q, k, v):
        x[:, :, changed] *= -2.0
    after = attention.attend_segments(q, k, v, TREE, scale=0.125, window=window)
    own = torch.zeros(TREE[-1].end, dtype=torch.bool)
    own[30:64] = True
    assert torch.equal(after[:, ~own], before[:, ~own])
    assert not torch.equal(after[:, 30:64], before[:, 30:64])


class Largest(TorchDispatchMode):
    """Watches the largest tensor that any operation returns, in numbers of one head."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads, self.largest = heads, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, Tensor) and x.untyped_storage().nbytes():
                heads = self.heads if self.heads in x.shape else 1
                self.largest = max(self.largest, x.untyped_storage().nbytes() // x.element_size() // heads)
        return result


@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.parametrize("shared", [False, True])
def test_nothing_of_tokens_by_tokens_is_allocated(window, shared):
    segments = laid_out([(300, [(400, []), (500, [(100, [])])])]) if shared else trees_of_one([900, 400])
    inputs = random(segments[-1].end, 2, 1, 8, torch.float32)
    with Largest(heads=2) as watch:
        with_gradients(lambda q, k, v: attention.attend_segments(q, k, v, segments, scale=1.0, window=window), inputs)
    assert watch.largest < 300 * 300  # The square of the shortest segment of note.
    mask = visible(trees_of_one([300]))
    with Largest(heads=2) as watch:
        dense(*(x[:, :, :300] for x in inputs[:3]), mask)
    assert watch.largest >= 300 * 300


def test_only_inputs_result_and_lse_are_kept_for_the_backward_pass():
    q, k, v, _ = random(TREE[-1].end, 4, 2, 16, torch.float32)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        attention.attend_segments(q.requires_grad_(), k, v, TREE, scale=1.0)
    assert sorted(x.numel() for x in kept) == sorted([*(x.numel() for x in (q, k, v, q)), q.numel() // 16])


def test_merging_by_anything_but_the_log_sum_exps_goes_red(monkeypatch):
    inputs = random(TREE[-1].end)
    shape = attention.Shape(4, 2, 16)
    facts = {"device": torch.device("cpu"), "dtype": torch.float64}
    assert isinstance(attention.choose(shape, **facts).backends[0], Merged)
    real = merged._merge
    monkeypatch.setattr(merged, "_merge", lambda out, lse, values, lses: real(out, lse, values, lses + 0.01))
    with pytest.raises(AssertionError):
        close(*both(TREE, inputs))
    found = attention.choose(shape, **facts)
    assert [backend.name for backend in found.backends] == ["segment by segment"]
    assert "merged flash attention is not used: its attention with a shared prefix is off by" in found.notes[0]


def test_gradients_of_the_parts_alone_instead_of_the_merged_go_red(monkeypatch):
    real = merged._merge

    def forgetful(out, lse, values, lses):
        kept = lse.clone()
        real(out, lse, values, lses)
        lse.copy_(kept)

    monkeypatch.setattr(merged, "_merge", forgetful)
    with pytest.raises(AssertionError):
        close(*both(laid_out([(5, [(4, []), (6, [])])]), random(15)))


class Fake:
    """A backend that does what a test says."""

    def __init__(self, name: str, attend, *, missing: str = "", takes=lambda layout, softcap: True) -> None:
        self.name, self._attend, self._missing, self._takes = name, attend, missing, takes

    def missing(self, device, dtype) -> str:
        return self._missing

    def takes(self, q, v, layout, *, softcap) -> bool:
        return self._takes(layout, softcap)

    def attend(self, q, k, v, layout, **options):
        return self._attend(q, k, v, layout, **options)


def raising(*_, **__):
    raise RuntimeError("no kernel\nfor this")


def test_backends_that_are_exact_here_are_chosen_in_order():
    exact = Reference().attend
    unshared = Fake("unshared", exact, takes=lambda layout, softcap: not layout.shared)
    candidates = [
        Fake("absent", raising, missing="it runs on a GPU alone"),
        unshared,
        Fake("broken", raising),
        Fake("leaky", lambda q, k, v, layout, **o: exact(q, k, v, _whole(layout), **o)),
        Fake("windowless", lambda q, k, v, layout, **o: exact(q, k, v, layout, **{**o, "window": None})),
        Fake("nan", lambda *a, **o: exact(*a, **o) * float("nan")),
        last := Fake("last", exact),
    ]
    shape = attention.Shape(4, 2, 8, windows=(12,))
    found = attention.choose(shape, device=torch.device("cpu"), dtype=torch.float32, candidates=candidates)
    assert [backend.name for backend in found.backends] == ["unshared", "last", "segment by segment"]
    assert [note.split(" is not used: ")[0] for note in found.notes] == ["broken", "leaky", "windowless", "nan"]
    assert "RuntimeError: no kernel" in found.notes[0]
    q = torch.zeros(1, 4, 10, 8)
    assert attention.Layout(trees_of_one([4, 6]), found.backends).backend(q, q, softcap=None) is unshared
    assert attention.Layout(laid_out([(4, [(3, []), (3, [])])]), found.backends).backend(q, q, softcap=None) is last


def _whole(layout: attention.Layout) -> attention.Layout:
    return attention.Layout(trees_of_one([layout.tokens]), layout.backends)


def test_values_of_another_width_fall_back_to_the_reference():
    q, k, _, _ = random(15)
    v = random(15, dim=24)[2]
    segments = laid_out([(5, [(4, []), (6, [])])])
    assert torch.allclose(
        attention.attend_segments(q, k, v, segments, scale=0.25), dense(q, k, v, visible(segments), 0.25)
    )


def test_capped_scores_are_refused_on_the_cpu():
    q, k, v, _ = random(4)
    with pytest.raises(attention.UnsupportedAttention, match="caps its attention scores"):
        attention.attend_segments(q, k, v, trees_of_one([4]), scale=1.0, softcap=5.0)


def test_attention_asked_for_what_it_cannot_do_refuses():
    q = torch.zeros(1, 2, 4, 8)
    layer, four = torch.nn.Module(), trees_of_one([4])
    for options in (
        {},
        {"segments": four, "softcap": 5.0},
        {"segments": four, "s_aux": torch.zeros(2)},
    ):
        with pytest.raises(attention.UnsupportedAttention):
            interface._forward(layer, q, q, q, None, **options)
    assert interface._forward(layer, q, q, q, None, segments=four)[0].shape == (1, 4, 2, 8)
    with pytest.raises(attention.UnsupportedAttention):
        interface._forward(layer, q, q, q, torch.ones(4, 4), segments=four)
    layer.is_causal = False
    with pytest.raises(attention.UnsupportedAttention):
        interface._forward(layer, q, q, q, None, segments=four)


@settings(max_examples=40, deadline=None)
@given(forests, st.sampled_from([None, 3, 9]), st.sampled_from([2, 4]))
def test_blocks_are_skipped_only_where_nothing_is_visible(forest, window, block):
    segments = laid_out(forest)
    layout = attention.Layout(segments, ())
    length = layout.tokens + -layout.tokens % block
    mask = torch.eye(length, dtype=torch.bool)
    mask[: layout.tokens, : layout.tokens] = visible(segments, window)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "BLOCK", block)
        some, whole = flex.visible_blocks(layout.token_exits(length), layout.token_depths(length), window)
    blocks = mask.view(length // block, block, length // block, block).transpose(1, 2).flatten(2)
    assert (torch.from_numpy(some) >= blocks.any(-1)).all()
    assert (torch.from_numpy(whole) <= blocks.all(-1)).all()
    if window is None:
        assert (torch.from_numpy(some) == blocks.any(-1)).all()


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (40, None), (None, 2.0), (40, 2.0)])
@torch.no_grad()
def test_flex_attention_is_as_under_a_mask(window, softcap):
    """Uncompiled, and the forward pass alone: there is no other on the CPU."""
    q, k, v, _ = random(TREE[-1].end, 4, 2, 16, torch.float32)
    layout = attention.Layout(TREE, (Flex(compiled=False),))
    out = attention.attend_segments(q, k, v, layout, scale=0.3, window=window, softcap=softcap)
    expected = dense(q, k, v, visible(TREE, window), 0.3, softcap)
    assert torch.allclose(out, expected, atol=2e-6)
    if softcap is not None:
        options = {"scale": 0.3, "window": window, "softcap": softcap}
        assert torch.allclose(Reference().attend(q, k, v, layout, **options), expected, atol=2e-6)


@pytest.mark.parametrize("window", [None, 40])
def test_a_block_mask_lists_the_blocks(window):
    layout = attention.Layout(laid_out([(100, [(200, []), (90, [(150, [])])]), (130, [])]), ())
    some, whole = flex.visible_blocks(layout.token_exits(768), layout.token_depths(768), window)
    mask = flex.block_mask(layout, 768, window, torch.device("cpu"))
    assert (mask.to_dense()[0, 0].bool().numpy() == some | whole).all()
    assert mask.full_kv_num_blocks is not None
    assert mask.full_kv_num_blocks[0, 0].tolist() == whole.sum(1).tolist()
    assert (some & ~whole).any()
    assert whole.any() == (window is None)


@pytest.mark.parametrize("window", [None, 5])
def test_variable_length_attention_gets_its_arguments(monkeypatch, window):
    """The kernel is replaced by what its documentation says it computes."""
    starts: list[Tensor] = []

    def fake(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa):
        assert cu_seq_q is cu_seq_k
        assert cu_seq_q.dtype == torch.int32
        assert (max_q, max_k, enable_gqa, window_size[1]) == (9, 9, True, 0)
        starts.append(cu_seq_q)
        mask = visible(trees_of_one(cu_seq_q.diff().tolist()), None if window_size[0] < 0 else window_size[0] + 1)
        return dense(*(x.transpose(0, 1)[None] for x in (q, k, v)), mask, scale)[0]

    monkeypatch.setattr(varlen, "_attention", lambda: fake)
    q, k, v, _ = random(16)
    backend, segments = varlen.Varlen(), trees_of_one([4, 9, 3])
    layout = attention.Layout(segments, ())
    for _ in range(2):
        out = backend.attend(q, k, v, layout, scale=0.3, window=window, softcap=None)
        assert torch.allclose(out, dense(q, k, v, visible(segments, window), 0.3))
    assert starts[0].tolist() == [0, 4, 13, 16]
    assert starts[0] is starts[1]
    assert backend.takes(q, v, layout, softcap=None)
    assert not backend.takes(q, v, attention.Layout(TREE, ()), softcap=None)


def test_gpu_backends_are_missing_on_the_cpu_and_say_nothing():
    cpu = torch.device("cpu")
    assert varlen.Varlen().missing(cpu, torch.bfloat16)
    assert Flex().missing(cpu, torch.bfloat16)
    assert "computes no torch.float32" in varlen.Varlen().missing(torch.device("cuda"), torch.float32)
    assert varlen.Varlen().missing(torch.device("cuda"), torch.bfloat16) == ""
    found = choice.choose(attention.Shape(9, 3, 64), device=cpu, dtype=torch.float32)
    assert [backend.name for backend in found.backends] == ["merged flash attention", "segment by segment"]
    assert found.notes == ()
